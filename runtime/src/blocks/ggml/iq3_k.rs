//! IQ3_K: a table of 8 in two forms, an odd 5-bit scale per 16 and an f16 per 256. 3.4375 bits.

use super::ik::{self, THREE, bit, of_halves, threes, tile_threes};
use super::tile::{eight, halves, odd_numbers, row_small, sixteen, small, subarray};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// f16 scale, a bit per half for the form of the table, the signs of 16 scales, the four bits of
/// their magnitudes, 64 bytes of low two bits, 32 of third bits.
pub struct Iq3K;

impl Block for Iq3K {
    type Bytes = [u8; 110];
    const WEIGHTS: usize = 256;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 110], index: usize) -> Group {
        let codes = threes(&block[14..], &block[78..], index);
        let more = [0, 1].map(|half| 8 * usize::from(bit(block, 2, 2 * index + half)));
        let (d, scales) = (half_at(block, 0), block[6 + index]);
        let scale = |half: usize, nibble: u8| {
            let magnitude = f32::from(2 * nibble + 1);
            d * if bit(block, 4, 2 * index + half) { -magnitude } else { magnitude }
        };
        Group {
            codes: std::array::from_fn(|i| THREE[usize::from(codes[i] & 7) + more[i / 16]]),
            scales: [scale(0, scales & 15), scale(1, scales >> 4)],
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 110]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        let [extra, ..] = sixteen(isa, rows, 0);
        let more = of_halves(isa, extra, 8);
        for half in 0..2 {
            let codes = tile_threes(isa, rows, 14, half);
            for (index, (group, codes)) in groups.iter_mut().zip(codes).enumerate() {
                let more = more[index / 2][2 * (index % 2) + half];
                group.set_codes(isa, half, small(isa, &THREE, ik::added(isa, codes, more)));
            }
        }
    }
}

impl ByRow for Iq3K {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 110]; TILE_ROWS], groups: &mut [TileGroup]) {
        let groups = eight(groups);
        let d = halves(isa, rows, 0);
        let [_, signs, ..] = sixteen(isa, rows, 0);
        let scales = isa.transpose_eights(subarray::<8, 110>(rows, 6));
        let magnitudes = [odd_numbers(isa, scales[0]), odd_numbers(isa, scales[1])];
        // Minus two where a sign is set: a byte per group or half.
        let signs = [
            isa.spread::<0>(signs),
            isa.spread::<4>(signs),
            isa.spread::<8>(signs),
            isa.spread::<12>(signs),
        ];
        for (four, signs) in signs.into_iter().enumerate() {
            let set = super::tile::numbers(isa, isa.shift_and::<0>(signs, 2));
            for (i, set) in set.into_iter().enumerate() {
                let (index, half) = (2 * four + i / 2, i % 2);
                let magnitude = magnitudes[index / 4][half][index % 4];
                let scale = isa.mul(magnitude, isa.sub(isa.splat(1.0), set));
                groups[index].set_factors(isa, half, isa.mul(d, scale), isa.splat(0.0));
            }
        }
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 110], index: usize) -> I::U8 {
        let codes = ik::row_threes(isa, block, 14, index);
        let codes = isa.add_bytes(codes, ik::row_more::<I, 8, _>(isa, block, 2, index));
        row_small(isa, &THREE, codes)
    }
}
