//! Belady's optimum: evict what is used furthest in the future. It needs the whole trace, so it only
//! replays; it is the bound that the others are compared with. (With records of different sizes the rule is no
//! longer exactly optimal, which nothing that runs in reasonable time is.)

use std::collections::HashMap;

use super::{Key, Policy};
use crate::checkpoint::{ExpertId, LayerId};

/// Values experts by when they will be used next.
pub struct Belady {
    /// For each visit and each of its experts, the number of the next visit that uses it.
    next_uses: std::vec::IntoIter<Vec<(ExpertId, u64)>>,
    next: HashMap<Key, u64>,
}

impl Belady {
    /// The visits that are to come, in order.
    pub fn new<'a>(visits: impl DoubleEndedIterator<Item = (LayerId, &'a [ExpertId])>) -> Self {
        let mut coming: HashMap<Key, u64> = HashMap::new();
        let mut next_uses = Vec::new();
        // From the end: visits are numbered by how many follow them, so that a larger number is sooner.
        for (number, (layer, routed)) in (1..).zip(visits.rev()) {
            let next = |&expert: &ExpertId| {
                (expert, coming.get(&Key { layer, expert }).copied().unwrap_or(0))
            };
            let uses = routed.iter().map(next).collect();
            next_uses.push(uses);
            coming.extend(routed.iter().map(|&expert| (Key { layer, expert }, number)));
        }
        next_uses.reverse();
        Self { next_uses: next_uses.into_iter(), next: HashMap::new() }
    }
}

impl Policy for Belady {
    fn visit(&mut self, layer: LayerId, _routed: &[ExpertId]) {
        let uses = self.next_uses.next().unwrap_or_default();
        self.next.extend(uses.into_iter().map(|(expert, next)| (Key { layer, expert }, next)));
    }

    fn value(&self, _now: LayerId, key: Key) -> f64 {
        self.next.get(&key).copied().unwrap_or(0) as f64
    }
}
