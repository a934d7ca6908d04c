//! Products of a few tokens with ggml's block types, row by row.
//!
//! The numbers are those of [`super::ggml`]: exact integer products of a group, or of each half
//! that has factors of its own, and the same operations on them. Without a transposition, and
//! without a detour of codes through memory, decoding takes two to three times fewer instructions.

use std::marker::PhantomData;

use super::activations::Halves;
use super::ggml::{FIVE_BITS, FOUR_BITS, SIX_BITS};
use super::matmul::{Inputs, Tiles};
use super::vector::store_first;
use crate::blocks::ggml::{
    Block, BlockBytes, ByRow, CodeRange, RowScale, TileGroup, WithByRow, row_len, with_by_row,
};
use crate::blocks::{GROUP, TILE_ROWS};
use crate::isa::{BIAS, EITHER_SIGN, Features, Isa, Kernel, Tier};

/// Maximum number of groups in a block.
const GROUPS: usize = 8;

/// Maximum number of tokens for which rows are not transposed: more than that share the work.
const FEW_TOKENS: usize = 3;

/// Multiplies a range of tiles with at most [`FEW_TOKENS`] tokens; `false` if there are more, or the
/// type is not unpacked row by row here. The scalar tier stays with the definition.
pub(super) fn multiply(tier: Tier, all: &Tiles) -> bool {
    all.x.tokens() <= FEW_TOKENS
        && with_by_row(all.weights.block_type(), OnTier { tier, all }).unwrap_or(false)
}

struct OnTier<'a> {
    tier: Tier,
    all: &'a Tiles<'a>,
}

impl WithByRow for OnTier<'_> {
    type Output = bool;

    fn with<B: ByRow>(self) -> bool {
        self.tier.run(Rows::<B>(self.all, PhantomData))
    }
}

/// Products with one type: each is a function of its own, whose loops keep their values in registers.
struct Rows<'a, B>(&'a Tiles<'a>, PhantomData<B>);

impl<B: ByRow> Kernel for Rows<'_, B> {
    const FEATURES: Features = Features::Dots;
    type Output = bool;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> bool {
        let Self(all, _) = self;
        if B::WEIGHTS > I::LARGEST_BY_ROW {
            return false;
        }
        match all.x.tokens() {
            1 => multiply_tiles::<I, B, 1>(isa, all),
            2 => multiply_tiles::<I, B, 2>(isa, all),
            _ => multiply_tiles::<I, B, FEW_TOKENS>(isa, all),
        }
        true
    }
}

/// Eight rows of a tile, and their factors. Missing rows of a partial tile repeat the last row.
pub(super) struct Tile<'a, I: Isa, B: Block> {
    isa: I,
    pub rows: [&'a [B::Bytes]; TILE_ROWS],
    scales: I::F32,
    /// Address of the next tile, for prefetches; behind the matrix after its last tile.
    next: *const u8,
}

impl<'a, I: Isa, B: Block> Tile<'a, I, B> {
    #[inline(always)]
    pub fn new(isa: I, all: &'a Tiles, tile: usize) -> Self {
        let (data, len) = (all.weights.data(), row_len::<B>(all.weights));
        let blocks = all.weights.cols() / B::WEIGHTS;
        let mut rows: [&[B::Bytes]; TILE_ROWS] = [&[]; TILE_ROWS];
        let mut scales = [1.0; TILE_ROWS];
        for (i, (row, row_scale)) in rows.iter_mut().zip(&mut scales).enumerate() {
            let number = (tile * TILE_ROWS + i).min(all.weights.rows() - 1);
            let (scale, bytes) = B::ROW_SCALE.split(&data[number * len..][..len]);
            (*row, *row_scale) = (&B::Bytes::blocks(bytes)[..blocks], scale);
        }
        let next = data.as_ptr().wrapping_add((tile + 1) * TILE_ROWS * len);
        Self { isa, rows, scales: isa.load(&scales), next }
    }

    /// Block `at` of each row.
    #[inline(always)]
    pub fn block(&self, at: usize) -> [&'a B::Bytes; TILE_ROWS] {
        // Prefetches as much of the next tile: rows are too short for the hardware prefetcher.
        let bytes = TILE_ROWS * size_of::<B::Bytes>();
        let mut line = 0;
        while line < bytes {
            self.isa.prefetch::<0>(self.next.wrapping_add(at * bytes + line));
            line += 64;
        }
        let mut block = [&self.rows[0][at]; TILE_ROWS];
        for (block, row) in block.iter_mut().zip(self.rows) {
            *block = &row[at];
        }
        block
    }
}

