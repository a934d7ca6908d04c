//! The network, in the order and with the names of the DeepSeek-V2 and V3 papers.
//!
//! [`config`] has the constants, [`spec`] the tensors, [`families`] one file per family. The forward pass
//! is in [`transformer`], which is built of layers of a [`mixer`] ([`mla`], [`gqa`] or [`short_conv`]), [`router`] and [`moe`];
//! [`layerwise`] has one of them in memory at a time. Threads, I/O and
//! unsafe code are elsewhere. Weights come through [`weights`]: from a GGUF file by [`gguf_weights`] (mapped)
//! and [`gguf_records`] (read), from a checkpoint folder by the quantizer's sources.

pub mod config;
pub mod families;
pub mod gguf_records;
pub mod gguf_weights;
pub mod gqa;
mod kv_b;
mod layer;
pub mod layerwise;
pub mod linear;
mod loader;
pub mod mixer;
pub mod mla;
pub mod moe;
pub mod observer;
pub mod rope;
pub mod router;
pub mod short_conv;
pub mod spec;
pub mod transformer;
pub mod weights;

pub use config::Config;
pub use gguf_weights::{GgufWeights, Verify};
pub use spec::{
    ExpertId, ExpertSpec, HfExpert, HfTensor, KvB, LayerId, Projection, Role, TensorSpec,
};
pub use transformer::{Compute, Logits, Model, ModelError};
pub use weights::{Expert, Weights, WeightsError};
