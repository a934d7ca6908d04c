//! Matrix products with ggml's block types, which are stored row by row.
//!
//! ```text
//! for each tile of 8 rows, a lane per row
//!     for each group of 32 columns, in order; for each half that has factors of its own
//!         acc  = fma(scale * activation_scale, f32(products of codes), acc)
//!         acc  = fma(offset, activation_scale * f32(activation codes, added), acc)
//!     out = acc
//! ```
//!
//! A range of columns of a tile is unpacked for several tokens, and multiplied by code that all
//! types share while it is in the L1 cache.

use std::iter::zip;
use std::marker::PhantomData;
use std::ops::Range;

use super::activations::{BLOCK, HALF, Halves};
use super::matmul::{Inputs, Tiles, subarray};
use super::{ggml_grid, ggml_row};
use crate::blocks::ggml::{
    Block, BlockBytes, CodeRange, RowScale, TileGroup, WithBlock, row_len, with_block,
};
use crate::blocks::{GROUP, TILE_ROWS};
use crate::isa::MOST_TILES;
use crate::isa::{Features, Isa, Kernel, Tier, TileSimd};

/// Number of groups of columns that are unpacked at a time: two blocks of 256.
const GROUPS: usize = 16;

/// Maximum number of tokens that share unpacked weights.
const TOKENS: usize = 64;

/// Sums of a tile's rows, by token and tile.
type Sums = [[[f32; TILE_ROWS]; MOST_TILES]; TOKENS];

/// Multiplies a range of tiles with all tokens.
pub(super) fn multiply(tier: Tier, all: &Tiles) {
    let tokens = all.x.tokens();
    if ggml_row::multiply(tier, all) || ggml_grid::multiply(tier, all) {
        return;
    }
    let columns = all.weights.cols() / GROUP;
    let mut groups = [[TileGroup::EMPTY; GROUPS]; MOST_TILES];
    let mut sums = [[[0.0; TILE_ROWS]; MOST_TILES]; TOKENS];
    // Tokens first: their inputs stay in the second cache while the weights pass.
    for token in (0..tokens).step_by(TOKENS) {
        let tokens = token..tokens.min(token + TOKENS);
        let mut tile = all.tiles.start;
        while tile < all.tiles.end {
            let tiles = tile..tile + together(all, tile);
            sums[..tokens.len().next_multiple_of(BLOCK)].fill([[0.0; TILE_ROWS]; MOST_TILES]);
            for first in (0..columns).step_by(GROUPS) {
                let columns = first..columns.min(first + GROUPS);
                for (tile, groups) in tiles.clone().zip(&mut groups) {
                    let groups = &mut groups[..columns.len()];
                    let work = Unpack { all, tile, columns: columns.clone(), groups };
                    let known = with_block(all.weights.block_type(), OnTier(tier, work));
                    debug_assert!(known.is_some(), "other types have their own kernels");
                }
                let (tiles, tokens, groups) = (tiles.clone(), tokens.clone(), &groups);
                tier.run(Multiply { all, tiles, columns, tokens, groups, sums: &mut sums });
            }
            let rows = all.rows(tiles.clone());
            for (token, sums) in tokens.clone().zip(&sums) {
                // SAFETY: only this task writes the rows of these tiles.
                let out =
                    unsafe { all.out.slice(token * all.weights.rows() + rows.start, rows.len()) };
                // Two whole tiles, as nearly all are, are copied without a call to memcpy.
                match out.as_chunks_mut().0.first_chunk_mut() {
                    Some(both) => *both = *sums,
                    None => copy_first(sums.as_flattened(), out),
                }
            }
            tile = tiles.end;
        }
    }
}

/// The first rows of tiles, where fewer are stored.
#[inline(never)]
fn copy_first(rows: &[f32], out: &mut [f32]) {
    out.copy_from_slice(&rows[..out.len()]);
}

/// Number of tiles from `tile` on that are multiplied together: two with the same inputs, but one for
/// a single token, which is bound by memory, and that reads one sequential stream faster than two.
fn together(all: &Tiles, tile: usize) -> usize {
    let input_at = |tile| all.input_at(tile * TILE_ROWS);
    let both =
        all.x.tokens() > 1 && tile + 1 < all.tiles.end && input_at(tile) == input_at(tile + 1);
    1 + usize::from(both)
}

