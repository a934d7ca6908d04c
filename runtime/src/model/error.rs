//! Errors of loading and running a model.

use crate::checkpoint::WeightsError;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Weights could not be had.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A token is not of this vocabulary.
    #[error("token {found} is not in the vocabulary of {vocab_size} tokens")]
    Token {
        /// The token.
        found: u32,
        /// Tokens of the vocabulary.
        vocab_size: usize,
    },
    /// Logits that say nothing.
    #[error(
        "all logits are equal to the last bit; the model is damaged, or was made from a damaged one: copy or quantize it again"
    )]
    NoPrediction,
    /// The caller ended it.
    #[error("it was cancelled")]
    Cancelled,
}
