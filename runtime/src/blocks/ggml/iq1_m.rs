//! IQ1_M: entries of IQ1_S's grid, an eighth more or less per 8, a 3-bit scale per 16, an f16 per
//! 256. 1.75 bits.

use super::grids::IQ1;
use super::tile::{
    Indices, eight, eighths, eights, four, numbers, part, row_eights, sixteen, subarray,
};
use super::{Block, ByGrid, CodeRange, GROUP, Group, Signs, TILE_ROWS, TileGroup, half_at};
use crate::isa::{HighBits, Isa};

/// 32 times the low eight bits of an index; 32 times four bits: the high three bits, and whether an
/// eighth is subtracted; four times 16 bits: scales of two groups, and four bits of the f16 scale
/// of scales.
pub struct Iq1M;

/// The grid entry for the low bits of an index and the `j`-th four bits of a half-group's eight.
#[inline(always)]
fn entry(grid: &[[u8; 8]; 2048], low: u8, high: u8, j: usize) -> &[u8; 8] {
    &grid[usize::from(low) | usize::from(high) << (8 - 4 * j) & 0x700]
}

/// The scale of scales.
#[inline(always)]
fn scale_of_scales(block: &[u8; 56]) -> [u8; 2] {
    let four = |at: usize| block[at] >> 4;
    [four(49) | four(51) << 4, four(53) | four(55) << 4]
}

/// The indices of a block's entries.
#[inline(always)]
fn indices<I: Isa>(isa: I, rows: [&[u8; 56]; TILE_ROWS]) -> Indices<4> {
    let mut all = Indices::default();
    let low = [sixteen(isa, rows, 0), sixteen(isa, rows, 16)];
    let high = sixteen(isa, rows, 32);
    let pairs = all.as_chunks_mut::<2>().0.iter_mut();
    for ((pair, low), high) in pairs.zip(low.as_flattened().as_chunks::<2>().0).zip(high) {
        for (i, (group, low)) in pair.iter_mut().zip(low).enumerate() {
            for (j, (indices, low)) in group.iter_mut().zip(four(isa, *low)).enumerate() {
                let high = isa.bits(high, (16 * i + 4 * j) as u32, 3);
                *indices = isa.lanes(isa.join(low, high, 8));
            }
        }
    }
    all
}

impl Block for Iq1M {
    type Bytes = [u8; 56];
    const WEIGHTS: usize = 256;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 56], index: usize) -> Group {
        let (low, high) = (&block[4 * index..], &block[32 + 2 * index..]);
        let codes = std::array::from_fn::<_, GROUP, _>(|i| {
            let (j, high) = (i / 8, high[i / 16]);
            let eighth = if high >> (3 + 4 * (j % 2)) & 1 == 1 { -1 } else { 1 };
            entry(&IQ1, low[j], high, j % 2)[i % 8] as i8 + eighth
        });
        let at = 48 + 2 * (index / 2);
        let word = u16::from_le_bytes([block[at], block[at + 1]]) >> (6 * (index % 2));
        // Weights are in eighths, so scales are an eighth of ggml's.
        let d = half_at(&scale_of_scales(block), 0);
        let scales = [word, word >> 3].map(|word| d * f32::from(2 * (word & 7) + 1) * 0.125);
        Group { codes, scales, offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 56]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let (groups, grid) = (eight(groups), &IQ1);
        let indices = indices(isa, rows);
        for (at, groups) in groups.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let high = isa.transpose_eights(subarray::<8, 56>(rows, 32 + 8 * at));
            for (i, group) in groups.iter_mut().enumerate() {
                let less = isa.shift_and::<3>(high[i / 2], 1);
                let also = isa.shift_and::<7>(high[i / 2], 1);
                let less = match i % 2 {
                    0 => [
                        isa.repeat::<0>(less),
                        isa.repeat::<0>(also),
                        isa.repeat::<1>(less),
                        isa.repeat::<1>(also),
                    ],
                    _ => [
                        isa.repeat::<2>(less),
                        isa.repeat::<2>(also),
                        isa.repeat::<3>(less),
                        isa.repeat::<3>(also),
                    ],
                };
                for (j, indices) in indices[4 * at + i].iter().enumerate() {
                    let codes = eights(isa, grid, indices);
                    group.set_moved(isa, j, codes, eighths(isa, less[j]));
                }
            }
        }
    }
}

