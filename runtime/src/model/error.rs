//! Errors of loading and running a model.

use crate::checkpoint::WeightsError;

/// Error of loading or running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Weights cannot be loaded.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A token is outside the vocabulary.
    #[error("token {found} is not in the vocabulary of {vocab_size} tokens")]
    Token {
        /// The token.
        found: u32,
        /// Vocabulary size, in tokens.
        vocab_size: usize,
    },
    /// Logits that carry no prediction: all are equal.
    #[error(
        "all logits are equal to the last bit; the model is damaged, or was made from a damaged one: copy or quantize it again"
    )]
    NoPrediction,
    /// The caller cancelled the pass.
    #[error("it was cancelled")]
    Cancelled,
}
