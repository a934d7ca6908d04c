//! The way from a session to the model: sessions that generate at the same time can share passes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::model::cache::KvCache;
use crate::model::{Logits, ModelError, Purpose};

/// Computes the passes of one session, together with those of others.
pub trait Passes: Send {
    /// Computes `work`, and returns its cache with the results.
    fn compute(&self, work: Work) -> Computed;

    /// Number of other sessions whose passes are computed at this time.
    fn others(&self) -> usize;
}

/// Tokens to compute.
#[derive(Debug)]
pub struct Work {
    /// The tokens, which follow the positions in `cache`.
    pub tokens: Vec<u32>,
    /// State of the sequence.
    pub cache: KvCache,
    /// Tokens whose logits are wanted.
    pub wanted: Logits,
    /// Whether the states after the final norm are wanted.
    pub wants_states: bool,
    /// Purpose of the tokens.
    pub purpose: Purpose,
    /// Flag that, once set, ends the work before the next layer.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// The results of some work.
#[derive(Debug)]
pub struct Computed {
    /// State of the sequence: with the new positions, or unchanged if the work failed.
    pub cache: KvCache,
    /// The wanted logits, `[wanted tokens, vocab_size]`.
    pub logits: Result<Vec<f32>, ModelError>,
    /// The wanted states, `[tokens, hidden_size]`.
    pub states: Vec<f32>,
}
