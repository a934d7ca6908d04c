//! Everything a device needs to run a DeepSeek-class mixture-of-experts model: the GGUF container,
//! block types, kernels, the model itself, the expert store, sessions and tokenizers.
//!
//! Start with [`model::Model`] for the network, with [`session::Session`] to generate text, and
//! with [`app`] to embed it in an application. This crate only reads model files;
//! `vaquita-quantize` makes them from checkpoints.

pub mod app;
pub mod blocks;
pub mod bytes;
pub mod checkpoint;
pub mod cores;
pub mod doctor;
pub mod experts;
pub mod gguf;
pub mod host;
pub mod isa;
pub mod kernels;
pub mod measure;
pub mod model;
pub mod opening;
pub mod session;
#[cfg(feature = "structured")]
pub mod structured;
pub mod svg;
pub mod threads;
pub mod tokenizer;
pub mod trace;
