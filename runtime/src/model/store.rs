//! The store that a layer's routed experts come from: its interface, and the routing that it is
//! asked with. [`Resident`](super::Resident) keeps every expert, [`crate::experts`] streams them.

use super::Stats;
use crate::checkpoint::{Expert, ExpertId, LayerId, WeightsError};

/// One of a token's experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// The expert.
    pub expert: ExpertId,
    /// The factor on its output.
    pub weight: f32,
}

/// A layer's turn: what its tokens were routed to.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// The layer.
    pub layer: LayerId,
    /// The slots of each token, `[tokens, per_token]`.
    pub slots: &'a [Slot],
    /// Slots of a token.
    pub per_token: usize,
}

impl Visit<'_> {
    /// Tokens that are computed together.
    pub fn tokens(&self) -> usize {
        self.slots.len() / self.per_token.max(1)
    }

    /// The experts that are needed, each once, ascending.
    pub fn wanted(&self) -> Vec<ExpertId> {
        let mut wanted: Vec<ExpertId> = self.slots.iter().map(|slot| slot.expert).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }
}

/// Experts to prefer where the router is nearly indifferent.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// By expert, whether it is preferred.
    pub preferred: Vec<bool>,
    /// How much lower the score of a preferred expert may be, as a share of the score of the one
    /// that it takes the place of.
    pub margin: f32,
}

/// The experts of one visit, pulled as they become resident.
pub trait Arrivals {
    /// Resident experts that were not handed out yet, each expert of the visit once, with their weights;
    /// `None` after the last. What was handed out before may be evicted from now on. Waits where none is
    /// resident, but for the first call, which then hands out none: there may be work that needs no
    /// routed expert.
    ///
    /// # Errors
    /// Where an expert could not be had; some of them may have been handed out.
    fn next_ready(&mut self) -> Result<Option<Vec<(ExpertId, &Expert)>>, WeightsError>;
}

/// Gives out experts. Several sequences may do so at the same time.
pub trait ExpertStore: Send + Sync {
    /// Begins to fetch the experts that `visit` needs.
    ///
    /// # Errors
    /// Where an expert cannot be had.
    fn fetch<'a>(&'a self, visit: &Visit) -> Result<Box<dyn Arrivals + 'a>, WeightsError>;

    /// Whether a prediction of the experts that `layer` will need is useful now.
    fn wants_prefetch(&self, _layer: LayerId) -> bool {
        false
    }

    /// Takes a predicted visit, whose experts may be prefetched.
    fn prefetch(&self, _visit: &Visit) {}

    /// Which experts of a layer are in memory or on their way; `None` where all always are.
    fn resident(&self, _layer: LayerId) -> Option<Vec<bool>> {
        None
    }

    /// Lossy: the experts of `layer` that a router that is nearly indifferent should prefer. `None`
    /// leaves routing as the model has it.
    fn preference(&self, _layer: LayerId) -> Option<Preference> {
        None
    }

    /// What happened so far, where the store has anything to tell.
    fn stats(&self) -> Option<Stats> {
        None
    }
}