/// Unpacks a range of columns of a tile. Missing rows of a partial tile repeat the last row.
struct Unpack<'a> {
    all: &'a Tiles<'a>,
    tile: usize,
    columns: Range<usize>,
    groups: &'a mut [TileGroup],
}

struct OnTier<'a>(Tier, Unpack<'a>);

impl WithBlock for OnTier<'_> {
    type Output = ();

    fn with<B: Block>(self) {
        let Self(tier, work) = self;
        tier.run(UnpackBlocks::<B>(work, PhantomData));
    }
}

/// [`Unpack`] for one type: each is a function of its own.
struct UnpackBlocks<'a, B>(Unpack<'a>, PhantomData<B>);

impl<B: Block> Kernel for UnpackBlocks<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self(Unpack { all, tile, columns, groups }, _) = self;
        let of_block = B::WEIGHTS / GROUP;
        let (first, count) = (columns.start / of_block, columns.len() / of_block);
        let (data, len) = (all.weights.data(), row_len::<B>(all.weights));
        let mut rows: [&[B::Bytes]; TILE_ROWS] = [&[]; TILE_ROWS];
        let mut row_scales = [1.0; TILE_ROWS];
        for (i, (row, row_scale)) in rows.iter_mut().zip(&mut row_scales).enumerate() {
            let number = (tile * TILE_ROWS + i).min(all.weights.rows() - 1);
            let (scale, blocks) = B::ROW_SCALE.split(&data[number * len..][..len]);
            (*row, *row_scale) = (&B::Bytes::blocks(blocks)[first..][..count], scale);
        }
        // Tiles are unpacked in pairs for several tokens.
        let next = tile + if all.x.tokens() > 1 { MOST_TILES } else { 1 };
        for (at, groups) in groups.chunks_exact_mut(of_block).enumerate() {
            // Prefetch as much of the next tile: rows are too short for the hardware prefetcher.
            let block = TILE_ROWS * (first + at) * size_of::<B::Bytes>();
            let ahead = data.as_ptr().wrapping_add(next * TILE_ROWS * len + block);
            let mut line = 0;
            while line < TILE_ROWS * size_of::<B::Bytes>() {
                isa.prefetch::<0>(ahead.wrapping_add(line));
                line += 64;
            }
            let mut blocks = [&rows[0][at]; TILE_ROWS];
            for (block, row) in blocks.iter_mut().zip(rows) {
                *block = &row[at];
            }
            if I::SCALAR && !B::CODES.is_unsigned() {
                define::<B>(blocks, groups);
            } else {
                B::tile(isa, blocks, groups);
            }
            if B::ROW_SCALE != RowScale::None {
                let row_scales = isa.load(&row_scales);
                for scales in groups.iter_mut().flat_map(|group| &mut group.scales) {
                    isa.store(isa.mul(row_scales, isa.load(scales)), scales);
                }
            }
        }
    }
}

/// [`Block::tile`] computed by the reference, [`Block::group`]: the same numbers for signed codes,
/// which have no offsets to round. Vector code is tested against this.
fn define<B: Block>(rows: [&B::Bytes; TILE_ROWS], groups: &mut [TileGroup]) {
    for (index, tile) in groups.iter_mut().enumerate() {
        for (row, block) in rows.iter().enumerate() {
            let group = B::group(block, index);
            for (to, codes) in tile.codes.iter_mut().zip(group.codes.as_chunks::<4>().0) {
                to[4 * row..][..4].copy_from_slice(&codes.map(|code| code as u8));
            }
            for (scales, scale) in tile.scales.iter_mut().zip(group.scales) {
                scales[row] = scale;
            }
        }
    }
}

/// Accumulates the products of a range of columns of tiles with some tokens.
struct Multiply<'a> {
    all: &'a Tiles<'a>,
    tiles: Range<usize>,
    columns: Range<usize>,
    tokens: Range<usize>,
    groups: &'a [[TileGroup; GROUPS]; MOST_TILES],
    sums: &'a mut Sums,
}

/// [`Block::HALVES`] and [`Block::CODES`] of a type.
struct Kind;

