//! IQ2_XXS: entries of a grid of 256, signs by sevens, a 4-bit scale per 32, an f16 per 256. 2.0625
//! bits.

use super::grids::{IQ2_XXS, even, signed};
use super::tile::{
    eight, even_signs, halves, odd_number_above, part, row_eights, row_even_signs, sixteen,
    subarray,
};
use super::{Block, ByGrid, CodeRange, Group, Signs, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// f16 scale; per group four indices, and in 32 bits four times seven signs and the scale.
pub struct Iq2Xxs;

impl Block for Iq2Xxs {
    type Bytes = [u8; 66];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 66], index: usize) -> Group {
        let [a, b, c, d, word @ ..]: [u8; 8] =
            *block[2 + 8 * index..].first_chunk().expect("a group has eight bytes");
        let word = u32::from_le_bytes(word);
        let entries = [a, b, c, d].map(|entry| &IQ2_XXS[usize::from(entry)]);
        let signs = [0, 7, 14, 21].map(|at| even((word >> at & 127) as u8));
        let scale = half_at(block, 0) * (0.5 + (word >> 28) as f32) * 0.25;
        Group { codes: signed(entries, signs), scales: [scale; 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 66]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let (groups, grid) = (eight(groups), &IQ2_XXS);
        for (two, pair) in groups.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [_, first, _, second] = sixteen(isa, rows, 2 + 16 * two);
            for (i, (group, word)) in pair.iter_mut().zip([first, second]).enumerate() {
                let indices = subarray::<4, 66>(rows, 2 + 16 * two + 8 * i);
                let mut codes = [[word; 2]; 4];
                for (j, codes) in codes.iter_mut().enumerate() {
                    let mut entries = [&grid[0]; TILE_ROWS];
                    for (entry, indices) in entries.iter_mut().zip(indices) {
                        *entry = &grid[usize::from(indices[j])];
                    }
                    *codes = isa.transpose_eights(entries);
                }
                group.set_signed(isa, codes, even_signs(isa, isa.sevens(word)));
            }
        }
    }
}

impl ByGrid for Iq2Xxs {
    type Prepared = Signs;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 66]; TILE_ROWS], groups: &mut [TileGroup]) {
        let d = isa.mul(halves(isa, rows, 0), isa.splat(0.125));
        for (two, pair) in eight(groups).as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [_, first, _, second] = sixteen(isa, rows, 2 + 16 * two);
            for (group, word) in pair.iter_mut().zip([first, second]) {
                let scale = isa.mul(d, odd_number_above(isa, word));
                group.set_factors(isa, 0, scale, isa.splat(0.0));
            }
        }
    }

    #[inline(always)]
    fn prepare<I: Isa>(isa: I, block: &[u8; 66]) -> Signs {
        let mut words = [part(block, 6); 8];
        for (index, word) in words.iter_mut().enumerate() {
            *word = part(block, 6 + 8 * index);
        }
        row_even_signs(isa, isa.sevens(isa.load_fours(words)))
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 66], _: &Signs, index: usize) -> I::U8 {
        row_eights::<I, u8, _>(isa, &IQ2_XXS, part(block, 2 + 8 * index))
    }

    #[inline(always)]
    fn signs<'a>(_: &'a [u8; 66], signs: &'a Signs) -> Option<&'a Signs> {
        Some(signs)
    }
}