/// An eighth more, or less where the bit is set, of four times eight weights, by these four bits.
const EIGHTHS: [[u8; GROUP]; 16] = {
    let mut eighths = [[1; GROUP]; 16];
    let mut at = 0;
    while at < 16 * GROUP {
        let (bits, i) = (at / GROUP, at % GROUP);
        if bits >> (i / 8) & 1 == 1 {
            eighths[bits][i] = u8::MAX;
        }
        at += 1;
    }
    eighths
};

impl ByGrid for Iq1M {
    type Prepared = [[u16; 16]; 2];

    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 56]; TILE_ROWS], groups: &mut [TileGroup]) {
        let mut parts = [[0; 2]; TILE_ROWS];
        for (parts, row) in parts.iter_mut().zip(rows) {
            *parts = scale_of_scales(row);
        }
        let [a, b, c, d, e, f, g, h] = &parts;
        let d = isa.mul(isa.load_halves([a, b, c, d, e, f, g, h]), isa.splat(0.125));
        // 32 bits per four groups: two words of four scales, at bits 0, 3, 6 and 9.
        let words = isa.transpose_eights(subarray::<8, 56>(rows, 48));
        for (groups, words) in eight(groups).as_chunks_mut::<4>().0.iter_mut().zip(words) {
            let first = numbers(isa, isa.shift_and::<0>(words, 7));
            let second = numbers(isa, isa.shift_and::<3>(words, 7));
            let third = numbers(isa, isa.shift_and::<6>(words, 3));
            let third_above = numbers(isa, isa.shift_and::<0>(words, 1));
            let fourth = numbers(isa, isa.shift_and::<1>(words, 7));
            for (i, group) in groups.iter_mut().enumerate() {
                // The bytes of the word.
                let (low, upper) = (i / 2 * 2, i / 2 * 2 + 1);
                let scales = match i % 2 {
                    0 => [first[low], second[low]],
                    _ => [isa.fma(third_above[upper], isa.splat(4.0), third[low]), fourth[upper]],
                };
                for (half, scale) in scales.into_iter().enumerate() {
                    let scale = isa.fma(scale, isa.splat(2.0), isa.splat(1.0));
                    group.set_factors(isa, half, isa.mul(d, scale), isa.splat(0.0));
                }
            }
        }
    }

    #[inline(always)]
    fn prepare<I: Isa>(isa: I, block: &[u8; 56]) -> [[u16; 16]; 2] {
        let high = part(block, 32);
        [
            isa.extended(part(block, 0), high, const { &HighBits::packed(0, 2, 3) }),
            isa.extended(part(block, 16), high, const { &HighBits::packed(8, 2, 3) }),
        ]
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 56], indices: &[[u16; 16]; 2], index: usize) -> I::U8 {
        let entries = row_eights(isa, &IQ1, &indices.as_flattened().as_chunks().0[index]);
        // Bits 3, 7, 11 and 15 brought together: no two of the sums of the product share a bit.
        let bits = u32::from(u16::from_le_bytes(*part(block, 32 + 2 * index))) >> 3 & 0x1111;
        let bits = (bits * 0x1248) >> 12 & 15;
        isa.add_bytes(entries, isa.load_bytes(&EIGHTHS[bits as usize]))
    }

    #[inline(always)]
    fn signs<'a>(_: &'a [u8; 56], _: &'a [[u16; 16]; 2]) -> Option<&'a Signs> {
        None
    }
}
