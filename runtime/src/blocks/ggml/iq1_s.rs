//! IQ1_S: entries of a ternary grid of 2048, shifted by an eighth, a 3-bit scale per 32, an f16 per
//! 256. 1.5625 bits.

use super::grids::IQ1;
use super::tile::{Indices, eight, eighths, eights, four, halves, part, row_eights, sixteen};
use super::{Block, ByGrid, CodeRange, GROUP, Group, Signs, TILE_ROWS, TileGroup, half_at};
use crate::isa::{HighBits, Isa};

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
        Self::factors(isa, rows, groups);
        let (groups, grid) = (eight(groups), &IQ1);
        let words = sixteen(isa, rows, 34);
        let indices = indices(isa, rows);
        for (two, (pair, words)) in groups.as_chunks_mut::<2>().0.iter_mut().zip(words).enumerate()
        {
            let less = isa.shift_and::<7>(words, 1);
            let less = [isa.repeat::<1>(less), isa.repeat::<3>(less)];
            for (i, group) in pair.iter_mut().enumerate() {
                let eighth = eighths(isa, less[i]);
                for (j, indices) in indices[2 * two + i].iter().enumerate() {
                    group.set_moved(isa, j, eights(isa, grid, indices), eighth);
                }
            }
        }
    }
}

/// The high three bits of sixteen indices, in four words from `first_byte` on.
const fn high_bits(first_byte: u8) -> HighBits {
    let (mut from, mut times) = ([[0, HighBits::NONE]; 16], [0; 16]);
    let mut i = 0;
    while i < 16 {
        let (word, at) = (first_byte + 2 * (i / 4) as u8, 3 * (i % 4));
        // The last three bits are in the second byte.
        from[i] = if at < 8 { [word, word + 1] } else { [word + 1, HighBits::NONE] };
        times[i] = 1 << (8 - at % 8);
        i += 1;
    }
    HighBits { from, times, mask: 0x700 }
}

impl ByGrid for Iq1S {
    type Prepared = [[u16; 16]; 2];

    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 50]; TILE_ROWS], groups: &mut [TileGroup]) {
        let d = isa.mul(halves(isa, rows, 0), isa.splat(0.125));
        let pairs = eight(groups).as_chunks_mut::<2>().0.iter_mut();
        for (pair, words) in pairs.zip(sixteen(isa, rows, 34)) {
            let upper = isa.shift_and::<4>(words, 7);
            for (group, upper) in pair.iter_mut().zip([isa.byte::<1>(upper), isa.byte::<3>(upper)])
            {
                let scale = isa.fma(isa.to_f32(upper), isa.splat(2.0), isa.splat(1.0));
                group.set_factors(isa, 0, isa.mul(d, scale), isa.splat(0.0));
            }
        }
    }

    #[inline(always)]
    fn prepare<I: Isa>(isa: I, block: &[u8; 50]) -> [[u16; 16]; 2] {
        let high = part(block, 34);
        [
            isa.extended(part(block, 2), high, const { &high_bits(0) }),
            isa.extended(part(block, 18), high, const { &high_bits(8) }),
        ]
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 50], indices: &[[u16; 16]; 2], index: usize) -> I::U8 {
        // By whether an eighth is subtracted.
        const EIGHTHS: [[u8; GROUP]; 2] = [[1; GROUP], [u8::MAX; GROUP]];
        let entries = row_eights(isa, &IQ1, &indices.as_flattened().as_chunks().0[index]);
        let eighth = &EIGHTHS[usize::from(block[35 + 2 * index] >> 7)];
        isa.add_bytes(entries, isa.load_bytes(eighth))
    }

    #[inline(always)]
    fn signs<'a>(_: &'a [u8; 50], _: &'a [[u16; 16]; 2]) -> Option<&'a Signs> {
        None
    }
}
