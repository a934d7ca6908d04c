//! Importance: error weights that calibration provides to the quantizer.

use std::error::Error;

use crate::hessian::Hessian;
use crate::progress::Progress;
use vaquita_runtime::checkpoint::{ExpertSpec, Projection};

/// Weights for the squared error of columns. `None` means unknown: all columns have equal weight.
pub trait Importance: Sync {
    /// Weights for a tensor that is not a routed expert, by its name in GGUF: `cols` finite
    /// non-negative numbers.
    fn tensor(&self, name: &str, cols: usize) -> Option<Vec<f32>>;

    /// Weights for an expert's projection, one per column. They are comparable among the experts of
    /// a layer: an expert with twice the work has weights twice as large.
    fn expert(&self, spec: &ExpertSpec, projection: Projection) -> Option<Vec<f32>>;

    /// Number of tokens that were routed to an expert.
    fn tokens(&self, _spec: &ExpertSpec) -> Option<u64> {
        None
    }

    /// Called before a layer is encoded, or, with `None`, before embedding and output head. Layers
    /// come in ascending order; after a resumption, some may have been encoded already.
    fn prepare(
        &self,
        _layer: Option<usize>,
        _progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }

    /// Whether the texts reached the matrices of a layer, or, with `None`, the output head.
    fn reaches(&self, _layer: Option<usize>) -> bool {
        true
    }

    /// Second moments of a tensor's inputs, for error feedback.
    fn tensor_hessian(&self, _name: &str, _cols: usize) -> Option<Hessian> {
        None
    }

    /// Second moments of the inputs of an expert's projection.
    fn expert_hessian(&self, _spec: &ExpertSpec, _projection: Projection) -> Option<Hessian> {
        None
    }
}
