//! Least frequently used, ties broken by recency. It never forgets, so it follows a change of topic
//! slowly.

use super::{ExpertKey, Lru, Policy, Shape};
use crate::checkpoint::{ExpertId, LayerId};

/// Ranks experts by the number of tokens that used them.
pub struct Lfu {
    shape: Shape,
    count: Vec<u64>,
    recency: Lru,
}

impl Lfu {
    /// A policy that has seen no visits.
    pub fn new(shape: Shape) -> Self {
        Self { shape, count: vec![0; shape.len()], recency: Lru::new(shape) }
    }
}

impl Policy for Lfu {
    fn visit(&mut self, layer: LayerId, routed: &[ExpertId]) {
        for &expert in routed {
            self.count[self.shape.index(ExpertKey { layer, expert })] += 1;
        }
        self.recency.visit(layer, routed);
    }

    fn value(&self, now: LayerId, key: ExpertKey) -> f64 {
        // Visits stay far below 2^32, so the fraction never reaches the next count.
        self.count[self.shape.index(key)] as f64 + self.recency.value(now, key) / 4294967296.0
    }
}
