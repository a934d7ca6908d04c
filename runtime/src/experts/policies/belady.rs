//! Belady's optimum: evict the expert whose next use is furthest in the future. It needs the whole
//! trace, so it exists for replay only, as the bound that the other policies are compared with.
//! (With records of different sizes the rule is not exactly optimal; the exact optimum cannot be
//! computed in reasonable time.)

use std::collections::HashMap;

use super::{ExpertKey, Policy};
use crate::checkpoint::{ExpertId, LayerId};

/// Ranks experts by their next use.
pub struct Belady {
    /// For each visit and each of its experts, the number of the next visit that uses the expert.
    next_uses: std::vec::IntoIter<Vec<(ExpertId, u64)>>,
    next: HashMap<ExpertKey, u64>,
}

impl Belady {
    /// Takes the future visits, in order.
    pub fn new<'a>(visits: impl DoubleEndedIterator<Item = (LayerId, &'a [ExpertId])>) -> Self {
        let mut coming: HashMap<ExpertKey, u64> = HashMap::new();
        let mut next_uses = Vec::new();
        // Backwards: visits are numbered by how many follow them, so that a larger number is
        // sooner.
        for (number, (layer, routed)) in (1..).zip(visits.rev()) {
            let next = |&expert: &ExpertId| {
                (expert, coming.get(&ExpertKey { layer, expert }).copied().unwrap_or(0))
            };
            let uses = routed.iter().map(next).collect();
            next_uses.push(uses);
            coming.extend(routed.iter().map(|&expert| (ExpertKey { layer, expert }, number)));
        }
        next_uses.reverse();
        Self { next_uses: next_uses.into_iter(), next: HashMap::new() }
    }
}

impl Policy for Belady {
    fn visit(&mut self, layer: LayerId, _routed: &[ExpertId]) {
        let uses = self.next_uses.next().unwrap_or_default();
        self.next
            .extend(uses.into_iter().map(|(expert, next)| (ExpertKey { layer, expert }, next)));
    }

    fn value(&self, _now: LayerId, key: ExpertKey) -> f64 {
        self.next.get(&key).copied().unwrap_or(0) as f64
    }
}
