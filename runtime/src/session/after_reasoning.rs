//! A constraint that starts with the answer; reasoning before it is unconstrained.
//!
//! [`ReasoningSplitter`] determines where reasoning ends, both here and for the text that is shown,
//! so that the two never disagree. During reasoning, tokens that end the text are banned: an answer
//! has to follow. If the prompt leaves open whether the model thinks, the first token may also be
//! one that begins reasoning.

use std::sync::Arc;

use super::constraint::{Constraint, ConstraintError};
use super::reasoning::{self, Part, Phase, ReasoningSplitter};
use crate::tokenizer::Tokenizer;

/// Maximum number of line breaks between reasoning and a constrained answer.
const MAX_NEWLINES: usize = 2;

/// Applies a constraint to the answer that follows the reasoning.
pub struct AfterReasoning {
    inner: Box<dyn Constraint>,
    tokenizer: Arc<Tokenizer>,
    /// Tokens that end the text.
    ends: Vec<u32>,
    /// Tokens that may begin reasoning as the first token.
    openers: Vec<u32>,
    /// Tokens that continue after a character that can end a marker, with their text: such a token
    /// may span the boundary between reasoning and answer.
    straddling: Vec<(u32, String)>,
    /// Tokens that consist of line breaks only, with the number of line breaks.
    newlines: Vec<(u32, usize)>,
    /// States before the first token, after the first token and so on; the last is the current one.
    states: Vec<State>,
}

/// Position in the text.
#[derive(Clone)]
enum State {
    /// Before the answer.
    Before(ReasoningSplitter),
    /// After the reasoning and this number of line breaks.
    Between(usize),
    /// In the answer.
    Answer,
}

impl AfterReasoning {
    /// Starts at the answer to `prompt`; `reasoning_open` tells whether the prompt ends inside a
    /// `<think>` block.
    pub fn new(
        inner: Box<dyn Constraint>,
        tokenizer: Arc<Tokenizer>,
        ends: Vec<u32>,
        prompt: &[u32],
        reasoning_open: bool,
    ) -> Self {
        let last = tokenizer.decode(&prompt[prompt.len().saturating_sub(8)..]);
        let may_think = !reasoning_open && !reasoning::closes(&last);
        let (mut straddling, mut newlines, mut openers) = (Vec::new(), Vec::new(), Vec::new());
        for token in 0..tokenizer.vocab_size() as u32 {
            let Some(text) = tokenizer.piece(token).and_then(|p| String::from_utf8(p).ok()) else {
                continue;
            };
            if may_think && ReasoningSplitter::begins_with(&text) {
                openers.push(token);
            }
            if !text.is_empty() && text.bytes().all(|byte| byte == b'\n') {
                newlines.push((token, text.len()));
            } else if let Some(at) = text.find(['>', ']', '▷'])
                && text[at..].trim_matches('\n').chars().nth(1).is_some()
            {
                straddling.push((token, text));
            }
        }
        let first = match (reasoning_open, may_think) {
            (false, false) => State::Answer,
            _ => State::Before(ReasoningSplitter::new(reasoning_open)),
        };
        Self { inner, tokenizer, ends, openers, straddling, newlines, states: vec![first] }
    }

    fn state(&self) -> &State {
        self.states.last().unwrap_or(&State::Answer)
    }

    /// Applies the mask of the inner constraint to all tokens except those in `also`.
    fn mask_but(
        &mut self,
        logits: &mut [f32],
        also: impl Iterator<Item = u32>,
    ) -> Result<(), ConstraintError> {
        let kept: Vec<(usize, f32)> =
            also.filter_map(|token| Some((token as usize, *logits.get(token as usize)?))).collect();
        self.inner.mask(logits)?;
        for (token, logit) in kept {
            logits[token] = logit;
        }
        Ok(())
    }
}

/// Bans `token`.
fn ban(logits: &mut [f32], token: u32) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = f32::NEG_INFINITY;
    }
}

/// Whether `text` extends into the answer.
fn reaches_answer(splitter: &ReasoningSplitter, text: &str) -> bool {
    splitter.clone().push(text).iter().any(|part| matches!(part, Part::Answer(_)))
}

impl Constraint for AfterReasoning {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        match self.state() {
            State::Answer => self.inner.mask(logits),
            State::Between(before) => {
                let left = MAX_NEWLINES.saturating_sub(*before);
                let newlines = self.newlines.clone().into_iter();
                self.mask_but(logits, newlines.filter(|(_, n)| *n <= left).map(|(token, _)| token))
            }
            State::Before(splitter) if splitter.phase() == Phase::Start => {
                let openers = self.openers.clone().into_iter();
                self.mask_but(logits, openers)
            }
            State::Before(splitter) if splitter.phase() == Phase::Header => {
                // Malformed headers are shown, so no token may make the header malformed.
                for token in 0..self.tokenizer.vocab_size() as u32 {
                    let piece = self.tokenizer.piece(token).unwrap_or_default();
                    if self.ends.contains(&token)
                        || reaches_answer(splitter, &String::from_utf8_lossy(&piece))
                    {
                        ban(logits, token);
                    }
                }
                Ok(())
            }
            State::Before(splitter) => {
                self.ends.iter().for_each(|token| ban(logits, *token));
                for (token, text) in &self.straddling {
                    if reaches_answer(splitter, text) {
                        ban(logits, *token);
                    }
                }
                Ok(())
            }
        }
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        let next = match self.state().clone() {
            State::Answer => {
                self.inner.accept(token)?;
                State::Answer
            }
            State::Between(before) => match self.newlines.iter().find(|(one, _)| *one == token) {
                Some((_, n)) if before + n <= MAX_NEWLINES => State::Between(before + n),
                _ => {
                    self.inner.accept(token)?;
                    State::Answer
                }
            },
            State::Before(mut splitter) => {
                let piece = self.tokenizer.piece(token).unwrap_or_default();
                let was = splitter.phase();
                splitter.push(&String::from_utf8_lossy(&piece));
                match splitter.phase() {
                    // The text consists only of what the constraint has allowed.
                    Phase::Start | Phase::Answer if was == Phase::Start => {
                        self.inner.accept(token)?;
                        State::Answer
                    }
                    Phase::Answer => State::Between(0),
                    _ => State::Before(splitter),
                }
            }
        };
        self.states.push(next);
        Ok(())
    }

    fn holds(&self) -> bool {
        matches!(self.state(), State::Answer) && self.inner.holds()
    }

    fn rollback(&mut self, tokens: usize) -> Result<(), ConstraintError> {
        let accepted = self.states.len() - 1;
        let kept = accepted
            .checked_sub(tokens)
            .ok_or(ConstraintError::Rollback { asked: tokens, accepted })?;
        // The inner constraint received exactly the tokens after which the state is `Answer`.
        let inner = self.states[kept + 1..].iter().filter(|s| matches!(s, State::Answer)).count();
        self.inner.rollback(inner)?;
        self.states.truncate(kept + 1);
        Ok(())
    }
}
