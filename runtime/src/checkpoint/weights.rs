//! Where a model gets its weights: a GGUF file, or a checkpoint folder read by the quantizer's sources.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Config, ExpertSpec, TensorSpec};
use crate::blocks::{Matrix, MatrixError};

/// Why weights could not be had.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file or folder has no such tensor.
    #[error("{path}: tensor {name} is missing")]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The tensor has another shape than the configuration says.
    #[error("{path}: tensor {name} has shape {found:?}, the configuration says {expected:?}")]
    Shape {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What the configuration calls for.
        expected: Vec<usize>,
    },
    /// The tensor has a type that does not run.
    #[error("{path}: tensor {name} has type {found}; this version runs {allowed}")]
    Type {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
        /// Types that run.
        allowed: String,
    },
    /// The bytes are not what type and shape need.
    #[error("{path}: tensor {name}: {source}")]
    Matrix {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with them.
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
        /// What its bytes add up to.
        found: u32,
        /// What the file says.
        expected: u32,
    },
    /// A routed expert could not be had.
    #[error("expert {expert} of layer {layer}: {source}")]
    Expert {
        /// Its layer.
        layer: usize,
        /// Its number.
        expert: usize,
        /// Why. Everyone who waits for the expert gets the same reason.
        source: Arc<WeightsError>,
    },
    /// Reading failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// One routed expert's weights.
#[derive(Clone, Debug)]
pub struct Expert {
    /// `[moe_intermediate_size, hidden_size]`
    pub gate: Matrix,
    /// `[moe_intermediate_size, hidden_size]`
    pub up: Matrix,
    /// `[hidden_size, moe_intermediate_size]`
    pub down: Matrix,
}

/// A source of weights by specification. Implementations check the shape.
pub trait Weights: Send + Sync {
    /// The model that these weights are of.
    fn config(&self) -> &Config;
    /// A tensor that is not a routed expert; `None` where an optional one is absent.
    fn tensor(&self, spec: &TensorSpec) -> Result<Option<Matrix>, WeightsError>;
    /// A routed expert.
    fn expert(&self, spec: &ExpertSpec) -> Result<Expert, WeightsError>;
}
