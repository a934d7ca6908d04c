//! Model files: their configuration, their tensors and where the bytes lie.
//!
//! [`config`] has the constants of a model, [`spec`] names its tensors, [`families`] has one file per
//! family that reads the one and states the other. [`weights`] is the source of tensors that the
//! network loads from: a GGUF file through [`gguf_weights`] (mapped) and [`gguf_records`] (one expert
//! at a time, read through a [`source`]), or a checkpoint folder through the quantizer's sources.

pub mod config;
pub mod families;
pub mod gguf_records;
pub mod gguf_weights;
mod kv_b;
pub mod source;
pub mod spec;
pub mod weights;

pub use config::Config;
pub use gguf_weights::{GgufWeights, Verify};
pub use spec::{
    ExpertId, ExpertSpec, HfExpert, HfTensor, KvB, LayerId, Projection, Role, TensorSpec,
};
pub use weights::{Expert, Weights, WeightsError};
