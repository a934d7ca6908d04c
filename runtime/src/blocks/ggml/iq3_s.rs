//! IQ3_S: entries of a grid of 512, a sign each, a 4-bit scale per 32, an f16 per 256. 3.4375 bits.

use std::hint::black_box;

use super::grids::{IQ3_S, signed};
use super::tile::{
    Indices, eight, four, fours, halves, odd_numbers, part, row_fours, sixteen, subarray,
};
use super::{Block, ByGrid, CodeRange, Group, Signs, TILE_ROWS, TileGroup, half_at};
use crate::isa::{HighBits, Isa};

/// f16 scale, 64 times the low eight bits of an index, 64 ninth bits, 32 bytes of signs, eight
/// scales.
pub struct Iq3S;

/// The grid entry for the low bits of an index and the `j`-th of the group's ninth bits.
#[inline(always)]
fn entry(grid: &[[u8; 4]; 512], low: u8, high: u8, j: usize) -> &[u8; 4] {
    &grid[usize::from(low) | usize::from(high) << (8 - j) & 0x100]
}

/// The indices of a block's entries.
#[inline(always)]
fn indices<I: Isa>(isa: I, rows: [&[u8; 110]; TILE_ROWS]) -> Indices<8> {
    let mut all = Indices::default();
    let high = isa.transpose_eights(subarray(rows, 66));
    for (at, (fours, high)) in all.as_chunks_mut::<4>().0.iter_mut().zip(high).enumerate() {
        let low = [sixteen(isa, rows, 2 + 32 * at), sixteen(isa, rows, 18 + 32 * at)];
        let halves = fours.as_flattened_mut().as_chunks_mut::<4>().0;
        for (i, (half, low)) in halves.iter_mut().zip(low.as_flattened()).enumerate() {
            for (j, (indices, low)) in half.iter_mut().zip(four(isa, *low)).enumerate() {
                let high = isa.bits(high, (4 * i + j) as u32, 1);
                *indices = isa.lanes(isa.join(low, high, 8));
            }
        }
    }
    all
}

impl Block for Iq3S {
    type Bytes = [u8; 110];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 110], index: usize) -> Group {
        let (low, high) = (&block[2 + 8 * index..], block[66 + index]);
        let entries = std::array::from_fn::<_, 8, _>(|j| entry(&IQ3_S, low[j], high, j));
        let signs = *block[74 + 4 * index..].first_chunk().expect("signs come before the scales");
        let scale = block[106 + index / 2] >> (4 * (index % 2)) & 15;
        let scale = half_at(block, 0) * f32::from(1 + 2 * scale);
        Group { codes: signed(entries, signs), scales: [scale; 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 110]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        // The address stays in a register: the compiler computed it again for each entry.
        let (groups, grid) = (eight(groups), black_box(&IQ3_S));
        let indices = indices(isa, rows);
        for (at, groups) in groups.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let signs = sixteen(isa, rows, 74 + 16 * at);
            for (i, (group, signs)) in groups.iter_mut().zip(signs).enumerate() {
                let mut codes = [[signs; 2]; 4];
                let indices = &indices[4 * at + i];
                for (codes, indices) in codes.as_flattened_mut().iter_mut().zip(indices) {
                    *codes = fours(isa, grid, indices);
                }
                group.set_signed(isa, codes, signs);
            }
        }
    }
}

impl ByGrid for Iq3S {
    type Prepared = [[u16; 16]; 4];

    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 110]; TILE_ROWS], groups: &mut [TileGroup]) {
        let d = halves(isa, rows, 0);
        let [.., scales] = sixteen(isa, rows, 94);
        let scales = odd_numbers(isa, scales);
        for (index, group) in eight(groups).iter_mut().enumerate() {
            let scale = isa.mul(d, scales[index % 2][index / 2]);
            group.set_factors(isa, 0, scale, isa.splat(0.0));
        }
    }

    #[inline(always)]
    fn prepare<I: Isa>(isa: I, block: &[u8; 110]) -> [[u16; 16]; 4] {
        let high = part(block, 66);
        [
            isa.extended(part(block, 2), high, const { &HighBits::packed(0, 8, 1) }),
            isa.extended(part(block, 18), high, const { &HighBits::packed(2, 8, 1) }),
            isa.extended(part(block, 34), high, const { &HighBits::packed(4, 8, 1) }),
            isa.extended(part(block, 50), high, const { &HighBits::packed(6, 8, 1) }),
        ]
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, _: &[u8; 110], indices: &[[u16; 16]; 4], index: usize) -> I::U8 {
        row_fours(isa, &IQ3_S, &indices.as_flattened().as_chunks().0[index])
    }

    #[inline(always)]
    fn signs<'a>(block: &'a [u8; 110], _: &'a [[u16; 16]; 4]) -> Option<&'a Signs> {
        block[74..106].as_chunks().0.as_array()
    }
}
