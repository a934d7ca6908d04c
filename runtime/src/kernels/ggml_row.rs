//! Products of a single token with ggml's block types, row by row.
//!
//! The numbers are those of [`super::ggml`]: exact integer products of a group, or of each half
//! that has factors of its own, and the same operations on them. Without a transposition, and
//! without a detour of codes through memory, decoding takes two to three times fewer instructions.

use std::iter::zip;

use super::matmul::Tiles;
use crate::blocks::ggml::{
    Block, BlockBytes, ByRow, CodeRange, RowScale, TileGroup, WithByRow, row_len, with_by_row,
};
use crate::blocks::{GROUP, TILE_ROWS};
use crate::isa::{Features, Isa, Kernel};

/// Maximum number of groups in a block.
const GROUPS: usize = 8;

/// Multiplies a range of tiles with a single token.
pub(super) struct OneToken<'a>(pub &'a Tiles<'a>);

impl Kernel for OneToken<'_> {
    const FEATURES: Features = Features::Dots;
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let known = with_by_row(self.0.weights.block_type(), OnIsa { isa, all: self.0 });
        debug_assert!(known.is_some(), "other types are not unpacked row by row");
    }
}

struct OnIsa<'a, I> {
    isa: I,
    all: &'a Tiles<'a>,
}

impl<I: Isa> WithByRow for OnIsa<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with<B: ByRow>(self) {
        let Self { isa, all } = self;
        let mut groups = [TileGroup::EMPTY; GROUPS];
        for tile in all.tiles.clone() {
            let mut sums = [0.0; TILE_ROWS];
            isa.store(multiply::<I, B>(isa, all, tile, &mut groups), &mut sums);
            let rows = all.rows(tile..tile + 1);
            // SAFETY: only this task writes the rows of this tile.
            let out = unsafe { all.out.slice(rows.start, rows.len()) };
            out.copy_from_slice(&sums[..rows.len()]);
        }
    }
}

/// The products of a tile's rows; `groups` are memory for factors. Missing rows of a partial tile
/// repeat the last row.
#[inline(always)]
fn multiply<I: Isa, B: ByRow>(
    isa: I,
    all: &Tiles,
    tile: usize,
    groups: &mut [TileGroup; GROUPS],
) -> I::F32 {
    let of_block = B::WEIGHTS / GROUP;
    let row_blocks = all.weights.cols() / B::WEIGHTS;
    let (data, len) = (all.weights.data(), row_len::<B>(all.weights));
    let mut rows: [&[B::Bytes]; TILE_ROWS] = [&[]; TILE_ROWS];
    let mut row_scales = [1.0; TILE_ROWS];
    for (i, (row, row_scale)) in rows.iter_mut().zip(&mut row_scales).enumerate() {
        let number = (tile * TILE_ROWS + i).min(all.weights.rows() - 1);
        let (scale, blocks) = B::ROW_SCALE.split(&data[number * len..][..len]);
        (*row, *row_scale) = (&B::Bytes::blocks(blocks)[..row_blocks], scale);
    }
    let row_scales = isa.load(&row_scales);
    let (inputs, halves) = (all.token(tile, 0), all.token_halves(tile, 0));
    let mut sum = isa.splat(0.0);
    for at in 0..row_blocks {
        let block = TILE_ROWS * at * size_of::<B::Bytes>();
        prefetch::<I, B>(isa, data.as_ptr().wrapping_add((tile + 1) * TILE_ROWS * len + block));
        let mut block = [&rows[0][at]; TILE_ROWS];
        for (block, row) in block.iter_mut().zip(rows) {
            *block = &row[at];
        }
        let groups = &mut groups[..of_block];
        B::factors(isa, block, groups);
        if B::ROW_SCALE != RowScale::None {
            for scales in groups.iter_mut().flat_map(|group| &mut group.scales) {
                isa.store(isa.mul(row_scales, isa.load(scales)), scales);
            }
        }
        let columns = at * of_block..(at + 1) * of_block;
        let inputs = zip(&inputs.codes[columns.clone()], &inputs.scales[columns.clone()]);
        let inputs = inputs.zip(&halves[columns]);
        for ((index, group), (([x], [x_scale]), x_halves)) in groups.iter().enumerate().zip(inputs)
        {
            let mut codes = [isa.splat_bytes(0); TILE_ROWS];
            for (codes, block) in codes.iter_mut().zip(block) {
                *codes = B::codes(isa, block, index);
            }
            let x_sums = [x_halves.scaled[0][0], x_halves.scaled[1][0]];
            sum = add::<I, B>(isa, sum, group, codes, (x, *x_scale, x_sums));
        }
    }
    sum
}

/// Adds a group's products to the sums, in the order of [`super::ggml`].
#[inline(always)]
fn add<I: Isa, B: Block>(
    isa: I,
    mut sum: I::F32,
    group: &TileGroup,
    codes: [I::U8; TILE_ROWS],
    (x, x_scale, x_sums): (&[[i8; 4]; 8], f32, [f32; 2]),
) -> I::F32 {
    let signed = B::CODES != CodeRange::Unsigned;
    let x_scale = isa.splat(x_scale);
    if B::HALVES {
        let products = match signed {
            true => isa.dot_row_halves::<true>(codes, x),
            false => isa.dot_row_halves::<false>(codes, x),
        };
        for half in 0..2 {
            let scale = isa.mul(isa.load(&group.scales[half]), x_scale);
            sum = isa.fma(scale, isa.to_f32(products[half]), sum);
            if !signed {
                sum = isa.fma(isa.load(&group.offsets[half]), isa.splat(x_sums[half]), sum);
            }
        }
        return sum;
    }
    let products = match signed {
        true => isa.dot_rows::<true>(codes, x),
        false => isa.dot_rows::<false>(codes, x),
    };
    sum = isa.fma(isa.mul(isa.load(&group.scales[0]), x_scale), isa.to_f32(products), sum);
    match signed {
        true => sum,
        false => isa.fma(isa.load(&group.offsets[0]), isa.splat(x_sums[0] + x_sums[1]), sum),
    }
}

/// Prefetches as many blocks as are read at a time, from the next tile: rows are too short for the
/// hardware prefetcher.
#[inline(always)]
fn prefetch<I: Isa, B: Block>(isa: I, from: *const u8) {
    let mut line = 0;
    while line < TILE_ROWS * size_of::<B::Bytes>() {
        isa.prefetch::<0>(from.wrapping_add(line));
        line += 64;
    }
}
