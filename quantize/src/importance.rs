//! How much an error in a column of a matrix matters: what calibration tells the quantizer.

use std::error::Error;

use crate::hessian::Hessian;
use crate::progress::Progress;
use vaquita_runtime::checkpoint::{ExpertSpec, Projection};

/// Weights for the squared errors of columns. `None` means that nothing is known: all columns count the same.
pub trait Importance: Sync {
    /// Of a tensor that is not a routed expert, by its name in GGUF: `cols` finite numbers from 0.
    fn tensor(&self, name: &str, cols: usize) -> Option<Vec<f32>>;

    /// Of an expert's projection, one number per column. Experts of a layer are weighed against each other: one
    /// that does twice the work has numbers twice as large.
    fn expert(&self, spec: &ExpertSpec, projection: Projection) -> Option<Vec<f32>>;

    /// Tokens that an expert saw.
    fn tokens(&self, _spec: &ExpertSpec) -> Option<u64> {
        None
    }

    /// A layer's turn to be encoded has come, or, without a layer, that of embedding and output head. Layers come in
    /// ascending order; after a resumption some have been encoded already.
    fn prepare(
        &self,
        _layer: Option<usize>,
        _progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }

    /// Whether texts came to a layer's matrices, or, without a layer, to the output head.
    fn reaches(&self, _layer: Option<usize>) -> bool {
        true
    }

    /// The second moments of a tensor's inputs, for error feedback.
    fn tensor_hessian(&self, _name: &str, _cols: usize) -> Option<Hessian> {
        None
    }

    /// Those of an expert's projection.
    fn expert_hessian(&self, _spec: &ExpertSpec, _projection: Projection) -> Option<Hessian> {
        None
    }
}