impl<'a, I: Isa, B: ByRow> Tile<'a, I, B> {
    /// Groups in a block: one, two, four or eight.
    const GROUPS: usize = {
        let groups = B::WEIGHTS / GROUP;
        assert!(groups.is_power_of_two() && groups <= GROUPS);
        groups
    };

    /// Block `at` of each row, whose factors are set in `groups`.
    #[inline(always)]
    fn with_factors(&self, at: usize, groups: &mut [TileGroup]) -> [&'a B::Bytes; TILE_ROWS] {
        let block = self.block(at);
        B::factors(self.isa, block, groups);
        if B::ROW_SCALE != RowScale::None {
            let halves = 1 + usize::from(B::HALVES);
            for group in groups {
                for scales in &mut group.scales[..halves] {
                    self.isa.store(self.isa.mul(self.scales, self.isa.load(scales)), scales);
                }
            }
        }
        block
    }

    /// The codes of group `index` of each row.
    #[inline(always)]
    fn codes(&self, block: &[&B::Bytes; TILE_ROWS], index: usize) -> [I::U8; TILE_ROWS] {
        let mut codes = [self.isa.splat_bytes(0); TILE_ROWS];
        for (codes, block) in codes.iter_mut().zip(block) {
            *codes = B::codes(self.isa, block, index);
        }
        codes
    }

    /// Adds the products of group `index` of each row to the sums of each token, whose inputs for the
    /// block are `x`.
    #[inline(always)]
    fn add<const T: usize>(
        &self,
        sums: [I::F32; T],
        block: &[&B::Bytes; TILE_ROWS],
        groups: &[TileGroup],
        x: &[Columns; T],
        index: usize,
    ) -> [I::F32; T] {
        let codes = self.codes(block, index);
        let mut added = sums;
        for (sum, x) in added.iter_mut().zip(x) {
            *sum = add::<I, B>(self.isa, *sum, &groups[index], codes, x.group(index));
        }
        added
    }
}

/// Multiplies a range of tiles with `T` tokens.
#[inline(always)]
fn multiply_tiles<I: Isa, B: ByRow, const T: usize>(isa: I, all: &Tiles) {
    let mut groups = [TileGroup::EMPTY; GROUPS];
    for tile in all.tiles.clone() {
        let sums = multiply_tile::<I, B, T>(isa, all, tile, &mut groups);
        let rows = all.rows(tile..tile + 1);
        for (token, sum) in sums.into_iter().enumerate() {
            let at = token * all.weights.rows() + rows.start;
            // SAFETY: only this task writes the rows of this tile.
            store_first(isa, sum, unsafe { all.out.slice(at, rows.len()) });
        }
    }
}

/// The sums of a tile's rows for each token, which stay in registers; `groups` are memory for factors.
#[inline(always)]
fn multiply_tile<I: Isa, B: ByRow, const T: usize>(
    isa: I,
    all: &Tiles,
    tile: usize,
    groups: &mut [TileGroup; GROUPS],
) -> [I::F32; T] {
    let rows = Tile::<I, B>::new(isa, all, tile);
    let mut inputs = [Columns::new(all, tile, 0); T];
    for (token, inputs) in inputs.iter_mut().enumerate().skip(1) {
        *inputs = Columns::new(all, tile, token);
    }
    let groups = &mut groups[..Tile::<I, B>::GROUPS];
    let mut sums = [isa.splat(0.0); T];
    for at in 0..rows.rows[0].len() {
        let block = &rows.with_factors(at, groups);
        let mut x = inputs;
        for x in &mut x {
            *x = x.block(at, groups.len());
        }
        sums = rows.add(sums, block, groups, &x, 0);
        // Not a loop: offsets and shifts are constants, where the compiler would keep a pointer
        // for each row and field, most of them in memory.
        if groups.len() > 1 {
            sums = rows.add(sums, block, groups, &x, 1);
        }
        if groups.len() > 2 {
            sums = rows.add(sums, block, groups, &x, 2);
            sums = rows.add(sums, block, groups, &x, 3);
        }
        if groups.len() > 4 {
            sums = rows.add(sums, block, groups, &x, 4);
            sums = rows.add(sums, block, groups, &x, 5);
            sums = rows.add(sums, block, groups, &x, 6);
            sums = rows.add(sums, block, groups, &x, 7);
        }
    }
    sums
}

