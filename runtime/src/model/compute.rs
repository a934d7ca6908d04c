//! The context of a forward pass: instruction set, threads, observer and cancellation.

use std::sync::atomic::{AtomicBool, Ordering};

use super::ModelError;
use super::observer::{Observer, Watch};
use crate::checkpoint::LayerId;
use crate::isa::Tier;
use crate::kernels::Activations;
use crate::threads::Pool;

/// What a forward pass computes with.
#[derive(Clone, Copy, Debug)]
pub struct Compute<'a> {
    /// The instruction set.
    pub tier: Tier,
    /// The threads.
    pub pool: &'a Pool,
    /// Who sees the inputs of the matrices, if anybody.
    pub(crate) watch: Option<Watch<'a>>,
    /// Set by whoever wants it to end: it does so before the next layer.
    cancel: Option<&'a AtomicBool>,
}

impl<'a> Compute<'a> {
    /// With nobody watching.
    pub fn new(tier: Tier, pool: &'a Pool) -> Self {
        Self { tier, pool, watch: None, cancel: None }
    }

    /// With someone who sees the inputs of the matrices.
    pub fn watched_by(self, observer: &'a dyn Observer) -> Self {
        Self { watch: Some(Watch { observer, layer: None }), ..self }
    }

    /// Ends with [`ModelError::Cancelled`] before the next layer once `cancel` is set.
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

    /// Tells who watches what goes into some matrices.
    pub(crate) fn observe(&self, names: &[&str], heads: usize, x: &Activations) {
        if let Some(watch) = &self.watch {
            watch.matrices(names, heads, x);
        }
    }
}
