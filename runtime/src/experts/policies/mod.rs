//! Eviction: selects the resident experts to evict when another expert needs their memory.
//!
//! One file per policy, and one variant each in [`PolicyKind`]. A policy sees every visit of a
//! layer and assigns each resident expert a value; the store evicts the lowest. Policies affect
//! speed only: results never depend on them.

mod belady;
mod lfu;
mod lru;
mod reuse;

pub use belady::Belady;
pub use lfu::Lfu;
pub use lru::Lru;
pub use reuse::Reuse;

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::checkpoint::{ExpertId, LayerId};

/// A routed expert, by layer and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExpertKey {
    /// Layer.
    pub layer: LayerId,
    /// Index within the layer.
    pub expert: ExpertId,
}

/// Number of layers and experts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Layers, including those without experts.
    pub layers: usize,
    /// Routed experts per layer.
    pub experts: usize,
    /// Experts that a token is routed to.
    pub per_token: usize,
}

impl Shape {
    /// Number of routed experts in all layers.
    pub fn len(&self) -> usize {
        self.layers * self.experts
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Index of an expert in a table of all experts.
    pub fn index(&self, key: ExpertKey) -> usize {
        key.layer.0 * self.experts + key.expert.0
    }
}

/// Eviction policy: assigns values to resident experts.
pub trait Policy: Send {
    /// Records a visit of `layer`. `routed` are the experts of each token, `[tokens, per_token]`.
    fn visit(&mut self, layer: LayerId, routed: &[ExpertId]);

    /// Takes a prior. `popularity` is, by [`Shape::index`], the fraction of calibration tokens that
    /// were routed to each expert.
    fn prior(&mut self, _popularity: &[f32]) {}

    /// The value of keeping an expert while layer `now` is computed; the lowest is evicted first.
    fn value(&self, now: LayerId, key: ExpertKey) -> f64;
}

/// The online policies: those that do not need the future.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// Least recently used.
    Lru,
    /// Least frequently used.
    Lfu,
    /// Furthest expected reuse.
    #[default]
    Reuse,
}

impl PolicyKind {
    /// All online policies.
    pub const ALL: [Self; 3] = [Self::Lru, Self::Lfu, Self::Reuse];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::Reuse => "reuse",
        }
    }

    /// The policy with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A policy that has seen no visits.
    pub fn build(self, shape: Shape) -> Box<dyn Policy> {
        match self {
            Self::Lru => Box::new(Lru::new(shape)),
            Self::Lfu => Box::new(Lfu::new(shape)),
            Self::Reuse => Box::new(Reuse::new(shape)),
        }
    }
}

/// The least valuable of `candidates` (each with its bytes) that together free at least `needed`
/// bytes; `None` if all of them together do not.
pub fn victims(
    policy: &dyn Policy,
    now: LayerId,
    candidates: impl Iterator<Item = (ExpertKey, u64)>,
    needed: u64,
) -> Option<Vec<ExpertKey>> {
    if needed == 0 {
        return Some(Vec::new());
    }
    let valued = candidates.map(|(key, bytes)| Candidate(policy.value(now, key), key, bytes));
    // Few of many are evicted: a heap finds them without sorting all.
    let mut heap: BinaryHeap<Candidate> = valued.collect();
    let (mut victims, mut freed) = (Vec::new(), 0u64);
    while freed < needed {
        let Candidate(_, key, bytes) = heap.pop()?;
        freed = freed.saturating_add(bytes);
        victims.push(key);
    }
    Some(victims)
}

/// Value, expert and bytes, ordered so that the least valuable is the greatest.
struct Candidate(f64, ExpertKey, u64);

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.total_cmp(&self.0).then(other.1.cmp(&self.1))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}
