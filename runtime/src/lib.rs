//! Everything a device needs to run a DeepSeek-class mixture-of-experts model: the GGUF container,
//! block types, kernels, the model itself, the expert store, sessions and tokenizers.
//!
//! Start at [`model::Model`] for the network, at [`session::Session`] to generate text with it, at
//! [`app`] to embed it.
//! Quantizing checkpoints is the business of `vaquita-quantize`; this crate only reads its files.

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
