//! Calibration: what the inputs of every matrix look like while a model reads texts, and how much work each expert
//! gets. The quantizer weighs errors by it.
//!
//! A [`Walk`] takes all texts through a model layer by layer and adds up, [`Statistics`] is the sum, [`calibrate`] makes
//! a `file` of it, [`Weighing`] turns it into what the quantizer goes by, and [`Coverage`] says which experts saw how
//! much. [`Streamed`] does it all while a file is quantized.

mod collect;
mod coverage;
mod exact;
mod file;
mod importance;
mod parts;
mod states;
mod streamed;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;

use vaquita_quantize::hessian::Hessian;

pub use collect::{Calibration, calibrate};
pub use coverage::{Coverage, LayerCoverage};
pub use exact::{ExactExpert, ExactMoments, ExactStatistics, OutOfRange};
pub use file::{CalibrationError, CalibrationFile, LayerShape, Origin, Shape, Writer};
pub use importance::Weighing;
pub use parts::merge;
pub use streamed::Streamed;
pub use walk::{Reader, STATES_IN_MEMORY, Walk, WalkOptions};

/// Sums over the inputs of one matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Inputs seen, or the sum of the factors on them.
    pub weight: f64,
    /// Per column, the sum of the squares, each times its factor.
    pub squares: Vec<f64>,
    /// Their products with each other, in blocks and with the same factors, where those were collected.
    pub products: Option<Hessian>,
}

/// Sums over the tokens of one expert. The factor on a square is the square of the router's weight: that is
/// what an error at this token is multiplied by in the layer's output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpertMoments {
    /// Tokens that were routed here.
    pub tokens: u64,
    /// Sum of the router's weights.
    pub mass: f64,
    /// Inputs of gate and up.
    pub input: Moments,
    /// Inputs of down.
    pub hidden: Moments,
}

/// What a model did with texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// By the name of the tensor in GGUF.
    pub matrices: BTreeMap<String, Moments>,
    /// By layer, then by expert.
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
