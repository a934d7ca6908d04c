//! Least recently used. Visits go round the layers, so with less room than one token's experts everything
//! is evicted just before it could be used again: it then hits nothing. Kept as the yardstick.

use super::{Key, Policy, Shape};
use crate::checkpoint::{ExpertId, LayerId};

/// Values experts by when they were used last.
pub struct Lru {
    shape: Shape,
    clock: u64,
    last: Vec<u64>,
}

impl Lru {
    /// Nothing used yet.
    pub fn new(shape: Shape) -> Self {
        Self { shape, clock: 0, last: vec![0; shape.len()] }
    }
}

impl Policy for Lru {
    fn visit(&mut self, layer: LayerId, routed: &[ExpertId]) {
        self.clock += 1;
        for &expert in routed {
            self.last[self.shape.index(Key { layer, expert })] = self.clock;
        }
    }

    fn value(&self, _now: LayerId, key: Key) -> f64 {
        self.last[self.shape.index(key)] as f64
    }
}
