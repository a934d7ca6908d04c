//! IQ2_XXS: entries of a grid of 256, signs by sevens, a 4-bit scale per 32, an f16 per 256. 2.0625
//! bits.

use super::grids::{IQ2_XXS, even, signed};
use super::tile::{eight, even_signs, halves, sixteen, subarray};
use super::{Block, CodeRange, Group, TILE_ROWS, TileGroup, half_at};
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
        let (groups, grid) = (eight(groups), &IQ2_XXS);
        let d = isa.mul(halves(isa, rows, 0), isa.splat(0.125));
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
                let scale = isa.to_f32(isa.byte::<3>(isa.shift_and::<4>(word, 15)));
                let scale = isa.fma(scale, isa.splat(2.0), isa.splat(1.0));
                group.set_factors(isa, 0, isa.mul(d, scale), isa.splat(0.0));
            }
        }
    }
}
