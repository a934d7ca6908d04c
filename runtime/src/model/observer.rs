//! Observation of a forward pass: calibration sees the inputs of every matrix through an
//! [`Observer`]. A pass without one has no extra cost.

use crate::checkpoint::{ExpertId, LayerId};
use crate::kernels::Activations;

/// The inputs of one routed expert: the tokens of a pass that were routed to it.
#[derive(Clone, Copy, Debug)]
pub struct ExpertInputs<'a> {
    /// The router's weight of each token, `[tokens]`.
    pub weights: &'a [f32],
    /// Inputs of gate and up, `[tokens, hidden_size]`.
    pub input: &'a [f32],
    /// Inputs of down, `[tokens, moe_intermediate_size]`.
    pub hidden: &'a [f32],
}

/// Receives the inputs of the matrices of a model, in the order of computation.
pub trait Observer: Send + Sync {
    /// Receives the inputs of the matrix called `name` in GGUF: rows of `width` numbers. A matrix
    /// of several heads gets one row per token and head.
    fn matrix(&self, name: &str, width: usize, inputs: &[f32]);

    /// Receives the inputs of a routed expert.
    fn expert(&self, layer: LayerId, expert: ExpertId, inputs: &ExpertInputs);
}

/// An observer and the layer that it sees.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    pub observer: &'a dyn Observer,
    pub layer: Option<LayerId>,
}

impl Watch<'_> {
    /// Reports the inputs of a matrix of the layer, which has `heads` heads.
    pub fn matrix(&self, name: &str, heads: usize, x: &Activations) {
        let name = match self.layer {
            Some(layer) => format!("blk.{}.{name}.weight", layer.0),
            None => format!("{name}.weight"),
        };
        self.observer.matrix(&name, x.width / heads.max(1), &x.values);
    }
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("layer", &self.layer).finish_non_exhaustive()
    }
}
