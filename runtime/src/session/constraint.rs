//! Limits on what a model may say: a mask over its vocabulary, one token after the other.
//!
//! A [`Grammar`] is what may be said, compiled once and shared; a [`Constraint`] follows one sequence through it. Generation
//! calls [`Constraint::mask`] before each token is picked and [`Constraint::accept`] after it; drafts that are rejected are
//! taken back with [`Constraint::rollback`]. Grammars for JSON schemas and others are in the module `structured`, with the
//! feature of that name.

use std::fmt::Debug;

use crate::tokenizer::Tokenizer;

/// Why a constraint cannot go on. The answer ends there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// No token is allowed, not even one that ends the answer.
    #[error("the grammar and the logit bias leave no token: loosen one of them")]
    Exhausted,
    /// The matcher gave up.
    #[error("the grammar cannot be followed any further: {problem}; simplify it")]
    Failed {
        /// What went wrong.
        problem: String,
    },
    /// A token was accepted that the grammar does not allow.
    #[error("token {token} is not allowed by the grammar")]
    Refused {
        /// The token.
        token: u32,
    },
    /// More tokens are to be taken back than were accepted.
    #[error("{asked} tokens are to be taken back of {accepted}")]
    Rollback {
        /// Tokens to take back.
        asked: usize,
        /// Tokens that were accepted.
        accepted: usize,
    },
}

/// What may be said, shared by all sequences that are held to it.
pub trait Grammar: Debug + Send + Sync {
    /// Begins an answer.
    fn begin(&self) -> Result<Box<dyn Constraint>, ConstraintError>;
}

/// Follows one sequence.
pub trait Constraint: Send {
    /// Sets the logits of tokens that may not come next to negative infinity. `logits` has at least the vocabulary's length.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError>;

    /// Takes the next token of the sequence, tokens that end it among them.
    fn accept(&mut self, token: u32) -> Result<(), ConstraintError>;

    /// Whether the last token belongs to text that is held to the constraint: it is the answer's, even if it looks like a tag
    /// of reasoning.
    fn holds(&self) -> bool;

    /// Takes back the last `tokens` that were accepted.
    fn rollback(&mut self, tokens: usize) -> Result<(), ConstraintError>;
}

/// Tokens that end a text: the tokenizer's, the model's `eos_token_ids` and those that end a turn.
pub fn end_tokens(tokenizer: &Tokenizer, eos_token_ids: &[u32]) -> Vec<u32> {
    let all = 0..tokenizer.vocab_size() as u32;
    let ends = |token: &u32| {
        tokenizer.eos() == Some(*token)
            || eos_token_ids.contains(token)
            || tokenizer.ends_turn(*token)
    };
    all.filter(ends).collect()
}
