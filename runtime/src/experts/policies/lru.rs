//! Least recently used. Visits cycle through the layers, so with less memory than one token's
//! experts each expert is evicted just before its next use, and the hit rate is 0. Kept as the
//! baseline.

use super::{ExpertKey, Policy, Shape};
use crate::checkpoint::{ExpertId, LayerId};

/// Ranks experts by their last use.
pub struct Lru {
    shape: Shape,
    clock: u64,
    last: Vec<u64>,
}

impl Lru {
    /// A policy that has seen no visits.
    pub fn new(shape: Shape) -> Self {
        Self { shape, clock: 0, last: vec![0; shape.len()] }
    }
}

impl Policy for Lru {
    fn visit(&mut self, layer: LayerId, routed: &[ExpertId]) {
        self.clock += 1;
        for &expert in routed {
            self.last[self.shape.index(ExpertKey { layer, expert })] = self.clock;
        }
    }

    fn value(&self, _now: LayerId, key: ExpertKey) -> f64 {
        self.last[self.shape.index(key)] as f64
    }
}
