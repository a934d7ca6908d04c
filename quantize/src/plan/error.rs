//! The size target of a plan, and errors of planning.

use vaquita_runtime::checkpoint::WeightsError;

use crate::container::ContainerError;
use crate::encoders::EncodeError;

/// Size target of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Bits of the whole file per weight of the model.
    BitsPerWeight(f64),
    /// Bytes of the whole file.
    Bytes(u64),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BitsPerWeight(bits) => write!(f, "{bits} bits per weight"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

/// Error of making a plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No assignment of types makes the file small enough.
    #[error(
        "{target} cannot be reached: this model takes from {least_bytes} bytes ({least_bits:.3} bits per weight) to {most_bytes} bytes ({most_bits:.3})"
    )]
    Unreachable {
        /// The target.
        target: Target,
        /// Size of the smallest file.
        least_bytes: u64,
        /// Bits per weight of the smallest file.
        least_bits: f64,
        /// Size of the largest file.
        most_bytes: u64,
        /// Bits per weight of the largest file.
        most_bits: f64,
    },
    /// A weight cannot be encoded.
    #[error("tensor {name}: {source}")]
    Encode {
        /// The tensor.
        name: String,
        /// The encoding error.
        source: EncodeError,
    },
    /// Reading failed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The size of the file cannot be computed.
    #[error(transparent)]
    Container(#[from] ContainerError),
}
