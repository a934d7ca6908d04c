//! Options of a streaming store, and the errors of opening one.

use std::io;

use super::guesses::Guessing;
use super::policies::PolicyKind;
use crate::checkpoint::WeightsError;

/// How a store works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamingOptions {
    /// Bytes for experts.
    pub budget_bytes: usize,
    /// What gives way.
    pub policy: PolicyKind,
    /// Reads at the same time; 0 counts as 1.
    pub lanes: usize,
    /// Whether to read what the next layer is likely to need.
    pub guessing: Guessing,
    /// Lossy, for tokens that are generated: how much lower the router's score of an expert in memory may be,
    /// as a share, for it to take the place of one that is not.
    pub prefer_resident: Option<f32>,
}

/// A budget that does not hold what one layer needs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found} bytes are too few for experts: the experts of one token in one layer take {least}"
)]
pub struct BudgetError {
    /// Bytes given.
    pub found: usize,
    /// Bytes needed.
    pub least: usize,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The budget is too small.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The file's experts are not where they should be.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The system gives no thread to read with.
    #[error("no thread could be started to read with: {0}")]
    Lanes(io::Error),
}