impl WithBlock for Kind {
    type Output = (bool, CodeRange);
    fn with<B: Block>(self) -> (bool, CodeRange) {
        (B::HALVES, B::CODES)
    }
}

/// [`CodeRange`] as const parameters of a function.
pub(super) const FOUR_BITS: u8 = CodeRange::FourBits as u8;
pub(super) const FIVE_BITS: u8 = CodeRange::FiveBits as u8;
pub(super) const SIX_BITS: u8 = CodeRange::SixBits as u8;
const SMALL: u8 = CodeRange::Small as u8;
const SIGNED: u8 = CodeRange::Signed as u8;

impl Kernel for Multiply<'_> {
    const FEATURES: Features = Features::Dots;
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match with_block(self.all.weights.block_type(), Kind) {
            Some((true, codes)) => self.codes::<I, true>(isa, codes),
            Some((false, codes)) => self.codes::<I, false>(isa, codes),
            None => debug_assert!(false, "matrices of other types have their own kernels"),
        }
    }
}

/// The codes of a group of the tiles in one register.
#[inline(always)]
fn load<W: TileSimd, const CODES: u8>(wide: W, a: &TileGroup, b: &TileGroup) -> [W::U8; 8] {
    let mut codes = [wide.load_bytes_tiles([&a.codes[0], &b.codes[0]]); 8];
    for (codes, (a, b)) in codes.iter_mut().zip(zip(&a.codes, &b.codes)) {
        *codes = match CODES {
            SIGNED => wide.load_weights_tiles([a, b]),
            _ => wide.load_bytes_tiles([a, b]),
        };
    }
    codes
}

/// Products of the codes of a group, or of a half, with a token's, whose sum is `x_sum`.
#[inline(always)]
fn dot<W: TileSimd, const N: usize, const CODES: u8>(
    wide: W,
    codes: &[W::U8; N],
    x: &[[i8; 4]; N],
    x_sum: i32,
) -> W::I32 {
    match CODES {
        FOUR_BITS => wide.dot_unsigned::<N, FOUR_BITS>(wide.splat_i32(0), codes, x),
        FIVE_BITS => wide.dot_unsigned::<N, FIVE_BITS>(wide.splat_i32(0), codes, x),
        SIX_BITS => wide.dot_unsigned::<N, SIX_BITS>(wide.splat_i32(0), codes, x),
        SMALL => wide.dot_table(wide.splat_i32(-W::TABLE_BIAS * x_sum), codes, x),
        _ => wide.dot_bytes(wide.splat_i32(-W::BYTE_BIAS * x_sum), codes, x),
    }
}

/// Inputs of a tile for `T` tokens, by group, with the sums of their halves.
type Seen<'a, const T: usize> = (Inputs<'a, T>, &'a [Halves<T>]);