/// Inputs of one token, by group of columns.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub codes: &'a [[[i8; 4]; 8]],
    pub scales: &'a [f32],
    sums: &'a [i32],
    halves: &'a [Halves<1>],
}

/// One group of it.
struct Group<'a> {
    codes: &'a [[i8; 4]; 8],
    scale: f32,
    sum: i32,
    halves: &'a Halves<1>,
}

impl<'a> Columns<'a> {
    #[inline(always)]
    pub fn new(all: &'a Tiles, tile: usize, token: usize) -> Self {
        let Inputs { codes, scales, sums, .. } = all.token(tile, token);
        Self {
            codes: codes.as_flattened(),
            scales: scales.as_flattened(),
            sums: sums.as_flattened(),
            halves: all.token_halves(tile, token),
        }
    }

    /// The groups of block `at`, of which there are `of_block` in each.
    #[inline(always)]
    pub fn block(&self, at: usize, of_block: usize) -> Self {
        let first = at * of_block;
        Self {
            codes: &self.codes[first..][..of_block],
            scales: &self.scales[first..][..of_block],
            sums: &self.sums[first..][..of_block],
            halves: &self.halves[first..][..of_block],
        }
    }

    #[inline(always)]
    fn group(&self, index: usize) -> Group<'a> {
        Group {
            codes: &self.codes[index],
            scale: self.scales[index],
            sum: self.sums[index],
            halves: &self.halves[index],
        }
    }
}

/// Adds a group's products to the sums, in the order of [`super::ggml`].
#[inline(always)]
fn add<I: Isa, B: ByRow>(
    isa: I,
    sum: I::F32,
    group: &TileGroup,
    codes: [I::U8; TILE_ROWS],
    x: Group,
) -> I::F32 {
    match B::CODES {
        CodeRange::FourBits => add_codes::<I, B, FOUR_BITS, 0>(isa, sum, group, codes, x),
        CodeRange::FiveBits => add_codes::<I, B, FIVE_BITS, 0>(isa, sum, group, codes, x),
        CodeRange::SixBits => add_codes::<I, B, SIX_BITS, 0>(isa, sum, group, codes, x),
        _ if B::PLUS_ONE => add_codes::<I, B, FOUR_BITS, 1>(isa, sum, group, codes, x),
        CodeRange::Small if I::TABLE_BIAS == BIAS => {
            add_codes::<I, B, { 2 * BIAS as u8 }, BIAS>(isa, sum, group, codes, x)
        }
        CodeRange::Small | CodeRange::Signed => {
            add_codes::<I, B, EITHER_SIGN, 0>(isa, sum, group, codes, x)
        }
    }
}

/// [`add`] for codes up to `MOST`, to which `PLUS` has been added.
#[inline(always)]
fn add_codes<I: Isa, B: ByRow, const MOST: u8, const PLUS: i32>(
    isa: I,
    mut sum: I::F32,
    group: &TileGroup,
    codes: [I::U8; TILE_ROWS],
    x: Group,
) -> I::F32 {
    let x_scale = isa.splat(x.scale);
    if B::HALVES {
        let products = isa.dot_row_halves::<MOST>(codes, x.codes);
        for half in 0..2 {
            let [x_sum] = x.halves.sums[half];
            let mut products = products[half];
            if PLUS != 0 {
                products = isa.join(products, isa.splat_i32(-PLUS * x_sum), 0);
            }
            let scale = isa.mul(isa.load(&group.scales[half]), x_scale);
            sum = isa.fma(scale, isa.to_f32(products), sum);
            if B::CODES.is_unsigned() {
                let [x_sum] = x.halves.scaled[half];
                sum = isa.fma(isa.load(&group.offsets[half]), isa.splat(x_sum), sum);
            }
        }
        return sum;
    }
    let mut products = isa.dot_rows::<MOST>(codes, x.codes);
    if PLUS != 0 {
        products = isa.join(products, isa.splat_i32(-PLUS * x.sum), 0);
    }
    sum = isa.fma(isa.mul(isa.load(&group.scales[0]), x_scale), isa.to_f32(products), sum);
    match B::CODES.is_unsigned() {
        true => {
            let [whole] = x.halves.whole;
            isa.fma(isa.load(&group.offsets[0]), isa.splat(whole), sum)
        }
        false => sum,
    }
}
