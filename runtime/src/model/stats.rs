//! Statistics of an expert store.

use std::time::Duration;

/// Statistics since a store was opened, or between two moments ([`Stats::since`]).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Experts that visits needed, counted once per visit.
    pub uses: u64,
    /// Needed experts that were resident when their visit began.
    pub hits: u64,
    /// Bytes read from the file.
    pub bytes_read: u64,
    /// Time during which at least one read ran.
    pub reading: Duration,
    /// Time that computations waited for experts, summed over all sequences.
    pub waiting: Duration,
    /// Time spent in visits without waiting: the routed experts, and everything else computed
    /// during the visit.
    pub computing: Duration,
    /// Experts evicted for others or by a lower budget.
    pub evictions: u64,
    /// Experts that were prefetched.
    pub prefetched: u64,
    /// Prefetched experts that were used at the next visit of their layer.
    pub prefetched_used: u64,
    /// Prefetched experts that were evicted unused.
    pub prefetched_wasted: u64,
    /// Current memory limit for experts, in bytes.
    pub limit_bytes: u64,
    /// Bytes of resident experts and of slots kept for reuse, now.
    pub resident_bytes: u64,
    /// Experts that are resident now.
    pub resident: u64,
}

impl Stats {
    /// The difference from `earlier`. Current values stay as they are.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            uses: self.uses.saturating_sub(earlier.uses),
            hits: self.hits.saturating_sub(earlier.hits),
            bytes_read: self.bytes_read.saturating_sub(earlier.bytes_read),
            reading: self.reading.saturating_sub(earlier.reading),
            waiting: self.waiting.saturating_sub(earlier.waiting),
            computing: self.computing.saturating_sub(earlier.computing),
            evictions: self.evictions.saturating_sub(earlier.evictions),
            prefetched: self.prefetched.saturating_sub(earlier.prefetched),
            prefetched_used: self.prefetched_used.saturating_sub(earlier.prefetched_used),
            prefetched_wasted: self.prefetched_wasted.saturating_sub(earlier.prefetched_wasted),
            ..*self
        }
    }

    /// Share of uses that were in memory; `None` where there were none.
    pub fn hit_rate(&self) -> Option<f64> {
        (self.uses > 0).then(|| self.hits as f64 / self.uses as f64)
    }

    /// Bytes per second while reads ran; `None` where none did.
    pub fn read_rate(&self) -> Option<f64> {
        let seconds = self.reading.as_secs_f64();
        (seconds > 0.0).then(|| self.bytes_read as f64 / seconds)
    }

    /// Upper bound on tokens per second with these misses, `1 / max(compute, bytes / read rate)`
    /// per token, where `tokens` tokens took `elapsed` in all. `rate` is the best read rate of the
    /// storage, in bytes per second; without it, the rate reached counts. `None` without tokens.
    pub fn bound(&self, tokens: u64, elapsed: Duration, rate: Option<f64>) -> Option<f64> {
        let compute = elapsed.saturating_sub(self.waiting).as_secs_f64();
        let rate = rate.or_else(|| self.read_rate());
        let read = rate.map_or(0.0, |rate| self.bytes_read as f64 / rate);
        let slower = compute.max(read);
        (tokens > 0 && slower > 0.0).then(|| tokens as f64 / slower)
    }
}
