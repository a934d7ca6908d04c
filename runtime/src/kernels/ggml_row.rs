//! Products of a few tokens with ggml's block types, row by row.
//!
//! The numbers are those of [`super::ggml`]: exact integer products of a group, or of each half
//! that has factors of its own, and the same operations on them. Without a transposition, and
//! without a detour of codes through memory, decoding takes two to three times fewer instructions.

use super::activations::Halves;
use super::matmul::{Inputs, Tiles};
use crate::blocks::ggml::{
    Block, BlockBytes, ByRow, RowScale, TileGroup, WithByRow, row_len, with_by_row,
};
use crate::blocks::{GROUP, TILE_ROWS};
use crate::isa::{Features, Isa, Kernel};

/// Maximum number of groups in a block.
const GROUPS: usize = 8;

/// Maximum number of tokens for which rows are not transposed: more than that share the work.
pub(super) const FEW_TOKENS: usize = 3;

/// Multiplies a range of tiles with at most [`FEW_TOKENS`] tokens.
pub(super) struct FewTokens<'a>(pub &'a Tiles<'a>);

impl Kernel for FewTokens<'_> {
    const FEATURES: Features = Features::Dots;
    /// Whether the type is unpacked row by row here. The scalar tier stays with the definition.
    type Output = bool;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> bool {
        let work = OnIsa { isa, all: self.0 };
        with_by_row(self.0.weights.block_type(), work).unwrap_or(false)
    }
}

struct OnIsa<'a, I> {
    isa: I,
    all: &'a Tiles<'a>,
}

impl<I: Isa> WithByRow for OnIsa<'_, I> {
    type Output = bool;

    #[inline(always)]
    fn with<B: ByRow>(self) -> bool {
        let Self { isa, all } = self;
        if B::WEIGHTS > I::LARGEST_BY_ROW {
            return false;
        }
        let mut groups = [TileGroup::EMPTY; GROUPS];
        for tile in all.tiles.clone() {
            let mut sums = [[0.0; TILE_ROWS]; FEW_TOKENS];
            let sums = &mut sums[..all.x.tokens()];
            // A copy of the code for one token made AVX2 about 15% faster. In apps' libraries for
            // ARM, it and the scalar tier's copies took 118 KB together.
            match sums.len() {
                1 if cfg!(target_arch = "x86_64") => {
                    multiply::<I, B, true>(isa, all, tile, &mut groups, sums);
                }
                _ => multiply::<I, B, false>(isa, all, tile, &mut groups, sums),
            }
            let rows = all.rows(tile..tile + 1);
            for (token, sums) in sums.iter().enumerate() {
                let at = token * all.weights.rows() + rows.start;
                // SAFETY: only this task writes the rows of this tile.
                let out = unsafe { all.out.slice(at, rows.len()) };
                out.copy_from_slice(&sums[..rows.len()]);
            }
        }
        true
    }
}

/// Adds the products of a tile's rows to the sums of each token, which stay in a register if there is
/// `ONE`; `groups` are memory for factors.
/// Missing rows of a partial tile repeat the last row.
#[inline(always)]
fn multiply<I: Isa, B: ByRow, const ONE: bool>(
    isa: I,
    all: &Tiles,
    tile: usize,
    groups: &mut [TileGroup; GROUPS],
    sums: &mut [[f32; TILE_ROWS]],
) {
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
    let mut inputs = [(all.token(tile, 0), all.token_halves(tile, 0)); FEW_TOKENS];
    for (token, inputs) in inputs.iter_mut().enumerate().take(sums.len()).skip(1) {
        *inputs = (all.token(tile, token), all.token_halves(tile, token));
    }
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
        for (index, group) in groups.iter().enumerate() {
            let mut codes = [isa.splat_bytes(0); TILE_ROWS];
            for (codes, block) in codes.iter_mut().zip(block) {
                *codes = B::codes(isa, block, index);
            }
            let column = at * of_block + index;
            if ONE {
                sum = add::<I, B>(isa, sum, group, codes, input_at(inputs[0], column));
                continue;
            }
            for (sum, inputs) in sums.iter_mut().zip(inputs) {
                let x = input_at(inputs, column);
                isa.store(add::<I, B>(isa, isa.load(sum), group, codes, x), sum);
            }
        }
    }
    if ONE {
        isa.store(sum, &mut sums[0]);
    }
}

/// Codes of a group, their scale, and the scaled sums of both halves.
type Input<'a> = (&'a [[i8; 4]; 8], f32, [f32; 2]);

/// The inputs of one token from a group of columns.
#[inline(always)]
fn input_at<'a>((inputs, halves): (Inputs<'a, 1>, &[Halves<1>]), column: usize) -> Input<'a> {
    let ([x], [scale]) = (&inputs.codes[column], inputs.scales[column]);
    let [[first], [second]] = halves[column].scaled;
    (x, scale, [first, second])
}

/// Adds a group's products to the sums, in the order of [`super::ggml`].
#[inline(always)]
fn add<I: Isa, B: Block>(
    isa: I,
    mut sum: I::F32,
    group: &TileGroup,
    codes: [I::U8; TILE_ROWS],
    (x, x_scale, x_sums): Input,
) -> I::F32 {
    let signed = !B::CODES.is_unsigned();
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
