//! Cost of streaming experts, for scripts and for people.

use std::time::Duration;

use serde::Serialize;
use vaquita_runtime::model::Stats;

use crate::size;

/// Figures of a run within a memory budget. The keys are a stable interface.
#[derive(Debug, Serialize)]
pub struct Streamed {
    /// Fraction of needed experts that were resident.
    pub hit_rate: Option<f64>,
    pub bytes_read: u64,
    pub bytes_read_per_token: f64,
    /// Rate while reads ran.
    pub read_bytes_per_second: Option<f64>,
    /// Time spent waiting for experts.
    pub waiting_seconds: f64,
    /// Time in visits without waiting.
    pub computing_seconds: f64,
    pub evictions: u64,
    pub evictions_per_token: f64,
    pub prefetched: u64,
    pub prefetched_used: u64,
    pub resident_bytes: u64,
    pub limit_bytes: u64,
    /// Upper bound with these misses: see [`Stats::bound`].
    pub bound_tokens_per_second: Option<f64>,
    pub share_of_bound: Option<f64>,
}

impl Streamed {
    /// Figures of `tokens` tokens, which took `elapsed`.
    pub fn new(stats: &Stats, tokens: usize, elapsed: Duration) -> Self {
        let per_token = |count: u64| count as f64 / tokens.max(1) as f64;
        let bound = stats.bound(tokens as u64, elapsed, None);
        let reached = tokens as f64 / elapsed.as_secs_f64();
        Self {
            hit_rate: stats.hit_rate(),
            bytes_read: stats.bytes_read,
            bytes_read_per_token: per_token(stats.bytes_read),
            read_bytes_per_second: stats.read_rate(),
            waiting_seconds: stats.waiting.as_secs_f64(),
            computing_seconds: stats.computing.as_secs_f64(),
            evictions: stats.evictions,
            evictions_per_token: per_token(stats.evictions),
            prefetched: stats.prefetched,
            prefetched_used: stats.prefetched_used,
            resident_bytes: stats.resident_bytes,
            limit_bytes: stats.limit_bytes,
            bound_tokens_per_second: bound,
            share_of_bound: bound.map(|bound| reached / bound),
        }
    }

    /// A summary for people.
    pub fn summary(&self) -> String {
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        let or_dash = |text: Option<String>| text.unwrap_or("-".into());
        let rate = self.read_bytes_per_second.map(|rate| size::show(rate as u64));
        let bound = self.bound_tokens_per_second.map(|bound| format!("{bound:.1}"));
        format!(
            "experts in memory {}, read {} per token at {}/s, {:.1} evictions per token, waited {:.1} s, computed with \
             experts {:.1} s, {} of the bound of {} tokens/s",
            or_dash(self.hit_rate.map(percent)),
            size::show(self.bytes_read_per_token as u64),
            or_dash(rate),
            self.evictions_per_token,
            self.waiting_seconds,
            self.computing_seconds,
            or_dash(self.share_of_bound.map(percent)),
            or_dash(bound),
        )
    }
}
