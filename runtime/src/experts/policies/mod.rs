//! Eviction: which resident expert goes when another needs its memory.
//!
//! One file per policy, one line each in [`PolicyKind`]. A policy sees every visit of a layer and gives each
//! resident expert a value; the store evicts the lowest. It decides about speed only: what is computed never
//! depends on it.

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

/// One routed expert of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its layer.
    pub layer: LayerId,
    /// Its number in the layer.
    pub expert: ExpertId,
}

/// How many experts a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Layers, those without experts included.
    pub layers: usize,
    /// Routed experts per layer.
    pub experts: usize,
    /// Experts that a token is routed to.
    pub per_token: usize,
}

impl Shape {
    /// Routed experts of all layers.
    pub fn len(&self) -> usize {
        self.layers * self.experts
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of an expert in a table of all of them.
    pub fn index(&self, key: Key) -> usize {
        key.layer.0 * self.experts + key.expert.0
    }
}

/// Values resident experts.
pub trait Policy: Send {
    /// A layer is visited: the experts of each of its tokens, `[tokens, per_token]`.
    fn visit(&mut self, layer: LayerId, routed: &[ExpertId]);

    /// Takes a prior: for each expert, by [`Shape::index`], the share of tokens that were routed to it elsewhere.
    fn prior(&mut self, _shares: &[f32]) {}

    /// What keeping an expert is worth while `now` is computed; the lowest is evicted.
    fn value(&self, now: LayerId, key: Key) -> f64;
}

/// The policies that can run without knowing the future.
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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Lru, Self::Lfu, Self::Reuse];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::Reuse => "reuse",
        }
    }

    /// The policy of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A policy that has seen nothing yet.
    pub fn build(self, shape: Shape) -> Box<dyn Policy> {
        match self {
            Self::Lru => Box::new(Lru::new(shape)),
            Self::Lfu => Box::new(Lfu::new(shape)),
            Self::Reuse => Box::new(Reuse::new(shape)),
        }
    }
}

/// The least valuable of `candidates` (each with its bytes) that together free at least `needed` bytes, or
/// `None` where even all of them do not.
pub fn victims(
    policy: &dyn Policy,
    now: LayerId,
    candidates: impl Iterator<Item = (Key, u64)>,
    needed: u64,
) -> Option<Vec<Key>> {
    if needed == 0 {
        return Some(Vec::new());
    }
    let valued = candidates.map(|(key, bytes)| Candidate(policy.value(now, key), key, bytes));
    // Few of many are evicted: a heap finds them without sorting the others.
    let mut heap: BinaryHeap<Candidate> = valued.collect();
    let (mut victims, mut freed) = (Vec::new(), 0u64);
    while freed < needed {
        let Candidate(_, key, bytes) = heap.pop()?;
        freed = freed.saturating_add(bytes);
        victims.push(key);
    }
    Some(victims)
}

/// Value, expert and bytes, the least valuable being the greatest.
struct Candidate(f64, Key, u64);

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
