//! Calibration: statistics of every matrix's inputs and of every expert's work over texts, by which
//! the quantizer weights errors.
//!
//! A [`LayerwiseForward`] runs all texts through a model layer by layer and accumulates
//! [`Statistics`]. [`calibrate`] writes them to a `file`, [`ImportanceEstimate`] converts them for
//! the quantizer, and [`Coverage`] summarizes the tokens per expert. [`Streamed`] does all of this
//! while a file is quantized.

mod collect;
mod coverage;
mod exact;
mod file;
mod forward;
mod hidden_states;
mod importance;
mod parts;
mod streamed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use vaquita_quantize::hessian::Hessian;

pub use collect::{Calibration, calibrate};
pub use coverage::{Coverage, LayerCoverage};
pub use exact::{ExactExpert, ExactMoments, ExactStatistics, OutOfRange};
pub use file::{CalibrationError, CalibrationFile, CalibrationWriter, LayerShape, Origin, Shape};
pub use forward::{Calibrator, ForwardOptions, LayerwiseForward, STATES_IN_MEMORY};
pub use importance::ImportanceEstimate;
pub use parts::merge;
pub use streamed::Streamed;

/// Sums over the inputs of one matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Number of inputs, or the sum of the factors on them.
    pub weight: f64,
    /// Per column, the sum of the squares, each times its factor.
    pub squares: Vec<f64>,
    /// Sums of products, in blocks and with the same factors, if they were collected.
    pub products: Option<Hessian>,
}

/// Sums over the tokens of one expert. The factor on a square is the square of the router's weight,
/// by which an error at this token is scaled in the layer's output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpertMoments {
    /// Number of tokens that were routed to it.
    pub tokens: u64,
    /// Sum of the router's weights.
    pub mass: f64,
    /// Inputs of gate and up.
    pub input: Moments,
    /// Inputs of down.
    pub hidden: Moments,
}

/// Statistics of a model over texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Moments of dense matrices, by name in GGUF.
    pub matrices: BTreeMap<String, Moments>,
    /// Experts' moments, by layer and expert.
    pub experts: BTreeMap<usize, Vec<ExpertMoments>>,
}

impl Moments {
    fn merge(&mut self, other: &Self) {
        self.weight += other.weight;
        self.squares.resize(self.squares.len().max(other.squares.len()), 0.0);
        for (sum, other) in self.squares.iter_mut().zip(&other.squares) {
            *sum += other;
        }
        if let Some(other) = &other.products {
            self.products.get_or_insert_default().merge(other, 1.0);
        }
    }
}
