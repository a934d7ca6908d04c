//! Replays a routing trace against an eviction policy: the hits and reads that it would have had
//! with a given number of bytes for experts. Starts with no expert resident. Memory is counted in
//! exact bytes of experts.
//!
//! For a generated token, all of its experts in a layer must be resident together. A prompt's chunk
//! visits experts one after the other, so it may use more than fit.

use std::collections::HashSet;

use super::{Trace, TraceVisit};
use crate::checkpoint::{ExpertId, LayerId};
use crate::experts::policies::{Belady, ExpertKey, Policy, PolicyKind, victims};

/// Eviction rule to replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionRule {
    /// An online policy.
    Policy(PolicyKind),
    /// Belady's optimum, the upper bound, which knows the trace.
    Belady,
}

impl EvictionRule {
    /// All rules, the bound last.
    pub const ALL: [Self; 4] = [
        Self::Policy(PolicyKind::Lru),
        Self::Policy(PolicyKind::Lfu),
        Self::Policy(PolicyKind::Reuse),
        Self::Belady,
    ];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy(kind) => kind.name(),
            Self::Belady => "belady",
        }
    }

    /// The rule with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    fn build(self, trace: &Trace) -> Box<dyn Policy> {
        match self {
            Self::Policy(kind) => kind.build(trace.shape),
            Self::Belady => {
                let visits = trace.visits.iter().map(|visit| (visit.layer, &visit.routed[..]));
                Box::new(Belady::new(visits))
            }
        }
    }
}

/// Error of a replay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The experts of one token in one layer do not fit.
    #[error(
        "{budget} bytes do not hold the {needed} bytes that one token needs of layer {layer}; give more"
    )]
    Budget {
        /// Bytes given.
        budget: u64,
        /// Bytes needed.
        needed: u64,
        /// Index of the layer.
        layer: usize,
    },
}

/// Hits and reads of a series of visits. An expert counts once per visit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Experts that visits used.
    pub uses: u64,
    /// Used experts that were resident.
    pub hits: u64,
    /// Bytes read for the others.
    pub bytes_read: u64,
}

impl Usage {
    /// `hits / uses`.
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.uses.max(1) as f64
    }
}

/// Result of a replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReplayResult {
    /// Usage by prompts.
    pub prefill: Usage,
    /// Usage by generated tokens.
    pub decode: Usage,
    /// Number of generated tokens.
    pub tokens: u64,
}

impl ReplayResult {
    /// Mean number of bytes read per generated token.
    pub fn bytes_per_token(&self) -> f64 {
        self.decode.bytes_read as f64 / self.tokens.max(1) as f64
    }
}

/// Replays `trace` with `budget` bytes for experts.
pub fn replay(trace: &Trace, rule: EvictionRule, budget: u64) -> Result<ReplayResult, ReplayError> {
    let mut run =
        Run { trace, policy: rule.build(trace), budget, resident: HashSet::new(), used: 0 };
    let mut outcome = ReplayResult {
        prefill: Usage::default(),
        decode: Usage::default(),
        tokens: trace.decoded_tokens(),
    };
    for visit in &trace.visits {
        let usage = if visit.prefill { &mut outcome.prefill } else { &mut outcome.decode };
        run.visit(visit, usage)?;
    }
    Ok(outcome)
}

struct Run<'a> {
    trace: &'a Trace,
    policy: Box<dyn Policy>,
    budget: u64,
    resident: HashSet<ExpertKey>,
    used: u64,
}

impl Run<'_> {
    fn bytes(&self, key: ExpertKey) -> u64 {
        self.trace.expert_bytes[self.trace.shape.index(key)]
    }

    fn visit(&mut self, visit: &TraceVisit, usage: &mut Usage) -> Result<(), ReplayError> {
        self.policy.visit(visit.layer, &visit.routed);
        let mut wanted: Vec<ExpertId> = visit.routed.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let key = |&expert: &ExpertId| ExpertKey { layer: visit.layer, expert };
        let (hits, misses): (Vec<ExpertKey>, Vec<ExpertKey>) =
            wanted.iter().map(key).partition(|key| self.resident.contains(key));
        usage.uses += wanted.len() as u64;
        usage.hits += hits.len() as u64;
        let mut in_use: HashSet<ExpertKey> = HashSet::new();
        if !visit.prefill {
            in_use.extend(wanted.iter().map(key));
        }
        for key in misses {
            self.make_room(visit.layer, self.bytes(key), &in_use)?;
            self.resident.insert(key);
            self.used += self.bytes(key);
            usage.bytes_read += self.bytes(key);
        }
        Ok(())
    }

    fn make_room(
        &mut self,
        now: LayerId,
        bytes: u64,
        in_use: &HashSet<ExpertKey>,
    ) -> Result<(), ReplayError> {
        let excess = (self.used + bytes).saturating_sub(self.budget);
        let free = self.resident.iter().filter(|key| !in_use.contains(key));
        let candidates = free.map(|&key| (key, self.bytes(key)));
        let Some(evicted) = victims(&*self.policy, now, candidates, excess) else {
            let needed = in_use.iter().map(|&key| self.bytes(key)).sum::<u64>().max(bytes);
            return Err(ReplayError::Budget { budget: self.budget, needed, layer: now.0 });
        };
        for key in evicted {
            self.resident.remove(&key);
            self.used -= self.bytes(key);
        }
        Ok(())
    }
}
