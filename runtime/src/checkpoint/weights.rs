//! The interface to a model's weights: a GGUF file, or a checkpoint folder read by the quantizer's
//! sources.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Config, ExpertSpec, TensorSpec};
use crate::blocks::{Matrix, MatrixError};

/// Error of loading weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The tensor is missing.
    #[error("{path}: tensor {name} is missing")]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// Tensors that the configured network does not use.
    #[error(
        "{path}: the model has no use for {names}: its configuration contradicts its tensors, or this version does not know it and would compute wrong numbers",
        names = super::accounting::listed(names)
    )]
    Unused {
        /// The file or folder.
        path: PathBuf,
        /// The tensors.
        names: Vec<String>,
    },
    /// A value that is NaN or infinite.
    #[error(
        "{name} gives a number that is NaN or infinite; the model is damaged, or was made from a damaged one: copy or quantize it again"
    )]
    NotFinite {
        /// Tensor, or layer and part of it.
        name: String,
    },
    /// The shape of the tensor differs from the configuration.
    #[error("{path}: tensor {name} has shape {found:?}, the configuration says {expected:?}")]
    Shape {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape found.
        found: Vec<usize>,
        /// The shape according to the configuration.
        expected: Vec<usize>,
    },
    /// The type of the tensor is not supported.
    #[error("{path}: tensor {name} has type {found}; this version runs {allowed}")]
    Type {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The type found.
        found: String,
        /// The supported types.
        allowed: String,
    },
    /// The bytes do not match type and shape.
    #[error("{path}: tensor {name}: {source}")]
    Matrix {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The problem.
        source: MatrixError,
    },
    /// A record does not match its checksum.
    #[error(
        "{path}: {name} is damaged: its checksum is {found:08x}, the file says {expected:08x}; copy or quantize the file again"
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The record.
        name: String,
        /// Checksum of the bytes read.
        found: u32,
        /// Checksum in the file.
        expected: u32,
    },
    /// A routed expert cannot be loaded.
    #[error("expert {expert} of layer {layer}: {source}")]
    Expert {
        /// Index of the layer.
        layer: usize,
        /// Index of the expert.
        expert: usize,
        /// The error, shared by all visits that wait for the expert.
        source: Arc<WeightsError>,
    },
    /// Another program changed the file.
    #[error("{path}: the file was changed while it is in use; load the model again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Reading failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
}

/// Weights of one routed expert.
#[derive(Clone, Debug)]
pub struct Expert {
    /// `[moe_intermediate_size, hidden_size]`
    pub gate: Matrix,
    /// `[moe_intermediate_size, hidden_size]`
    pub up: Matrix,
    /// `[hidden_size, moe_intermediate_size]`
    pub down: Matrix,
}

/// A source of weights by specification. Implementations check shapes.
pub trait Weights: Send + Sync {
    /// Configuration of the model.
    fn config(&self) -> &Config;
    /// A tensor that is not a routed expert; `None` if an optional one is absent.
    fn tensor(&self, spec: &TensorSpec) -> Result<Option<Matrix>, WeightsError>;
    /// A routed expert.
    fn expert(&self, spec: &ExpertSpec) -> Result<Expert, WeightsError>;
    /// Checks that every tensor and expert that a run needs is there, with a shape and a type that
    /// it can have. Weights are not read, but for their tables of values.
    fn check(&self) -> Result<(), WeightsError>;
}
