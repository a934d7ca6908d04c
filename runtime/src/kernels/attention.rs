//! Attention of queries over cached entries. An entry holds the keys and values of one position. In
//! absorbed MLA these are the latent and the shared rotary key, which together are the key of all
//! heads, with the latent as the value; in grouped-query attention, the keys of all groups followed
//! by their values.
//!
//! ```text
//! for each block of 32 positions, in order
//!     s = scale * (query . entry)          m = max s
//!     p = exp(s - m)                       l = sum p        o = sum p * value
//!     merge (m, l, o) into the running (M, L, O) by rescaling both to the larger maximum
//! out = O / L
//! ```
//!
//! The partial result of a block does not depend on earlier blocks, so blocks can be computed in
//! any order. Under a sliding window, the first block starts with the window. A sink is a score
//! without a value: the running (M, L) start with it instead of being empty.

use std::ops::Range;

use super::cached::{self, Cached, EntryFormat};
use super::disjoint::Disjoint;
use super::vector::exp;
use crate::isa::{Isa, Kernel, Tier};
use crate::threads::Pool;

/// Positions per block.
pub const BLOCK: usize = 32;

/// Positions of a page of cached entries: a multiple of [`BLOCK`].
pub const PAGE: usize = 2 * BLOCK;

/// Cached entries, `[positions, width]`, in pages (paged attention: arXiv 2309.06180).
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    /// Element format.
    pub format: EntryFormat,
    /// Pages of [`PAGE`] entries; the last one may have fewer.
    pub pages: &'a [Vec<u8>],
}

impl<'a> Entries<'a> {
    /// The entries of at most [`BLOCK`] positions, of `len` bytes each, in one piece: copied to `scratch`
    /// where they lie in two pages, as they may under a sliding window.
    #[inline(always)]
    fn block<'s>(self, positions: Range<usize>, len: usize, scratch: &'s mut Vec<u8>) -> &'s [u8]
    where
        'a: 's,
    {
        let (page, from) = (positions.start / PAGE, positions.start % PAGE);
        let here = positions.len().min(PAGE - from);
        let first = &self.pages[page][from * len..(from + here) * len];
        if here == positions.len() {
            return first;
        }
        scratch.clear();
        scratch.extend_from_slice(first);
        scratch.extend_from_slice(&self.pages[page + 1][..(positions.len() - here) * len]);
        scratch
    }
}

/// Layout of keys and values in an entry.
#[derive(Clone, Copy, Debug)]
pub struct EntryLayout {
    /// Elements per entry.
    pub width: usize,
    /// Number of keys, each shared by an equal number of heads. Keys come first in an entry.
    pub key_value_heads: usize,
    /// Width of a key.
    pub key_width: usize,
    /// Offset of the values, in elements.
    pub values_at: usize,
    /// Width of a value.
    pub value_width: usize,
}

/// Causal attention of the heads of several tokens over a sequence's cached entries.
pub struct CausalAttention<'a> {
    /// Queries, `[tokens, heads, key_width]`.
    pub queries: &'a [f32],
    /// Entries, `[positions, width]`, of which the last `tokens` belong to the tokens themselves.
    pub entries: Entries<'a>,
    /// Number of positions before the first token.
    pub past: usize,
    /// Heads per token.
    pub heads: usize,
    /// Layout of an entry.
    pub layout: EntryLayout,
    /// Factor on the scores.
    pub scale: f32,
    /// Positions in the sliding window, including the token's own; `None` if all are visible.
    pub window: Option<usize>,
    /// Score of each head's sink, `[heads]`.
    pub sinks: Option<&'a [f32]>,
}

/// Heads that process an entry together, so that it is unpacked once.
const HEADS_TOGETHER: usize = 4;

impl CausalAttention<'_> {
    /// Computes the outputs, `[tokens, heads, value_width]`; a token attends to positions up to its
    /// own.
    ///
    /// # Panics
    /// Panics if the shapes do not match.
    pub fn run(&self, tier: Tier, pool: &Pool, out: &mut [f32]) {
        attend_all(tier, pool, std::slice::from_ref(self), out);
    }

    fn outputs(&self) -> usize {
        self.queries.len() / self.layout.key_width * self.layout.value_width
    }

    /// Tasks per key: groups of heads that process an entry together.
    fn runs(&self) -> usize {
        (self.heads / self.layout.key_value_heads).div_ceil(HEADS_TOGETHER)
    }

    fn tasks(&self) -> usize {
        let tokens = self.queries.len() / self.layout.key_width / self.heads;
        tokens * self.layout.key_value_heads * self.runs()
    }

    /// Computes one of the tasks; each writes only the outputs of its own queries.
    fn task(&self, tier: Tier, i: usize, out: Disjoint) {
        let EntryLayout { width, key_value_heads, key_width, values_at, value_width } = self.layout;
        let (heads_per_key, runs) = (self.heads / key_value_heads, self.runs());
        let (token, pair, run) =
            (i / (key_value_heads * runs), i / runs % key_value_heads, i % runs);
        let end = self.past + token + 1;
        let start = self.window.map_or(0, |window| end.saturating_sub(window));
        let head = pair * heads_per_key + run * HEADS_TOGETHER;
        let heads = HEADS_TOGETHER.min(heads_per_key - run * HEADS_TOGETHER);
        let query = token * self.heads + head;
        // SAFETY: each task writes only the outputs of its own queries.
        let out = unsafe { out.slice(query * value_width, heads * value_width) };
        tier.run(Attend {
            queries: &self.queries[query * key_width..][..heads * key_width],
            key_width,
            entries: self.entries,
            positions: start..end,
            width,
            key_at: pair * key_width,
            value_at: values_at + pair * value_width,
            scale: self.scale,
            sinks: self.sinks.map(|sinks| &sinks[head..head + heads]),
            out,
        });
    }
}

