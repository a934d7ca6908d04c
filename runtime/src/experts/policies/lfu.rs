//! Least frequently used, equals by recency. It never forgets, so it is slow to follow a change of topic.

use super::{Key, Lru, Policy, Shape};
use crate::checkpoint::{ExpertId, LayerId};

/// Values experts by how many tokens used them.
pub struct Lfu {
    shape: Shape,
    count: Vec<u64>,
    recency: Lru,
}

impl Lfu {
    /// Nothing used yet.
    pub fn new(shape: Shape) -> Self {
        Self { shape, count: vec![0; shape.len()], recency: Lru::new(shape) }
    }
}

impl Policy for Lfu {
    fn visit(&mut self, layer: LayerId, routed: &[ExpertId]) {
        for &expert in routed {
            self.count[self.shape.index(Key { layer, expert })] += 1;
        }
        self.recency.visit(layer, routed);
    }

    fn value(&self, now: LayerId, key: Key) -> f64 {
        // Visits stay far below 2^32, so the fraction never reaches the next count.
        self.count[self.shape.index(key)] as f64 + self.recency.value(now, key) / 4294967296.0
    }
}
