//! A bound on passes that changes while a model is in use.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Most tokens of a prompt that are computed together, since their scratch memory is planned. None at
/// first. Passes that have begun go on.
#[derive(Debug)]
pub struct PassLimit(AtomicUsize);

impl Default for PassLimit {
    fn default() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }
}

impl PassLimit {
    /// The number of tokens, at least one.
    pub fn tokens(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Changes it.
    pub fn set(&self, tokens: usize) {
        self.0.store(tokens.max(1), Ordering::Relaxed);
    }
}
