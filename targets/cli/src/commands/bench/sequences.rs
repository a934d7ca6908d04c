//! Generating in several sequences side by side: tokens per second in all and in each, and the gaps
//! between the tokens of a sequence.

use std::time::{Duration, Instant};

use serde::Serialize;
use vaquita_runtime::app::LoadedModel;
use vaquita_runtime::measure::sampler::MeterSampler;
use vaquita_runtime::model::cache::KvCache;
use vaquita_runtime::model::{Chunk, Compute, Logits};

use super::distinct_tokens;
use crate::compute::stay_with;
use crate::failure::Result;

/// Several sequences, with their figures.
pub struct Sequences<'a> {
    loaded: &'a LoadedModel,
    caches: Vec<KvCache>,
    /// Tokens in each cache before the test.
    depth: usize,
    gaps: Vec<Duration>,
}

/// Figures of sequences side by side.
#[derive(Debug, Serialize)]
pub struct SequencesRow {
    /// Number of sequences.
    pub count: usize,
    /// Tokens per second of each.
    pub per_sequence_ts: f64,
    /// Median time between two tokens of a sequence, in seconds.
    pub median_gap_s: f64,
    /// Longest time between two tokens of a sequence, in seconds.
    pub longest_gap_s: f64,
}

impl<'a> Sequences<'a> {
    /// Empty sequences; this thread computes with them.
    pub fn new(loaded: &'a LoadedModel, count: usize) -> Self {
        stay_with(&loaded.pool);
        let cache = KvCache::new(loaded.model.config(), loaded.options.cache);
        Self { loaded, caches: vec![cache; count], depth: 0, gaps: Vec::new() }
    }

    /// Fills each sequence with `depth` tokens of its own.
    pub fn fill(&mut self, depth: usize) -> Result {
        let Self { loaded, caches, .. } = self;
        let ctx = Compute::new(loaded.options.tier, &loaded.pool);
        for (at, cache) in caches.iter_mut().enumerate() {
            let tokens = distinct_tokens(&loaded.model, at * depth, depth);
            for chunk in tokens.chunks(loaded.options.prefill_chunk.max(1)) {
                loaded.model.forward(&ctx, chunk, cache, Logits::Last)?;
            }
        }
        self.depth = depth;
        Ok(())
    }

    /// Goes back to the beginning of the test.
    pub fn reset(&mut self) -> Result {
        let depth = self.depth;
        // A state does not go back as far as it likes.
        if self.caches.iter_mut().any(|cache| cache.truncate(depth) != depth) {
            for cache in &mut self.caches {
                cache.truncate(0);
            }
            self.fill(depth)?;
        }
        Ok(())
    }

    /// Generates `tokens` tokens in each sequence.
    pub fn run(&mut self, tokens: usize, sampler: &MeterSampler) -> Result {
        let Self { loaded, caches, gaps, .. } = self;
        let ctx = Compute::new(loaded.options.tier, &loaded.pool);
        let own: Vec<Vec<u32>> = (0..caches.len())
            .map(|at| distinct_tokens(&loaded.model, (caches.len() + at) * tokens + at, tokens))
            .collect();
        for token in 0..tokens {
            let start = Instant::now();
            let mut chunks: Vec<Chunk> = caches
                .iter_mut()
                .zip(&own)
                .map(|(cache, own)| Chunk::new(&own[token..=token], cache, Logits::Last))
                .collect();
            for result in loaded.model.forward_batch(&ctx, &mut chunks)? {
                result?;
            }
            sampler.count(own.len() as u64);
            gaps.push(start.elapsed());
        }
        Ok(())
    }

    /// Forgets the gaps so far.
    pub fn forget(&mut self) {
        self.gaps.clear();
    }

    /// The figures, where all sequences together make `rate` tokens per second.
    pub fn row(mut self, rate: f64) -> SequencesRow {
        self.gaps.sort_unstable();
        let gap = |at: usize| self.gaps.get(at).map_or(0.0, Duration::as_secs_f64);
        let count = self.caches.len();
        let (median_gap_s, longest_gap_s) =
            (gap(self.gaps.len() / 2), gap(self.gaps.len().saturating_sub(1)));
        SequencesRow { count, per_sequence_ts: rate / count as f64, median_gap_s, longest_gap_s }
    }
}
