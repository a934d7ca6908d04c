//! Reading model files: configuration, tensors, and their locations.
//!
//! [`config`] contains the constants of a model, [`spec`] names its tensors, and [`families`] has
//! one file per family, which reads the former and lists the latter. [`weights`] is the interface
//! through which the network loads tensors: from a GGUF file through [`gguf_weights`] (mapped) and
//! [`gguf_records`] (one expert at a time, read through a [`source`]), or from a checkpoint folder
//! through the quantizer's sources. [`suggested`] has the
//! sampling options that the model's authors suggest.

pub mod accounting;
pub mod config;
pub mod families;
pub mod gguf_records;
pub mod gguf_weights;
mod kv_b;
pub mod source;
pub mod spec;
mod stored_layout;
pub mod suggested;
pub mod weights;
pub mod whole;

pub use config::Config;
pub use gguf_weights::{GgufWeights, Verify};
pub use spec::{
    Axis, ExpertId, ExpertSpec, Function, HfExpert, HfTensor, KvB, LayerId, Picked, Projection,
    Role, TensorSpec,
};
pub use weights::{Expert, Weights, WeightsError};
