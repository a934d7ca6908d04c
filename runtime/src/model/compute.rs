//! The context of a forward pass: instruction set, threads, observer and cancellation.

use std::sync::atomic::{AtomicBool, Ordering};

use super::ModelError;
use super::observer::{ExpertInputs, Observer, Watch};
use crate::checkpoint::{ExpertId, LayerId};
use crate::isa::Tier;
use crate::kernels::Activations;
use crate::threads::Pool;

/// Resources of a forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Compute<'a> {
    /// The instruction set.
    pub tier: Tier,
    /// The threads.
    pub pool: &'a Pool,
    /// Observer of the inputs of matrices.
    pub(crate) watch: Option<Watch<'a>>,
    /// Flag that, once set, ends the pass before the next layer.
    cancel: Option<&'a AtomicBool>,
}

impl<'a> Compute<'a> {
    /// Creates a context without an observer.
    pub fn new(tier: Tier, pool: &'a Pool) -> Self {
        Self { tier, pool, watch: None, cancel: None }
    }

    /// Adds an observer of the inputs of matrices.
    pub fn watched_by(self, observer: &'a dyn Observer) -> Self {
        Self { watch: Some(Watch { observer, layer: None }), ..self }
    }

    /// Makes the pass end with [`ModelError::Cancelled`] before the next layer once `cancel` is
    /// set.
    pub fn cancelled_by(self, cancel: &'a AtomicBool) -> Self {
        Self { cancel: Some(cancel), ..self }
    }

    pub(super) fn check_cancelled(&self) -> Result<(), ModelError> {
        match self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            true => Err(ModelError::Cancelled),
            false => Ok(()),
        }
    }

    pub(super) fn in_layer(&self, layer: LayerId) -> Self {
        let watch = self.watch.map(|watch| Watch { layer: Some(layer), ..watch });
        Self { watch, ..*self }
    }

    /// Shows the observer the inputs of the matrix `name` of the layer, which has `heads` heads.
    pub(super) fn observe(&self, name: &str, heads: usize, x: &Activations) {
        if let Some(watch) = &self.watch {
            watch.matrix(name, heads, x);
        }
    }

    /// Shows the observer the inputs of a routed expert of the layer.
    pub(super) fn observe_expert(&self, expert: ExpertId, inputs: &ExpertInputs) {
        if let Some(Watch { observer, layer: Some(layer) }) = &self.watch {
            observer.expert(*layer, expert, inputs);
        }
    }
}
