//! IQ1_S: entries of a ternary grid of 2048, shifted by an eighth, a 3-bit scale per 32, an f16 per
//! 256. 1.5625 bits.

use super::grids::IQ1;
use super::tile::{Indices, eight, eighths, eights, four, halves, sixteen};
use super::{Block, CodeRange, GROUP, Group, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// f16 scale; 32 times the low eight bits of an index; per group 16 bits: four times the high three
/// bits, the scale, and whether an eighth is subtracted.
pub struct Iq1S;

/// The grid entry for the low bits of an index and the `j`-th three bits of the group's 16.
#[inline(always)]
fn entry(grid: &[[u8; 8]; 2048], low: u8, word: [u8; 2], j: usize) -> &[u8; 8] {
    let high = usize::from(u16::from_le_bytes(word)) >> (3 * j) & 7;
    &grid[usize::from(low) | high << 8]
}

/// The indices of a block's entries.
#[inline(always)]
fn indices<I: Isa>(isa: I, rows: [&[u8; 50]; TILE_ROWS]) -> Indices<4> {
    let mut all = Indices::default();
    let low = [sixteen(isa, rows, 2), sixteen(isa, rows, 18)];
    let words = sixteen(isa, rows, 34);
    let pairs = all.as_chunks_mut::<2>().0.iter_mut();
    for ((pair, low), words) in pairs.zip(low.as_flattened().as_chunks::<2>().0).zip(words) {
        for (i, (group, low)) in pair.iter_mut().zip(low).enumerate() {
            for (j, (indices, low)) in group.iter_mut().zip(four(isa, *low)).enumerate() {
                let high = isa.bits(words, (16 * i + 3 * j) as u32, 3);
                *indices = isa.lanes(isa.join(low, high, 8));
            }
        }
    }
    all
}

impl Block for Iq1S {
    type Bytes = [u8; 50];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 50], index: usize) -> Group {
        let word = [block[34 + 2 * index], block[35 + 2 * index]];
        let entries =
            std::array::from_fn::<_, 4, _>(|j| entry(&IQ1, block[2 + 4 * index + j], word, j));
        // Weights are in eighths, so the scale is an eighth of ggml's.
        let eighth = if word[1] >> 7 == 1 { -1 } else { 1 };
        let codes = std::array::from_fn::<_, GROUP, _>(|i| entries[i / 8][i % 8] as i8 + eighth);
        let scale = half_at(block, 0) * f32::from(2 * (word[1] >> 4 & 7) + 1) * 0.125;
        Group { codes, scales: [scale; 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 50]; TILE_ROWS], groups: &mut [TileGroup]) {
        let (groups, grid) = (eight(groups), &IQ1);
        let d = isa.mul(halves(isa, rows, 0), isa.splat(0.125));
        let words = sixteen(isa, rows, 34);
        let indices = indices(isa, rows);
        for (two, (pair, words)) in groups.as_chunks_mut::<2>().0.iter_mut().zip(words).enumerate()
        {
            let upper = isa.shift_and::<4>(words, 7);
            let upper = [isa.byte::<1>(upper), isa.byte::<3>(upper)];
            let less = isa.shift_and::<7>(words, 1);
            let less = [isa.repeat::<1>(less), isa.repeat::<3>(less)];
            for (i, group) in pair.iter_mut().enumerate() {
                let eighth = eighths(isa, less[i]);
                for (j, indices) in indices[2 * two + i].iter().enumerate() {
                    group.set_moved(isa, j, eights(isa, grid, indices), eighth);
                }
                let scale = isa.fma(isa.to_f32(upper[i]), isa.splat(2.0), isa.splat(1.0));
                group.set_factors(isa, 0, isa.mul(d, scale), isa.splat(0.0));
            }
        }
    }
}
