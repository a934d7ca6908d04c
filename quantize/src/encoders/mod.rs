//! Encoders: from weights to the bytes of a block type, with the error that this leaves.
//!
//! [`encode`] is the way in, [`exact`] that for what needs no rounding. [`tables`] has the value tables of the coded types, `search` the choice of a
//! group's scale, [`Feedback`] has the factors by which errors carry on, `carried` rounds rows by them, `coded` puts rows together, `plain` converts numbers.

use vaquita_runtime::blocks::BlockType;

mod carried;
mod coded;
mod exact;
mod feedback;
mod plain;
mod rows;
mod search;
pub mod tables;
#[cfg(test)]
mod tests;

pub use exact::{exact, holds_mxfp4, unchanged};
pub use feedback::Feedback;
pub use rows::{Rows, Sample, Slice};

/// Why weights cannot be encoded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// A type that is read but not written.
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
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
        /// The weight.
        value: f32,
    },
    /// A weight beyond the type's range.
    #[error(
        "row {row}, column {col} is {value}, which is beyond the range of {ty}; choose another type"
    )]
    TooLarge {
        /// The type.
        ty: BlockType,
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
        /// The weight.
        value: f32,
    },
    /// The type cannot hold the shape.
    #[error(
        "{ty} cannot hold {rows} x {cols} weights: columns must be a multiple of 32; f16 holds any shape"
    )]
    Shape {
        /// The type.
        ty: BlockType,
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// Importances that are not one finite number, zero or more, per column.
    #[error(
        "the importance of the columns must be {expected} finite numbers, none below zero; {found}"
    )]
    Importance {
        /// Columns.
        expected: usize,
        /// What is wrong.
        found: String,
    },
}

/// The squared error that encoding left, and the energy it is to be compared with: of the weights; weighted by
/// the importance of the columns where one is given; of the outputs under the second moments of the inputs
/// where there is feedback.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distortion {
    /// Sum of squared differences.
    pub squared_error: f64,
    /// Sum of squared weights.
    pub energy: f64,
}

impl Distortion {
    /// Error as a part of the energy; 0 for a matrix of zeros.
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

/// What an encoder knows of the inputs of a matrix.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guide<'a> {
    /// Weighs the squared error of each column; without it all count the same.
    pub importance: Option<&'a [f32]>,
    /// Carries errors on to later columns, in the coded types.
    pub feedback: Option<&'a Feedback>,
}

impl<'a> Guide<'a> {
    /// Weights for columns, and no feedback.
    pub fn importance(importance: Option<&'a [f32]>) -> Self {
        Self { importance, feedback: None }
    }
}

/// Encodes a matrix and says what was lost.
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

/// What [`encode`] would lose, without keeping the bytes.
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
