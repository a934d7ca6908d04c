//! A compiled rule, and one answer's way through it.

use std::fmt;
use std::sync::Arc;

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use super::vocabulary::Vocabulary;
use crate::session::constraint::{Constraint, ConstraintError, Grammar};

/// A rule, compiled.
pub(super) struct Compiled {
    pub vocabulary: Arc<Vocabulary>,
    /// At its start.
    pub matcher: Matcher,
    /// The grammar is our own and may hold control tokens.
    pub trusted: bool,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").field("trusted", &self.trusted).finish_non_exhaustive()
    }
}

impl Grammar for Compiled {
    fn begin(&self) -> Result<Box<dyn Constraint>, ConstraintError> {
        Ok(Box::new(Followed {
            vocabulary: self.vocabulary.clone(),
            matcher: self.matcher.deep_clone(),
            trusted: self.trusted,
            accepted: 0,
            ended: 0,
        }))
    }
}

/// One answer.
struct Followed {
    vocabulary: Arc<Vocabulary>,
    matcher: Matcher,
    trusted: bool,
    /// Tokens that the matcher was given.
    accepted: usize,
    /// Ends of the answer after these.
    ended: usize,
}

fn failed(error: impl fmt::Display) -> ConstraintError {
    // The first line says it; what follows is the matcher's inner state.
    let problem = error.to_string().lines().next().unwrap_or_default().to_string();
    ConstraintError::Failed { problem }
}

impl Constraint for Followed {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        let mut mask = self.matcher.compute_mask_or_eos().map_err(failed)?;
        if !self.trusted {
            self.vocabulary.without_control(&mut mask);
        }
        ban_all_but(&mask, logits);
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        // A matcher that has stopped allows the end without taking it.
        let ends = self.vocabulary.env.tok_trie().eos_tokens();
        if self.matcher.is_stopped() && !self.matcher.is_error() && ends.contains(&token) {
            self.ended += 1;
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(|_| ConstraintError::Refused { token })?;
        self.accepted += 1;
        Ok(())
    }

    fn holds(&self) -> bool {
        true
    }

    fn rollback(&mut self, tokens: usize) -> Result<(), ConstraintError> {
        let accepted = self.accepted + self.ended;
        if tokens > accepted {
            return Err(ConstraintError::Rollback { asked: tokens, accepted });
        }
        let ends = tokens.min(self.ended);
        self.ended -= ends;
        self.accepted -= tokens - ends;
        self.matcher.rollback(tokens - ends).map_err(failed)
    }
}

fn ban_all_but(mask: &SimpleVob, logits: &mut [f32]) {
    let words = mask.as_slice().iter().chain(std::iter::repeat(&0));
    for (logits, allowed) in logits.chunks_mut(32).zip(words) {
        for (bit, logit) in logits.iter_mut().enumerate() {
            if allowed >> bit & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}
