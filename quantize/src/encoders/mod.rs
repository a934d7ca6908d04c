//! Encoders: convert weights to the bytes of a block type, and report the error.
//!
//! [`encode`] is the entry point, and [`exact`] the one for lossless encoding. [`tables`] contains
//! the value tables of the coded types, `search` selects the scale of a group, [`Feedback`] has the
//! factors by which errors propagate, `ldlq` quantizes rows with them, `coded` assembles rows, and
//! `plain` converts to floating-point types. [`encode_ggml`] writes ggml's types for other programs,
//! with the scales that `ggml_fit` finds.

use std::sync::LazyLock;

use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::isa::Tier;

mod coded;
mod exact;
mod feedback;
mod ggml;
mod ggml_fit;
mod ldlq;
mod plain;
mod rows;
mod search;
pub mod tables;
#[cfg(test)]
mod tests;

pub use exact::{exact, holds_mxfp4, unchanged};
pub use feedback::Feedback;
pub use ggml::{GGML_TYPES, encode_ggml};
pub use rows::{Rows, Sample, Slice};

/// Tier for quantization. Measured: table lookups are faster than with the widest vectors.
static TIER: LazyLock<Tier> = LazyLock::new(|| Tier::from_name("avx2").unwrap_or_else(Tier::best));

/// Error of encoding weights.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A type that can be read but not written.
    #[error("{ty} is read, but not written; choose e4, e3, e2, e8 or f16")]
    NotWritten {
        /// The type.
        ty: BlockType,
    },
    /// An infinity or NaN.
    #[error(
        "row {row}, column {col} is {value}; every weight must be a finite number: is the checkpoint damaged?"
    )]
    NotFinite {
        /// Index of the row.
        row: usize,
        /// Index of the column.
        col: usize,
        /// The weight.
        value: f32,
    },
    /// A weight beyond the range of the type.
    #[error(
        "row {row}, column {col} is {value}, which is beyond the range of {ty}; choose another type"
    )]
    TooLarge {
        /// The type.
        ty: BlockType,
        /// Index of the row.
        row: usize,
        /// Index of the column.
        col: usize,
        /// The weight.
        value: f32,
    },
    /// A shape that the type cannot hold.
    #[error(
        "{ty} cannot hold {rows} x {cols} weights: columns must be a multiple of 32; f16 holds any shape"
    )]
    Shape {
        /// The type.
        ty: BlockType,
        /// Number of rows.
        rows: usize,
        /// Number of columns.
        cols: usize,
    },
    /// Importance that is not one non-negative finite number per column.
    #[error(
        "the importance of the columns must be {expected} finite numbers, none below zero; {found}"
    )]
    Importance {
        /// Number of columns.
        expected: usize,
        /// The problem.
        found: String,
    },
}

/// Squared error of an encoding and the energy of the weights: unweighted, weighted by the
/// importance of the columns if one is given, or measured at the outputs under the second moments
/// of the inputs if there is feedback.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distortion {
    /// Sum of squared differences.
    pub squared_error: f64,
    /// Sum of squared weights.
    pub energy: f64,
}

impl Distortion {
    /// Error relative to the energy; 0 for a matrix of zeros.
    pub fn relative(&self) -> f64 {
        if self.energy > 0.0 { self.squared_error / self.energy } else { 0.0 }
    }
}

impl std::ops::AddAssign for Distortion {
    fn add_assign(&mut self, other: Self) {
        self.squared_error += other.squared_error;
        self.energy += other.energy;
    }
}

impl std::iter::Sum for Distortion {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

/// An encoder's knowledge of the inputs of a matrix.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guide<'a> {
    /// Weights of the squared error per column; equal weights if `None`.
    pub importance: Option<&'a [f32]>,
    /// Error feedback, for coded types.
    pub feedback: Option<&'a Feedback>,
}

impl<'a> Guide<'a> {
    /// A guide with column weights and without feedback.
    pub fn importance(importance: Option<&'a [f32]>) -> Self {
        Self { importance, feedback: None }
    }
}

/// Encodes a matrix and returns the distortion.
pub fn encode(
    ty: BlockType,
    weights: &dyn Rows,
    guide: Guide,
) -> Result<(Vec<u8>, Distortion), EncodeError> {
    check(weights.cols(), guide)?;
    if !BlockType::WRITTEN.contains(&ty) {
        return Err(EncodeError::NotWritten { ty });
    }
    if ty.is_coded() { coded::encode(ty, weights, guide) } else { plain::encode(ty, weights) }
}

/// The distortion of [`encode`], without the bytes.
pub fn measure(ty: BlockType, weights: &dyn Rows, guide: Guide) -> Result<Distortion, EncodeError> {
    check(weights.cols(), guide)?;
    if ty.is_coded() {
        coded::measure(ty, weights, guide)
    } else {
        plain::encode(ty, weights).map(|(_, distortion)| distortion)
    }
}

fn check(expected: usize, guide: Guide) -> Result<(), EncodeError> {
    if let Some(found) = guide.feedback.map(Feedback::cols).filter(|cols| *cols != expected) {
        let found = format!("found second moments of {found}");
        return Err(EncodeError::Importance { expected, found });
    }
    let Some(importance) = guide.importance else {
        return Ok(());
    };
    let found = if importance.len() != expected {
        format!("found {}", importance.len())
    } else if let Some(bad) = importance.iter().find(|one| !(one.is_finite() && **one >= 0.0)) {
        format!("found {bad}")
    } else {
        return Ok(());
    };
    Err(EncodeError::Importance { expected, found })
}