impl Multiply<'_> {
    #[inline(always)]
    fn codes<I: Isa, const HALVES: bool>(self, isa: I, codes: CodeRange) {
        match codes {
            CodeRange::FourBits if I::FEWEST_BITS <= 4 => self.read::<I, HALVES, FOUR_BITS>(isa),
            CodeRange::FourBits | CodeRange::FiveBits if I::FEWEST_BITS <= 5 => {
                self.read::<I, HALVES, FIVE_BITS>(isa)
            }
            CodeRange::FourBits | CodeRange::FiveBits | CodeRange::SixBits => {
                self.read::<I, HALVES, SIX_BITS>(isa)
            }
            CodeRange::Small => self.read::<I, HALVES, SMALL>(isa),
            CodeRange::Signed => self.read::<I, HALVES, SIGNED>(isa),
        }
    }

    #[inline(always)]
    fn read<I: Isa, const HALVES: bool, const CODES: u8>(mut self, isa: I) {
        if <I::Wide as TileSimd>::TILES > 1 && self.tiles.len() == <I::Wide as TileSimd>::TILES {
            self.tiles::<I::Wide, HALVES, CODES>(isa.wide(), 0);
        } else {
            for tile in 0..self.tiles.len() {
                self.tiles::<I, HALVES, CODES>(isa, tile);
            }
        }
    }

    /// Multiplies the tiles of one register, from index `at`, with all tokens.
    #[inline(always)]
    fn tiles<W: TileSimd, const HALVES: bool, const CODES: u8>(&mut self, wide: W, at: usize) {
        let (x, tile) = (&self.all.x, self.tiles.start + at);
        let mut token = self.tokens.start;
        while token < self.tokens.end {
            let left = self.tokens.end - token;
            if W::TILES == 1 && (x.tokens() == 1 || W::TOKENS == 1) {
                let seen = (self.all.token(tile, token), self.all.token_halves(tile, token));
                self.run_batch::<W, HALVES, CODES, 1, 1>(wide, at, token, seen);
                token += 1;
                continue;
            }
            let seen = (self.all.block(tile, token), self.all.block_halves(tile, token));
            if W::TOKENS == BLOCK && left > HALF {
                self.run_batch::<W, HALVES, CODES, BLOCK, BLOCK>(wide, at, token, seen);
                token += BLOCK;
            } else {
                self.run_batch::<W, HALVES, CODES, HALF, BLOCK>(wide, at, token, seen);
                token += HALF;
            }
        }
    }

    /// Multiplies tiles with `T` tokens from a block of `B`, starting at `token`.
    #[inline(always)]
    fn run_batch<
        W: TileSimd,
        const HALVES: bool,
        const CODES: u8,
        const T: usize,
        const B: usize,
    >(
        &mut self,
        wide: W,
        at: usize,
        token: usize,
        (inputs, halves): Seen<B>,
    ) {
        let (last, columns) = (at + W::TILES - 1, self.columns.clone());
        let from = if T == B { 0 } else { token % B };
        let memory = &mut self.sums[token - self.tokens.start..][..T];
        let mut sums = [wide.splat(0.0); T];
        for (sum, memory) in sums.iter_mut().zip(&*memory) {
            *sum = wide.load_tiles([&memory[at], &memory[last]]);
        }
        let groups = zip(&self.groups[at], &self.groups[last]);
        let inputs = zip(
            zip(&inputs.codes[columns.clone()], &inputs.scales[columns.clone()]),
            zip(&inputs.sums[columns.clone()], &halves[columns]),
        );
        for ((a, b), ((x, x_scales), (x_sums, x_halves))) in zip(groups, inputs) {
            let weights = load::<W, CODES>(wide, a, b);
            let x: &[_; T] = subarray(x, from);
            let x_scales: &[_; T] = subarray(x_scales, from);
            let x_sums: &[_; T] = subarray(x_sums, from);
            if HALVES {
                for half in 0..2 {
                    let scale = wide.load_tiles([&a.scales[half], &b.scales[half]]);
                    let offset = wide.load_tiles([&a.offsets[half], &b.offsets[half]]);
                    let weights: &[_; 4] = subarray(&weights, 4 * half);
                    let x_sums: &[_; T] = subarray(&x_halves.sums[half], from);
                    let x_half: &[_; T] = subarray(&x_halves.scaled[half], from);
                    for t in 0..T {
                        let x: &[_; 4] = subarray(&x[t], 4 * half);
                        let products = dot::<W, 4, CODES>(wide, weights, x, x_sums[t]);
                        let scale = wide.mul(scale, wide.splat(x_scales[t]));
                        sums[t] = wide.fma(scale, wide.to_f32(products), sums[t]);
                        if CODES <= SIX_BITS {
                            sums[t] = wide.fma(offset, wide.splat(x_half[t]), sums[t]);
                        }
                    }
                }
                continue;
            }
            let scale = wide.load_tiles([&a.scales[0], &b.scales[0]]);
            let offset = wide.load_tiles([&a.offsets[0], &b.offsets[0]]);
            let x_whole: &[_; T] = subarray(&x_halves.whole, from);
            for t in 0..T {
                let products = dot::<W, 8, CODES>(wide, &weights, &x[t], x_sums[t]);
                let scale = wide.mul(scale, wide.splat(x_scales[t]));
                sums[t] = wide.fma(scale, wide.to_f32(products), sums[t]);
                if CODES <= SIX_BITS {
                    sums[t] = wide.fma(offset, wide.splat(x_whole[t]), sums[t]);
                }
            }
        }
        for (sum, memory) in sums.iter().zip(memory) {
            wide.store_tiles(*sum, memory[at..].as_flattened_mut());
        }
    }
}
