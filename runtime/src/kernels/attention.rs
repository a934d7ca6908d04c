//! Attention of one query over cached entries. An entry holds the keys and values of one position: in absorbed
//! MLA the latent and the shared rotary key, which are the key of all heads, with the latent as the value; in
//! grouped-query attention the keys of all groups and then their values.
//!
//! ```text
//! for each block of 32 positions, in order
//!     s = scale * (query . entry)          m = max s
//!     p = exp(s - m)                       l = sum p        o = sum p * value
//!     merge (m, l, o) into the running (M, L, O) by rescaling both to the larger maximum
//! out = O / L
//! ```
//!
//! A block's part does not depend on what came before, so blocks can be computed anywhere. Under a sliding window
//! the first block begins where the window does. A sink is a score without a value: the running (M, L) begin with
//! it instead of with nothing.

use std::ops::Range;

use super::cached::{self, Cached, EntryFormat};
use super::disjoint::Disjoint;
use super::vector::exp;
use super::{Isa, Kernel, Tier};
use crate::threads::Pool;

/// Positions of a block.
pub const BLOCK: usize = 32;

/// Cached entries, `[positions, width]`.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    /// How numbers are kept.
    pub format: EntryFormat,
    /// One entry after the other.
    pub bytes: &'a [u8],
}

impl Entries<'_> {
    /// Those of some positions.
    fn of(self, positions: Range<usize>, width: usize) -> Self {
        let len = self.format.bytes(width);
        Self { bytes: &self.bytes[positions.start * len..positions.end * len], ..self }
    }
}

/// Where keys and values lie in an entry.
#[derive(Clone, Copy, Debug)]
pub struct EntryLayout {
    /// Numbers of an entry.
    pub width: usize,
    /// Keys, each of which serves as many heads; they begin the entry.
    pub key_value_heads: usize,
    /// Width of a key.
    pub key_width: usize,
    /// Where the values begin.
    pub values_at: usize,
    /// Width of a value.
    pub value_width: usize,
}

/// The heads of several tokens over a sequence's cached entries.
pub struct CausalAttention<'a> {
    /// `[tokens, heads, key_width]`
    pub queries: &'a [f32],
    /// `[positions, width]`; the last `tokens` of them are the tokens' own.
    pub entries: Entries<'a>,
    /// Positions before the first token.
    pub past: usize,
    /// Heads of one token.
    pub heads: usize,
    /// What an entry holds.
    pub layout: EntryLayout,
    /// Factor on the scores.
    pub scale: f32,
    /// Positions that a token sees, its own among them, where not all.
    pub window: Option<usize>,
    /// A score of each head that has no value, `[heads]`.
    pub sinks: Option<&'a [f32]>,
}

impl CausalAttention<'_> {
    /// Fills `out`, `[tokens, heads, value_width]`; a token sees the positions up to its own.
    ///
    /// # Panics
    /// Where shapes do not fit.
    pub fn run(&self, tier: Tier, pool: &Pool, out: &mut [f32]) {
        let EntryLayout { width, key_value_heads, key_width, values_at, value_width } = self.layout;
        let queries = self.queries.len() / key_width;
        assert_eq!(out.len(), queries * value_width);
        let heads_per_key = self.heads / key_value_heads;
        let out = Disjoint::new(out);
        pool.run(queries, &|i| {
            let (token, head) = (i / self.heads, i % self.heads);
            let end = self.past + token + 1;
            let start = self.window.map_or(0, |window| end.saturating_sub(window));
            let pair = head / heads_per_key;
            // SAFETY: each task has the value of its own query.
            let out = unsafe { out.slice(i * value_width, value_width) };
            tier.run(Attend {
                query: &self.queries[i * key_width..][..key_width],
                entries: self.entries.of(start..end, width),
                width,
                key_at: pair * key_width,
                value_at: values_at + pair * value_width,
                scale: self.scale,
                sink: self.sinks.map(|sinks| sinks[head]),
                out,
            });
        });
    }
}