/// Attention of several sequences as one parallel job; `out` has the outputs of one after the
/// other, `[sequences, tokens, heads, value_width]`.
///
/// # Panics
/// Panics if the shapes do not match.
pub fn attend_all(tier: Tier, pool: &Pool, sequences: &[CausalAttention], out: &mut [f32]) {
    let (mut tasks, mut left) = (0, out);
    let mut jobs = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        let out = left.split_off_mut(..sequence.outputs()).expect("room for all outputs");
        jobs.push((tasks, sequence, Disjoint::new(out)));
        tasks += sequence.tasks();
    }
    assert!(left.is_empty());
    pool.run(tasks, &|i| {
        let at = jobs.partition_point(|(first, ..)| *first <= i) - 1;
        let (first, sequence, out) = jobs[at];
        sequence.task(tier, i - first, out);
    });
}

/// A few heads of one token, over all entries that the token attends to.
struct Attend<'a> {
    /// Queries, `[heads, key_width]`.
    queries: &'a [f32],
    /// Width of a key, a multiple of 8.
    key_width: usize,
    /// Entries, `[positions, width]`.
    entries: Entries<'a>,
    /// Positions that the token sees.
    positions: Range<usize>,
    /// Elements per entry.
    width: usize,
    /// Offset of the key in an entry.
    key_at: usize,
    /// Offset of the value in an entry.
    value_at: usize,
    /// Factor on the scores.
    scale: f32,
    /// Score of each head's sink.
    sinks: Option<&'a [f32]>,
    /// Outputs, `[heads, value width]`; the value width is a multiple of 8.
    out: &'a mut [f32],
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.entries.format {
            EntryFormat::F32 => self.heads::<I, cached::F32>(isa),
            EntryFormat::F16 => self.heads::<I, cached::F16>(isa),
            EntryFormat::Q8 { .. } => self.heads::<I, cached::Q8>(isa),
        }
    }
}

impl Attend<'_> {
    #[inline(always)]
    fn heads<I: Isa, C: Cached>(self, isa: I) {
        let heads = self.queries.len() / self.key_width;
        if heads == HEADS_TOGETHER && I::TOKENS > 1 {
            return attend::<I, C, HEADS_TOGETHER>(isa, self);
        }
        let value_width = self.out.len() / heads;
        let queries = self.queries.chunks_exact(self.key_width);
        for (head, (queries, out)) in
            queries.zip(self.out.chunks_exact_mut(value_width)).enumerate()
        {
            let sinks = self.sinks.map(|sinks| &sinks[head..head + 1]);
            let positions = self.positions.clone();
            attend::<I, C, 1>(isa, Attend { queries, positions, out, sinks, ..self });
        }
    }
}

