//! Products of one token with ggml's types of entries of a grid, block by block of each row.
//!
//! ```text
//! for each block of eight rows
//!     for each row
//!         indices and signs of the block
//!         products of its eight groups, a lane each
//!     transposition: products of a group of eight rows, a lane each
//!     for each group
//!         sum = fma(scale * activation_scale, products, sum)
//! ```
//!
//! The numbers are those of [`super::ggml`]. A row has its entries where it is multiplied, without a
//! detour through a tile, and a block's groups are summed side by side, as rows are in
//! [`super::ggml_row`]: eight rows' addresses and what is left of their bits do not fit registers.

use std::marker::PhantomData;

use super::ggml_row::{Columns, Tile};
use super::matmul::Tiles;
use super::vector::store_first;
use crate::blocks::ggml::{ByGrid, TileGroup, WithByGrid, with_by_grid};
use crate::blocks::{GROUP, TILE_ROWS};
use crate::isa::{Features, Isa, Kernel, Tier};

/// Groups in a block.
const GROUPS: usize = 8;

/// Multiplies a range of tiles with one token; `false` if there are more, or the type has no grid.
pub(super) fn multiply(tier: Tier, all: &Tiles) -> bool {
    all.x.tokens() == 1
        && with_by_grid(all.weights.block_type(), OnTier { tier, all }).unwrap_or(false)
}

struct OnTier<'a> {
    tier: Tier,
    all: &'a Tiles<'a>,
}

impl WithByGrid for OnTier<'_> {
    type Output = bool;

    fn with<B: ByGrid>(self) -> bool {
        self.tier.run(Rows::<B>(self.all, PhantomData))
    }
}

/// Products with one type: each is a function of its own.
struct Rows<'a, B>(&'a Tiles<'a>, PhantomData<B>);

impl<B: ByGrid> Kernel for Rows<'_, B> {
    const FEATURES: Features = Features::Dots;
    type Output = bool;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> bool {
        const { assert!(B::WEIGHTS == GROUPS * GROUP) };
        if B::WEIGHTS > I::LARGEST_BY_ROW {
            return false;
        }
        let Self(all, _) = self;
        let mut groups = [TileGroup::EMPTY; GROUPS];
        for tile in all.tiles.clone() {
            let sum = multiply_tile::<I, B>(isa, all, tile, &mut groups);
            let rows = all.rows(tile..tile + 1);
            // SAFETY: only this task writes the rows of this tile.
            store_first(isa, sum, unsafe { all.out.slice(rows.start, rows.len()) });
        }
        true
    }
}

/// The sums of a tile's rows; `groups` are memory for factors.
#[inline(always)]
fn multiply_tile<I: Isa, B: ByGrid>(
    isa: I,
    all: &Tiles,
    tile: usize,
    groups: &mut [TileGroup; GROUPS],
) -> I::F32 {
    let rows = Tile::<I, B>::new(isa, all, tile);
    let x = Columns::new(all, tile, 0);
    let mut sum = isa.splat(0.0);
    for at in 0..rows.rows[0].len() {
        let block = rows.block(at);
        B::factors(isa, block, groups);
        let x = x.block(at, GROUPS);
        let [first, second] = products::<I, B>(isa, block, x.codes);
        for (index, (group, x_scale)) in groups.iter().zip(x.scales).enumerate() {
            let x_scale = isa.splat(*x_scale);
            let scale = isa.mul(isa.load(&group.scales[0]), x_scale);
            sum = isa.fma(scale, first[index], sum);
            if B::HALVES {
                let scale = isa.mul(isa.load(&group.scales[1]), x_scale);
                sum = isa.fma(scale, second[index], sum);
            }
        }
    }
    sum
}

/// The products of each group, or of its halves if they have factors of their own.
#[inline(always)]
fn products<I: Isa, B: ByGrid>(
    isa: I,
    block: [&B::Bytes; TILE_ROWS],
    x: &[[[i8; 4]; 8]],
) -> [[I::F32; GROUPS]; 2] {
    let x: &[_; GROUPS] = x.as_array().expect("a block has eight groups");
    let (mut first, mut second) = ([isa.splat(0.0); TILE_ROWS], [isa.splat(0.0); TILE_ROWS]);
    for (block, (first, second)) in block.into_iter().zip(first.iter_mut().zip(&mut second)) {
        let prepared = &B::prepare(isa, block);
        // Not a loop: the compiler would put codes into memory.
        let codes = [
            B::codes(isa, block, prepared, 0),
            B::codes(isa, block, prepared, 1),
            B::codes(isa, block, prepared, 2),
            B::codes(isa, block, prepared, 3),
            B::codes(isa, block, prepared, 4),
            B::codes(isa, block, prepared, 5),
            B::codes(isa, block, prepared, 6),
            B::codes(isa, block, prepared, 7),
        ];
        [*first, *second] = isa.dot_groups(codes, B::signs(block, prepared), x);
        if !B::HALVES {
            // Exact: sums of 32 products are below 2^24.
            *first = isa.add(*first, *second);
        }
    }
    match B::HALVES {
        true => [isa.transpose_lanes(first), isa.transpose_lanes(second)],
        false => [isa.transpose_lanes(first), second],
    }
}
