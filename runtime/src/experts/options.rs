//! Options of a streaming store, and the errors of opening one.

use std::io;

use super::policies::PolicyKind;
use super::prefetch::PrefetchMode;
use crate::checkpoint::WeightsError;

/// Options of a streaming store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamingOptions {
    /// Memory for experts, in bytes.
    pub budget_bytes: usize,
    /// Eviction policy.
    pub policy: PolicyKind,
    /// Parallel reads; 0 counts as 1.
    pub lanes: usize,
    /// When to prefetch experts of the next layer.
    pub prefetch: PrefetchMode,
    /// Lossy, for generated tokens only: how much lower, relative to the selected expert's, the
    /// router's score of a resident expert may be for it to replace an expert that is not resident.
    pub prefer_resident: Option<f32>,
}

/// A budget below the experts of one token in one layer.
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

/// Error of opening a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// The budget is too small.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The file's expert records are missing or malformed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A thread for reading cannot be started.
    #[error("no thread could be started to read with: {0}")]
    Lanes(io::Error),
}