/// One query over all the entries.
pub struct Attend<'a> {
    /// `[key width]`, a multiple of 8.
    pub query: &'a [f32],
    /// `[positions, width]`
    pub entries: Entries<'a>,
    /// Numbers of an entry.
    pub width: usize,
    /// Where the key begins in an entry.
    pub key_at: usize,
    /// Where the value begins.
    pub value_at: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// A score without a value.
    pub sink: Option<f32>,
    /// The attention's value, `[value width]`, a multiple of 8.
    pub out: &'a mut [f32],
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.entries.format {
            EntryFormat::F32 => attend::<I, cached::F32>(isa, self),
            EntryFormat::F16 => attend::<I, cached::F16>(isa, self),
            EntryFormat::Q8 { .. } => attend::<I, cached::Q8>(isa, self),
        }
    }
}

#[inline(always)]
fn attend<I: Isa, C: Cached>(isa: I, call: Attend) {
    let Attend { query, entries, width, key_at, value_at, scale, sink, out } = call;
    let entry_bytes = entries.format.bytes(width);
    let uniform = entries.format.uniform(width);
    let halves_at = entry_bytes - 2 * (width - uniform);
    // A key may reach into the numbers that stay in half precision; a value does not.
    let keys_end = key_at + query.len();
    let keys = key_at..keys_end.min(uniform);
    let half_keys = 0..keys_end.saturating_sub(uniform);
    let values = value_at..value_at + out.len();
    let (query, half_query) = query.as_chunks::<8>().0.split_at(keys.len() / 8);
    let out = out.as_chunks_mut::<8>().0;
    let mut block_out = vec![[0.0; 8]; out.len()];
    let (mut max, mut total) = match sink {
        Some(sink) => (sink, 1.0f32),
        None => (f32::NEG_INFINITY, 0.0),
    };
    out.fill([0.0; 8]);

    for block in entries.bytes.chunks(BLOCK * entry_bytes) {
        let positions = block.len() / entry_bytes;
        let mut scores = [f32::NEG_INFINITY; BLOCK];
        for (score, entry) in scores.iter_mut().zip(block.chunks_exact(entry_bytes)) {
            let mut dot = isa.splat(0.0);
            for (q, k) in query.iter().zip(C::eights(entry, keys.clone(), uniform)) {
                dot = isa.fma(isa.load(q), C::load(isa, k), dot);
            }
            let halves = cached::F16::eights(&entry[halves_at..], half_keys.clone(), half_keys.end);
            for (q, k) in half_query.iter().zip(halves) {
                dot = isa.fma(isa.load(q), cached::F16::load(isa, k), dot);
            }
            *score = isa.sum(dot) * scale;
        }
        let block_max =
            scores.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
        let mut weights = [0.0; BLOCK];
        let mut sum = isa.splat(0.0);
        for (score, weight) in scores.as_chunks::<8>().0.iter().zip(weights.as_chunks_mut::<8>().0)
        {
            let e = exp(isa, isa.sub(isa.load(score), isa.splat(block_max)));
            isa.store(e, weight);
        }
        weights[positions..].fill(0.0);
        for weight in weights.as_chunks::<8>().0 {
            sum = isa.add(sum, isa.load(weight));
        }
        let block_total = isa.sum(sum);

        block_out.fill([0.0; 8]);
        for (weight, entry) in weights.iter().zip(block.chunks_exact(entry_bytes)) {
            let weight = isa.splat(*weight);
            for (o, v) in block_out.iter_mut().zip(C::eights(entry, values.clone(), uniform)) {
                let sum = isa.fma(weight, C::load(isa, v), isa.load(o));
                isa.store(sum, o);
            }
        }

        let new_max = if block_max > max { block_max } else { max };
        let keep = exp_one(isa, max - new_max);
        let take = exp_one(isa, block_max - new_max);
        total = block_total.mul_add(take, total * keep);
        for (o, b) in out.iter_mut().zip(&block_out) {
            let kept = isa.mul(isa.load(o), isa.splat(keep));
            isa.store(isa.fma(isa.load(b), isa.splat(take), kept), o);
        }
        max = new_max;
    }
    for o in out {
        let mean = isa.div(isa.load(o), isa.splat(total));
        isa.store(mean, o);
    }
}

#[inline(always)]
fn exp_one<I: Isa>(isa: I, x: f32) -> f32 {
    let mut lanes = [0.0; 8];
    isa.store(exp(isa, isa.splat(x)), &mut lanes);
    lanes[0]
}
