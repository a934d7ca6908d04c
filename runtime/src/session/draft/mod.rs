//! Speculative decoding (arXiv 2211.17192) that changes no answer: tokens are drafted cheaply, one
//! pass of the model computes the logits after all of them, and a draft is accepted if it is what
//! the sequence's own sampler picks from these logits, with its own random numbers, penalties and
//! grammar. The sampler sees one position after the other, as it does without drafts, and never
//! learns that there were any.
//!
//! Drafts come from the multi-token-prediction layer that some models have ([`mtp`]), or from the
//! text itself ([`lookup`]). A [`Pace`] chooses how many, for all sequences of a pass.

mod lookup;
mod mode;
mod mtp;
mod pace;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

pub use mode::{DraftMode, DraftModeError, MOST_DRAFTS};
use mtp::MtpDrafts;
pub use pace::{Candidate, Chances, Pace};

use crate::model::cache::CacheType;
use crate::model::{Compute, Model};

/// Time since a fixed moment.
pub type Clock = Box<dyn FnMut() -> Duration + Send>;

/// Drafted and accepted tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DraftUse {
    /// Tokens that were drafted, by their place in a step.
    pub drafted: Vec<u64>,
    /// Drafts that were accepted, by their place.
    pub accepted: Vec<u64>,
}

impl DraftUse {
    /// Tokens that were drafted, in all places.
    pub fn all_drafted(&self) -> u64 {
        self.drafted.iter().sum()
    }

    /// Drafts that were accepted, in all places.
    pub fn all_accepted(&self) -> u64 {
        self.accepted.iter().sum()
    }

    /// The difference from `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |now: &[u64], then: &[u64]| -> Vec<u64> {
            let then = then.iter().chain(std::iter::repeat(&0));
            now.iter().zip(then).map(|(now, then)| now.saturating_sub(*then)).collect()
        };
        Self {
            drafted: difference(&self.drafted, &earlier.drafted),
            accepted: difference(&self.accepted, &earlier.accepted),
        }
    }

    fn count(&mut self, drafted: usize, accepted: usize) {
        for (counts, count) in [(&mut self.drafted, drafted), (&mut self.accepted, accepted)] {
            counts.resize(counts.len().max(drafted), 0);
            counts.iter_mut().take(count).for_each(|counted| *counted += 1);
        }
    }
}

/// `12 of 20 drafts accepted (1st 8 of 10, 2nd 4 of 10)`
impl fmt::Display for DraftUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (accepted, drafted) = (self.all_accepted(), self.all_drafted());
        write!(f, "{accepted} of {drafted} drafts accepted")?;
        let places = self.accepted.iter().zip(&self.drafted).filter(|(_, drafted)| **drafted > 0);
        for (at, (accepted, drafted)) in places.enumerate() {
            let (before, end) = (if at == 0 { " (" } else { ", " }, ["st", "nd", "rd"].get(at));
            write!(f, "{before}{}{} {accepted} of {drafted}", at + 1, end.unwrap_or(&"th"))?;
        }
        if drafted > 0 { f.write_str(")") } else { Ok(()) }
    }
}

/// The drafts of one sequence. Its owner feeds the next token and those that [`propose`] returns,
/// passes the logits to [`computed`](Self::computed), and asks [`confirm`](Self::confirm) for those
/// after the token that its sampler picks next. When that has none, [`end_step`](Self::end_step)
/// comes before the next proposal, and positions that were not confirmed are removed from the
/// sequence's cache.
pub struct Drafts {
    mode: DraftMode,
    width: usize,
    chances: Chances,
    mtp: Option<MtpDrafts>,
    used: DraftUse,
    /// Drafts that are not confirmed, with the logits after them.
    ahead: VecDeque<(u32, Vec<f32>)>,
    step: Option<Step>,
}

/// A step whose drafts are being confirmed.
struct Step {
    /// Position of its first token, which was no draft.
    first: usize,
    drafted: usize,
    accepted: usize,
    /// States of the model, `[1 + drafted, hidden_size]`, if they are needed.
    states: Vec<f32>,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Positions of the sequence up to the last confirmed one.
    pub confirmed: usize,
    /// Tokens that were drafted.
    pub drafted: usize,
    /// Drafts that were accepted.
    pub accepted: usize,
}

/// A sequence for which tokens are to be drafted.
pub struct Wanted<'a> {
    /// Its drafts.
    pub drafts: &'a mut Drafts,
    /// Its tokens, of which the last one is to be fed next.
    pub tokens: &'a [u32],
    /// Number of tokens to draft.
    pub count: usize,
}

/// Drafts tokens for several sequences, at most as many as are wanted for each.
pub fn propose(model: &Model, ctx: &Compute, wanted: &mut [Wanted]) -> Vec<Vec<u32>> {
    let mut proposals: Vec<Vec<u32>> = Vec::with_capacity(wanted.len());
    let mut guesses = Vec::new();
    for Wanted { drafts, tokens, count } in wanted {
        proposals.push(match &mut drafts.mtp {
            None => lookup::lookup(tokens, *count),
            Some(mtp) => {
                guesses.push((proposals.len(), mtp::Guess { mtp, tokens, count: *count }));
                Vec::new()
            }
        });
    }
    let (places, mut guesses): (Vec<usize>, Vec<_>) = guesses.into_iter().unzip();
    // An error of the store will come up again in the pass itself.
    let drafted = mtp::draft(model, ctx, &mut guesses).unwrap_or_default();
    for (place, tokens) in places.into_iter().zip(drafted) {
        proposals[place] = tokens;
    }
    proposals
}

