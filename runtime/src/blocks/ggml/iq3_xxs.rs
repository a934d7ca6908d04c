//! IQ3_XXS: entries of a grid of 256, signs by sevens, a 4-bit scale per 32, an f16 per 256. 3.0625
//! bits.

use super::grids::{IQ3_XXS, even, signed};
use super::tile::{
    eight, even_signs, halves, odd_number_above, part, row_even_signs, row_fours, sixteen, subarray,
};
use super::{Block, ByGrid, CodeRange, Group, Signs, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// f16 scale, 64 indices, per group 32 bits: four times seven signs and the scale.
pub struct Iq3Xxs;

impl Block for Iq3Xxs {
    type Bytes = [u8; 98];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 98], index: usize) -> Group {
        let word = *block[66 + 4 * index..].first_chunk().expect("a group has four bytes");
        let word = u32::from_le_bytes(word);
        let entries =
            std::array::from_fn::<_, 8, _>(|j| &IQ3_XXS[usize::from(block[2 + 8 * index + j])]);
        let signs = [0, 7, 14, 21].map(|at| even((word >> at & 127) as u8));
        let scale = half_at(block, 0) * (0.5 + (word >> 28) as f32) * 0.5;
        Group { codes: signed(entries, signs), scales: [scale; 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 98]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let (groups, grid) = (eight(groups), &IQ3_XXS);
        for (four, groups) in groups.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let words = sixteen(isa, rows, 66 + 16 * four);
            for (i, (group, word)) in groups.iter_mut().zip(words).enumerate() {
                let indices = subarray::<8, 98>(rows, 2 + 32 * four + 8 * i);
                let mut codes = [[word; 2]; 4];
                for (j, codes) in codes.as_flattened_mut().iter_mut().enumerate() {
                    let mut entries = [&grid[0]; TILE_ROWS];
                    for (entry, indices) in entries.iter_mut().zip(indices) {
                        *entry = &grid[usize::from(indices[j])];
                    }
                    *codes = isa.load_fours(entries);
                }
                group.set_signed(isa, codes, even_signs(isa, isa.sevens(word)));
            }
        }
    }
}

impl ByGrid for Iq3Xxs {
    type Prepared = Signs;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 98]; TILE_ROWS], groups: &mut [TileGroup]) {
        let d = isa.mul(halves(isa, rows, 0), isa.splat(0.25));
        for (four, groups) in eight(groups).as_chunks_mut::<4>().0.iter_mut().enumerate() {
            for (group, word) in groups.iter_mut().zip(sixteen(isa, rows, 66 + 16 * four)) {
                let scale = isa.mul(d, odd_number_above(isa, word));
                group.set_factors(isa, 0, scale, isa.splat(0.0));
            }
        }
    }

    #[inline(always)]
    fn prepare<I: Isa>(isa: I, block: &[u8; 98]) -> Signs {
        row_even_signs(isa, isa.sevens(isa.load_bytes(part(block, 66))))
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 98], _: &Signs, index: usize) -> I::U8 {
        row_fours::<I, u8, _>(isa, &IQ3_XXS, part(block, 2 + 8 * index))
    }

    #[inline(always)]
    fn signs<'a>(_: &'a [u8; 98], signs: &'a Signs) -> Option<&'a Signs> {
        Some(signs)
    }
}
