//! IQ2_S: entries of a grid of 1024, a sign each, a 4-bit scale per 16, an f16 per 256. 2.5625
//! bits.

use super::grids::{IQ2_S, signed};
use super::tile::{
    Indices, eight, eights, four, halves, part, row_eights, set_nibble_scales, sixteen, subarray,
};
use super::{Block, ByGrid, CodeRange, Group, Signs, TILE_ROWS, TileGroup, half_at};
use crate::isa::{HighBits, Isa};

/// f16 scale, 32 times the low eight bits of an index, 32 bytes of signs, 32 times the high two
/// bits, 16 scales.
pub struct Iq2S;

/// The grid entry for the low bits of an index and the `j`-th pair of the group's high bits.
#[inline(always)]
fn entry(grid: &[[u8; 8]; 1024], low: u8, high: u8, j: usize) -> &[u8; 8] {
    &grid[usize::from(low) | usize::from(high) << (8 - 2 * j) & 0x300]
}

/// The indices of a block's entries.
#[inline(always)]
fn indices<I: Isa>(isa: I, rows: [&[u8; 82]; TILE_ROWS]) -> Indices<4> {
    let mut all = Indices::default();
    let low = [sixteen(isa, rows, 2), sixteen(isa, rows, 18)];
    let high = isa.transpose_eights(subarray(rows, 66));
    for ((fours, low), high) in all.as_chunks_mut::<4>().0.iter_mut().zip(low).zip(high) {
        for (i, (group, low)) in fours.iter_mut().zip(low).enumerate() {
            for (j, (indices, low)) in group.iter_mut().zip(four(isa, low)).enumerate() {
                let high = isa.bits(high, (8 * i + 2 * j) as u32, 2);
                *indices = isa.lanes(isa.join(low, high, 8));
            }
        }
    }
    all
}

impl Block for Iq2S {
    type Bytes = [u8; 82];
    const WEIGHTS: usize = 256;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 82], index: usize) -> Group {
        let (low, high) = (&block[2 + 4 * index..], block[66 + index]);
        let entries = std::array::from_fn::<_, 4, _>(|j| entry(&IQ2_S, low[j], high, j));
        let signs = *block[34 + 4 * index..].first_chunk().expect("signs come before the scales");
        let both = block[74 + index];
        let scale = |scale: u8| half_at(block, 0) * (0.5 + f32::from(scale)) * 0.25;
        let scales = [scale(both & 15), scale(both >> 4)];
        Group { codes: signed(entries, signs), scales, offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 82]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let (groups, grid) = (eight(groups), &IQ2_S);
        let indices = indices(isa, rows);
        for (at, groups) in groups.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let signs = sixteen(isa, rows, 34 + 16 * at);
            for (i, (group, signs)) in groups.iter_mut().zip(signs).enumerate() {
                let mut codes = [[signs; 2]; 4];
                for (codes, indices) in codes.iter_mut().zip(&indices[4 * at + i]) {
                    *codes = eights(isa, grid, indices);
                }
                group.set_signed(isa, codes, signs);
            }
        }
    }
}

impl ByGrid for Iq2S {
    type Prepared = [[u16; 16]; 2];

    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 82]; TILE_ROWS], groups: &mut [TileGroup]) {
        let d = isa.mul(halves(isa, rows, 0), isa.splat(0.125));
        let [.., low, high] = sixteen(isa, rows, 66);
        set_nibble_scales(isa, d, [low, high], eight(groups));
    }

    #[inline(always)]
    fn prepare<I: Isa>(isa: I, block: &[u8; 82]) -> [[u16; 16]; 2] {
        let high = part(block, 66);
        [
            isa.extended(part(block, 2), high, const { &HighBits::packed(0, 4, 2) }),
            isa.extended(part(block, 18), high, const { &HighBits::packed(4, 4, 2) }),
        ]
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, _: &[u8; 82], indices: &[[u16; 16]; 2], index: usize) -> I::U8 {
        row_eights(isa, &IQ2_S, &indices.as_flattened().as_chunks().0[index])
    }

    #[inline(always)]
    fn signs<'a>(block: &'a [u8; 82], _: &'a [[u16; 16]; 2]) -> Option<&'a Signs> {
        block[34..66].as_chunks().0.as_array()
    }
}
