//! The store that a layer's routed experts come from: its interface, and the routing that it is
//! asked with. [`Resident`](super::Resident) keeps every expert, [`crate::experts`] streams them.

use super::Stats;
use crate::checkpoint::{Expert, ExpertId, LayerId, WeightsError};

/// One routed expert of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// The expert.
    pub expert: ExpertId,
    /// Factor on the expert's output.
    pub weight: f32,
}

/// Purpose of a token, which affects the speed of a store and never a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Part of an answer: the next token of its sequence, or a draft of one that follows.
    Decode,
    /// Part of a prompt.
    Prompt,
    /// Part of a prompt that passes through while other sequences decode: the store keeps what
    /// they use.
    Passing,
}

impl Purpose {
    /// Whether there are tokens and all of them are parts of answers.
    pub fn all_decode(purposes: &[Self]) -> bool {
        !purposes.is_empty() && purposes.iter().all(|purpose| *purpose == Self::Decode)
    }
}

/// One layer's routing for a batch of tokens.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// The layer.
    pub layer: LayerId,
    /// The slots of each token, `[tokens, per_token]`.
    pub slots: &'a [Slot],
    /// Number of slots per token.
    pub per_token: usize,
    /// Purpose of each token, `[tokens]`.
    pub purposes: &'a [Purpose],
}

impl Visit<'_> {
    /// Number of tokens in the batch.
    pub fn tokens(&self) -> usize {
        self.slots.len() / self.per_token.max(1)
    }

    /// Distinct experts that are needed, ascending.
    pub fn wanted(&self) -> Vec<ExpertId> {
        let mut wanted: Vec<ExpertId> = self.slots.iter().map(|slot| slot.expert).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// The experts of the tokens that do not just pass through, `[tokens, per_token]`.
    pub fn lasting(&self) -> Vec<ExpertId> {
        let passes = |token| self.purposes.get(token) == Some(&Purpose::Passing);
        let slots = self.slots.chunks(self.per_token.max(1)).enumerate();
        let slots = slots.filter(|(token, _)| !passes(*token)).flat_map(|(_, slots)| slots);
        slots.map(|slot| slot.expert).collect()
    }

    /// Whether all tokens are parts of answers.
    pub fn decodes(&self) -> bool {
        Purpose::all_decode(self.purposes)
    }
}

/// Experts to prefer where the router is nearly indifferent.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// Whether each expert is preferred, indexed by expert.
    pub preferred: Vec<bool>,
    /// Maximum by which the score of a preferred expert may be lower, as a share of the score of
    /// the expert that it replaces.
    pub margin: f32,
}

/// The experts of one visit, pulled as they become resident.
pub trait Arrivals {
    /// Returns resident experts that were not handed out yet, each expert of the visit once, with
    /// their weights; `None` after the last. Experts handed out by earlier calls may be evicted
    /// from now on. Waits if none is resident, except in the first call, which then returns an
    /// empty list, because there may be work that needs no routed expert.
    ///
    /// # Errors
    /// If an expert cannot be loaded; some of the experts may have been handed out.
    fn next_ready(&mut self) -> Result<Option<Vec<(ExpertId, &Expert)>>, WeightsError>;
}

/// Source of routed experts. Several sequences may use it at the same time.
pub trait ExpertStore: Send + Sync {
    /// Starts fetching the experts that `visit` needs.
    ///
    /// # Errors
    /// If an expert cannot be loaded.
    fn fetch<'a>(&'a self, visit: &Visit) -> Result<Box<dyn Arrivals + 'a>, WeightsError>;

    /// Checks that the files that experts come from are what they were on opening.
    ///
    /// # Errors
    /// If one has changed.
    fn check(&self) -> Result<(), WeightsError> {
        Ok(())
    }

    /// Whether a prediction of the experts that `layer` will need is useful now.
    fn wants_prefetch(&self, _layer: LayerId) -> bool {
        false
    }

    /// Takes a predicted visit, whose experts may be prefetched.
    fn prefetch(&self, _visit: &Visit) {}

    /// Whether each expert of a layer is in memory or being read; `None` if all are always in
    /// memory.
    fn resident(&self, _layer: LayerId) -> Option<Vec<bool>> {
        None
    }

    /// Lossy: the experts of `layer` that a router that is nearly indifferent should prefer. `None`
    /// leaves routing as the model has it.
    fn preference(&self, _layer: LayerId) -> Option<Preference> {
        None
    }

    /// Number of tokens whose experts of one layer fit into memory together even if they share
    /// none; `None` if all experts are always in memory. The experts of a wider step may have to
    /// take turns.
    fn tokens_at_once(&self) -> Option<usize> {
        None
    }

    /// Statistics so far, if the store has any.
    fn stats(&self) -> Option<Stats> {
        None
    }
}
