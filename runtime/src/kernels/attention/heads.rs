//! A few heads of one token: softmax over blocks of positions, merged in order.

use std::ops::Range;

use super::scores::Keys;
use super::values::{Merge, Values};
use super::{BLOCK, Entries};
use crate::isa::{Isa, Kernel, TileSimd};
use crate::kernels::cached::{self, Cached, EntryFormat};
use crate::kernels::vector::exp;

/// Heads that process an entry together, so that it is unpacked once; at most 8.
pub(super) const HEADS_TOGETHER: usize = 4;

/// A few heads of one token, over all entries that the token attends to.
pub(super) struct Attend<'a> {
    /// Queries, `[heads, key_width]`.
    pub queries: &'a [f32],
    /// Width of a key, a multiple of 8.
    pub key_width: usize,
    /// Entries, `[positions, width]`.
    pub entries: Entries<'a>,
    /// Positions that the token sees.
    pub positions: Range<usize>,
    /// Elements per entry.
    pub width: usize,
    /// Offset of the key in an entry.
    pub key_at: usize,
    /// Offset of the value in an entry.
    pub value_at: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Score of each head's sink.
    pub sinks: Option<&'a [f32]>,
    /// Outputs, `[heads, value width]`; the value width is a multiple of 8.
    pub out: &'a mut [f32],
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
        if heads > 1 && !I::SCALAR {
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

/// Attention of up to `H` heads. Registers of the heads that are missing compute nothing of use.
#[inline(always)]
fn attend<I: Isa, C: Cached, const H: usize>(isa: I, call: Attend) {
    let keys = Keys::<H>::new(&call);
    let Attend { queries, key_width, entries, positions, value_at, sinks, out, .. } = call;
    let heads = queries.len() / key_width;
    let values = Values { entry_bytes: keys.entry_bytes, uniform: keys.uniform, value_at };
    let value_width = out.len() / heads;
    let (mut max, mut total) = ([f32::NEG_INFINITY; 8], [0.0f32; 8]);
    if let Some(sinks) = sinks {
        max[..heads].copy_from_slice(sinks);
        total = [1.0; 8];
    }
    out.fill(0.0);

    let (mut dots, mut scratch) = ([[[0.0; 8]; BLOCK]; H], Vec::new());
    for start in positions.clone().step_by(BLOCK) {
        let block = start..positions.end.min(start + BLOCK);
        let block = entries.block(block, keys.entry_bytes, &mut scratch);
        let mut weights = keys.scores::<I, C>(isa, block, &mut dots);
        let (mut block_max, mut block_total) = ([f32::NEG_INFINITY; 8], [0.0; 8]);
        for head in 0..H {
            (block_max[head], block_total[head]) = softmax_part(isa, &mut weights[head]);
        }
        let mut new_max = max;
        for (new, block) in new_max.iter_mut().zip(block_max) {
            *new = if block > *new { block } else { *new };
        }
        let kept = exp_of_difference(isa, &max, &new_max);
        let taken = exp_of_difference(isa, &block_max, &new_max);
        for head in 0..H {
            total[head] = block_total[head].mul_add(taken[head], total[head] * kept[head]);
        }
        max = new_max;

        // Columns of the values: as many as registers hold, then eight by eight.
        let (wide, mut at) = (isa.wide(), 0);
        let columns = 16 * I::Wide::TILES * I::Wide::TILES;
        while at < value_width {
            let step = if at + columns <= value_width { columns } else { 8 };
            let out = Merge { at, heads, kept: &kept, taken: &taken, out };
            match (step == columns, I::Wide::TILES) {
                (false, _) => values.merge::<I, C, H, 1>(isa, block, &weights, out),
                (_, 1) => values.merge::<I::Wide, C, H, 2>(wide, block, &weights, out),
                _ => values.merge::<I::Wide, C, H, 4>(wide, block, &weights, out),
            }
            at += step;
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

/// `exp(a - b)`
#[inline(always)]
fn exp_of_difference<I: Isa>(isa: I, a: &[f32; 8], b: &[f32; 8]) -> [f32; 8] {
    let mut lanes = [0.0; 8];
    isa.store(exp(isa, isa.sub(isa.load(a), isa.load(b))), &mut lanes);
    lanes
}