#[inline(always)]
fn attend<I: Isa, C: Cached, const H: usize>(isa: I, call: Attend) {
    let Attend { queries, key_width, entries, positions, width, key_at, value_at, scale, .. } =
        call;
    let (sinks, out) = (call.sinks, call.out);
    let entry_bytes = entries.format.bytes(width);
    let uniform = entries.format.uniform(width);
    let halves_at = entry_bytes - 2 * (width - uniform);
    // A key may extend into the elements that are kept in half precision; a value does not.
    let keys_end = key_at + key_width;
    let keys = key_at..keys_end.min(uniform);
    let half_keys = 0..keys_end.saturating_sub(uniform);
    let mut lanes = vec![[[0.0; 8]; H]; key_width / 8];
    for (head, query) in queries.chunks_exact(key_width).enumerate() {
        for (lanes, query) in lanes.iter_mut().zip(query.as_chunks::<8>().0) {
            lanes[head] = *query;
        }
    }
    let (query, half_query) = lanes.split_at(keys.len() / 8);
    let value_width = out.len() / H;
    let (mut max, mut total) = ([f32::NEG_INFINITY; H], [0.0f32; H]);
    if let Some(sinks) = sinks {
        max.copy_from_slice(sinks);
        total = [1.0; H];
    }
    out.fill(0.0);

    let mut scratch = Vec::new();
    for start in positions.clone().step_by(BLOCK) {
        let block = start..positions.end.min(start + BLOCK);
        let block = entries.block(block, entry_bytes, &mut scratch);
        let mut scores = [[f32::NEG_INFINITY; BLOCK]; H];
        for (at, entry) in block.chunks_exact(entry_bytes).enumerate() {
            let mut dots = [isa.splat(0.0); H];
            for (q, k) in query.iter().zip(C::eights(entry, keys.clone(), uniform)) {
                let k = C::load(isa, k);
                for head in 0..H {
                    dots[head] = isa.fma(isa.load(&q[head]), k, dots[head]);
                }
            }
            let halves = cached::F16::eights(&entry[halves_at..], half_keys.clone(), half_keys.end);
            for (q, k) in half_query.iter().zip(halves) {
                let k = cached::F16::load(isa, k);
                for head in 0..H {
                    dots[head] = isa.fma(isa.load(&q[head]), k, dots[head]);
                }
            }
            for head in 0..H {
                scores[head][at] = isa.sum(dots[head]) * scale;
            }
        }

        let mut weights = [[0.0; H]; BLOCK];
        let (mut keep, mut take) = ([isa.splat(0.0); H], [isa.splat(0.0); H]);
        for head in 0..H {
            let (block_max, block_total) = softmax_part(isa, &mut scores[head]);
            for (weights, weight) in weights.iter_mut().zip(scores[head]) {
                weights[head] = weight;
            }
            let new_max = if block_max > max[head] { block_max } else { max[head] };
            let kept = exp_one(isa, max[head] - new_max);
            let taken = exp_one(isa, block_max - new_max);
            total[head] = block_total.mul_add(taken, total[head] * kept);
            max[head] = new_max;
            (keep[head], take[head]) = (isa.splat(kept), isa.splat(taken));
        }

        let values = Values { block, entry_bytes, uniform, value_at, weights: &weights };
        let mut at = 0;
        while at < value_width {
            if at + 16 <= value_width {
                values.merge::<I, C, 2>(isa, at, &keep, &take, out);
                at += 16;
            } else {
                values.merge::<I, C, 1>(isa, at, &keep, &take, out);
                at += 8;
            }
        }
    }
    for (out, total) in out.chunks_exact_mut(value_width).zip(total) {
        for o in out.as_chunks_mut::<8>().0 {
            let mean = isa.div(isa.load(o), isa.splat(total));
            isa.store(mean, o);
        }
    }
}

/// Replaces the scores of a block, minus infinity where it has none, by `exp(s - m)`, and returns
/// the maximum `m` and the sum.
#[inline(always)]
fn softmax_part<I: Isa>(isa: I, scores: &mut [f32; BLOCK]) -> (f32, f32) {
    let mut max = f32::NEG_INFINITY;
    for score in &*scores {
        max = if *score > max { *score } else { max };
    }
    let mut sum = isa.splat(0.0);
    for lane in scores.as_chunks_mut::<8>().0 {
        let mut weights = [0.0; 8];
        isa.store(exp(isa, isa.sub(isa.load(lane), isa.splat(max))), &mut weights);
        for (weight, score) in weights.iter_mut().zip(*lane) {
            *weight = if score == f32::NEG_INFINITY { 0.0 } else { *weight };
        }
        sum = isa.add(sum, isa.load(&weights));
        *lane = weights;
    }
    (max, isa.sum(sum))
}

/// Values of a block of positions, with their weights for each head.
struct Values<'a, const H: usize> {
    block: &'a [u8],
    entry_bytes: usize,
    uniform: usize,
    value_at: usize,
    weights: &'a [[f32; H]; BLOCK],
}

impl<const H: usize> Values<'_, H> {
    /// `out = keep * out + take * (weights . values)` for `L` lanes of each head's value, starting
    /// at element `at`.
    #[inline(always)]
    fn merge<I: Isa, C: Cached, const L: usize>(
        &self,
        isa: I,
        at: usize,
        keep: &[I::F32; H],
        take: &[I::F32; H],
        out: &mut [f32],
    ) {
        let numbers = self.value_at + at..self.value_at + at + 8 * L;
        let mut sums = [[isa.splat(0.0); H]; L];
        for (weights, entry) in self.weights.iter().zip(self.block.chunks_exact(self.entry_bytes)) {
            let mut values = C::eights(entry, numbers.clone(), self.uniform);
            for sums in &mut sums {
                let Some(value) = values.next() else { break };
                let value = C::load(isa, value);
                for head in 0..H {
                    sums[head] = isa.fma(isa.splat(weights[head]), value, sums[head]);
                }
            }
        }
        let value_width = out.len() / H;
        for head in 0..H {
            let out = out[head * value_width + at..][..8 * L].as_chunks_mut::<8>().0;
            for (out, sums) in out.iter_mut().zip(&sums) {
                let kept = isa.mul(isa.load(out), keep[head]);
                isa.store(isa.fma(sums[head], take[head], kept), out);
            }
        }
    }
}

#[inline(always)]
fn exp_one<I: Isa>(isa: I, x: f32) -> f32 {
    let mut lanes = [0.0; 8];
    isa.store(exp(isa, isa.splat(x)), &mut lanes);
    lanes[0]
}