impl Drafts {
    /// Drafts for an empty sequence with a cache of type `ty`; `None` where the mode comes to no
    /// drafts with this model.
    pub fn new(model: &Model, ty: CacheType, mode: DraftMode) -> Option<Self> {
        let mode = mode.resolve(model.has_mtp());
        let mtp = match mode {
            DraftMode::Off | DraftMode::Auto => return None,
            DraftMode::Mtp(_) if !model.has_mtp() => return None,
            DraftMode::Mtp(_) => Some(MtpDrafts::new(model, ty)),
            DraftMode::Lookup(_) => None,
        };
        let (width, chances) = (model.config().hidden_size, Chances::default());
        let (used, ahead, step) = (DraftUse::default(), VecDeque::new(), None);
        Some(Self { mode, width, chances, mtp, used, ahead, step })
    }

    /// The same with other chances to begin with.
    pub fn with_chances(self, chances: Chances) -> Self {
        Self { chances, ..self }
    }

    /// How tokens are drafted.
    pub fn mode(&self) -> DraftMode {
        self.mode
    }

    /// Chances that drafts are accepted.
    pub fn chances(&self) -> &Chances {
        &self.chances
    }

    /// Drafted and accepted tokens so far.
    pub fn used(&self) -> &DraftUse {
        &self.used
    }

    /// Memory that drafting takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.mtp.as_ref().map_or(0, MtpDrafts::bytes)
    }

    /// Whether passes have to report the model's states.
    pub fn needs_states(&self) -> bool {
        self.mtp.is_some()
    }

    /// Takes the states of a part of the prompt, which begins at position `first`. `tokens` is the
    /// sequence up to the end of the part.
    pub fn read(
        &mut self,
        model: &Model,
        ctx: &Compute,
        first: usize,
        tokens: &[u32],
        states: &[f32],
    ) {
        let Some(mtp) = &mut self.mtp else { return };
        mtp.learn(first, states, self.width);
        let guess = mtp::Guess { mtp: &mut *mtp, tokens, count: 1 };
        if mtp::catch_up(model, ctx, &mut [guess]).is_err() {
            mtp.forget(self.width); // drafts get less good
        }
    }

    /// Takes the results of a pass over the token at position `first` and the `proposed` ones after
    /// it: logits, `[1 + proposed, vocab_size]`, and the model's states. Returns the logits after
    /// the first token.
    pub fn computed(
        &mut self,
        proposed: Vec<u32>,
        first: usize,
        mut logits: Vec<f32>,
        states: Vec<f32>,
    ) -> Vec<f32> {
        let drafted = proposed.len();
        self.step = Some(Step { first, drafted, accepted: 0, states });
        let vocab_size = logits.len() / (1 + drafted);
        for token in proposed.into_iter().rev() {
            let after = logits.split_off(logits.len() - vocab_size);
            self.ahead.push_front((token, after));
        }
        logits
    }

    /// The logits after `token`, the next one of the sequence, if it was drafted.
    pub fn confirm(&mut self, token: u32) -> Option<Vec<f32>> {
        let step = self.step.as_mut()?;
        if self.ahead.front()?.0 != token {
            return None;
        }
        step.accepted += 1;
        self.ahead.pop_front().map(|(_, logits)| logits)
    }

    /// Ends a step, if there is one: drafts that were not confirmed are rejected.
    pub fn end_step(&mut self) -> Option<Ended> {
        self.ahead.clear();
        let Step { first, drafted, accepted, states } = self.step.take()?;
        self.chances.note(drafted, accepted);
        self.used.count(drafted, accepted);
        if let Some(mtp) = &mut self.mtp {
            let known = states.len().min((1 + accepted) * self.width);
            mtp.learn(first, &states[..known], self.width);
            mtp.forget(self.width);
        }
        Some(Ended { confirmed: first + 1 + accepted, drafted, accepted })
    }

    /// Removes what depends on the tokens from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.end_step();
        if let Some(mtp) = &mut self.mtp {
            mtp.truncate(len, self.width);
        }
    }
}

impl fmt::Debug for Drafts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drafts").field("mode", &self.mode).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_counted_and_shown_by_place() {
        let mut used = DraftUse::default();
        assert_eq!(used.to_string(), "0 of 0 drafts accepted");
        for (drafted, accepted) in [(2, 2), (2, 1), (1, 0), (0, 0)] {
            used.count(drafted, accepted);
        }
        assert_eq!(used.to_string(), "3 of 5 drafts accepted (1st 2 of 3, 2nd 1 of 2)");
        let before = used.clone();
        used.count(3, 3);
        let since = used.since(&before);
        assert_eq!((since.drafted, since.accepted), (vec![1; 3], vec![1; 3]));
    }
}
