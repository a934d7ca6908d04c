//! Scores of a block of positions: products of queries and keys.

use std::ops::Range;

use super::BLOCK;
use super::heads::Attend;
use crate::isa::{Isa, MOST_TILES, TileSimd};
use crate::kernels::cached::{self, Cached};

/// Queries of `H` heads, and where their keys are in an entry.
pub(super) struct Keys<const H: usize> {
    /// Queries, `[key_width / 8, H, 8]`
    queries: Vec<[[f32; 8]; H]>,
    pub entry_bytes: usize,
    /// Elements of an entry in its main format; the others are in half precision.
    pub uniform: usize,
    /// Elements of the key in the main format.
    main: Range<usize>,
    /// Elements of the key in half precision, after those in the main format.
    halves: Range<usize>,
    scale: f32,
}

impl<const H: usize> Keys<H> {
    #[inline(always)]
    pub fn new(call: &Attend) -> Self {
        let Attend { queries, key_width, entries, width, key_at, scale, .. } = *call;
        let uniform = entries.format.uniform(width);
        // A key may extend into the elements that are kept in half precision; a value does not.
        let end = key_at + key_width;
        let mut lanes = vec![[[0.0; 8]; H]; key_width / 8];
        for (head, query) in queries.chunks_exact(key_width).enumerate() {
            for (lanes, query) in lanes.iter_mut().zip(query.as_chunks::<8>().0) {
                lanes[head] = *query;
            }
        }
        Self {
            queries: lanes,
            entry_bytes: entries.format.bytes(width),
            uniform,
            main: key_at..end.min(uniform),
            halves: 0..end.saturating_sub(uniform),
            scale,
        }
    }

    /// Scores of the positions of a block, `[heads, positions]`; minus infinity where there is no
    /// position. `dots` is scratch memory. A few registers of positions at a time, each with all
    /// heads, hide the latency of multiply-adds and share the loads of the queries.
    #[inline(always)]
    pub fn scores<I: Isa, C: Cached>(
        &self,
        isa: I,
        block: &[u8],
        dots: &mut [[[f32; 8]; BLOCK]; H],
    ) -> [[f32; BLOCK]; H] {
        match I::Wide::TILES {
            1 => self.dots::<I::Wide, C, 2>(isa.wide(), block, dots),
            _ => self.dots::<I::Wide, C, 4>(isa.wide(), block, dots),
        }
        let positions = block.len() / self.entry_bytes;
        let mut scores = [[f32::NEG_INFINITY; BLOCK]; H];
        for (scores, dots) in scores.iter_mut().zip(dots) {
            let scale = isa.splat(self.scale);
            for (scores, dots) in
                scores.as_chunks_mut::<8>().0.iter_mut().zip(dots.as_chunks::<8>().0)
            {
                let mut registers = [isa.splat(0.0); 8];
                for (register, dots) in registers.iter_mut().zip(dots) {
                    *register = isa.load(dots);
                }
                let sums = isa.sums(registers);
                isa.store(isa.mul(sums, scale), scores);
            }
            scores[positions..].fill(f32::NEG_INFINITY);
        }
        scores
    }

    /// Products of queries and keys, in eight lanes over the columns, `[heads, positions, 8]`.
    #[inline(always)]
    fn dots<W: TileSimd, C: Cached, const P: usize>(
        &self,
        isa: W,
        block: &[u8],
        out: &mut [[[f32; 8]; BLOCK]; H],
    ) {
        let positions = block.len() / self.entry_bytes;
        let (main, halves) = self.queries.split_at(self.main.len() / 8);
        for at in (0..positions).step_by(P * W::TILES) {
            let mut dots = [[isa.splat(0.0); H]; P];
            let entries = Run { block, bytes: self.entry_bytes, at };
            let mut rows =
                [[C::row(entries.get(0), self.main.clone(), self.uniform); MOST_TILES]; P];
            for (p, rows) in rows.iter_mut().enumerate() {
                for (tile, row) in rows.iter_mut().enumerate() {
                    let entry = entries.get(p * W::TILES + tile);
                    *row = C::row(entry, self.main.clone(), self.uniform);
                }
            }
            multiply::<W, C, H, P>(isa, main, rows, &mut dots);
            if !halves.is_empty() {
                let from = self.entry_bytes - 2 * self.halves.len();
                let first = cached::F16::row(&entries.get(0)[from..], self.halves.clone(), 0);
                let mut rows = [[first; MOST_TILES]; P];
                for (p, rows) in rows.iter_mut().enumerate() {
                    for (tile, row) in rows.iter_mut().enumerate() {
                        let entry = &entries.get(p * W::TILES + tile)[from..];
                        *row = cached::F16::row(entry, self.halves.clone(), 0);
                    }
                }
                multiply::<W, cached::F16, H, P>(isa, halves, rows, &mut dots);
            }
            for (p, dots) in dots.iter().enumerate() {
                for (out, dots) in out.iter_mut().zip(dots) {
                    isa.store_tiles(*dots, out[at + p * W::TILES..].as_flattened_mut());
                }
            }
        }
    }
}

/// The entries of a block from one on. (Loops and methods, no closures: one that is not inlined is
/// compiled without the caller's target features.)
#[derive(Clone, Copy)]
struct Run<'a> {
    block: &'a [u8],
    /// Bytes of an entry.
    bytes: usize,
    /// Index of the first one.
    at: usize,
}

impl<'a> Run<'a> {
    /// Entry `i`; those after the block's last one repeat it.
    #[inline(always)]
    fn get(self, i: usize) -> &'a [u8] {
        let last = self.block.len() / self.bytes - 1;
        &self.block[(self.at + i).min(last) * self.bytes..][..self.bytes]
    }
}

/// `dots += queries * keys`, lane by lane, for `P` registers of one key per tile.
#[inline(always)]
fn multiply<W: TileSimd, C: Cached, const H: usize, const P: usize>(
    isa: W,
    queries: &[[[f32; 8]; H]],
    keys: [[C::Row<'_>; MOST_TILES]; P],
    dots: &mut [[W::F32; H]; P],
) {
    for (at, queries) in queries.iter().enumerate() {
        let mut loaded = [isa.splat(0.0); P];
        for (loaded, keys) in loaded.iter_mut().zip(&keys) {
            *loaded = C::load(isa, [at; MOST_TILES], *keys);
        }
        for (head, query) in queries.iter().enumerate() {
            let query = isa.load_tiles([query; MOST_TILES]);
            for (dots, key) in dots.iter_mut().zip(loaded) {
                dots[head] = isa.fma(query, key, dots[head]);
            }
        }
    }
}
