//! Constraints on the model's output: one mask over the vocabulary per token.
//!
//! A [`Grammar`] defines the allowed texts and is compiled once and shared; a [`Constraint`]
//! follows one sequence through it. Generation calls [`Constraint::mask`] before each token is
//! picked and [`Constraint::accept`] after it; rejected drafts are rolled back with
//! [`Constraint::rollback`]. Grammars for JSON schemas and other rules are in the module
//! `structured`, behind the feature of that name.

use std::fmt::Debug;

use crate::tokenizer::Tokenizer;

/// Reason why a constraint cannot continue. The answer ends there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// No token is allowed, not even one that ends the answer.
    #[error("the grammar and the logit bias leave no token: loosen one of them")]
    Exhausted,
    /// The matcher failed.
    #[error("the grammar cannot be followed any further: {problem}; simplify it")]
    Failed {
        /// Error message.
        problem: String,
    },
    /// The accepted token is not allowed by the grammar.
    #[error("token {token} is not allowed by the grammar")]
    Refused {
        /// The token.
        token: u32,
    },
    /// The rollback covers more tokens than were accepted.
    #[error("{asked} tokens are to be taken back of {accepted}")]
    Rollback {
        /// Number of tokens to roll back.
        asked: usize,
        /// Number of tokens that were accepted.
        accepted: usize,
    },
}

/// Definition of the allowed texts, shared by all sequences that are constrained by it.
pub trait Grammar: Debug + Send + Sync {
    /// Starts an answer.
    fn begin(&self) -> Result<Box<dyn Constraint>, ConstraintError>;
}

/// Constraint state of one sequence.
pub trait Constraint: Send {
    /// Sets the logits of disallowed next tokens to negative infinity. `logits` has at least the
    /// length of the vocabulary.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError>;

    /// Advances by the next token of the sequence, including tokens that end it.
    fn accept(&mut self, token: u32) -> Result<(), ConstraintError>;

    /// Whether the last token belongs to constrained text: it is then part of the answer, even if
    /// it looks like a reasoning tag.
    fn holds(&self) -> bool;

    /// Rolls back the last `tokens` accepted tokens.
    fn rollback(&mut self, tokens: usize) -> Result<(), ConstraintError>;
}

/// Tokens that end a text: the tokenizer's, the model's `eos_token_ids` and end-of-turn tokens.
pub fn end_tokens(tokenizer: &Tokenizer, eos_token_ids: &[u32]) -> Vec<u32> {
    let all = 0..tokenizer.vocab_size() as u32;
    let ends = |token: &u32| {
        tokenizer.eos() == Some(*token)
            || eos_token_ids.contains(token)
            || tokenizer.ends_turn(*token)
    };
    all.filter(ends).collect()
}
