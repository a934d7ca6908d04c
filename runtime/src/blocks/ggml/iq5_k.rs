//! IQ5_K: a table of 32 in two forms, a 6-bit scale per 16 and an f16 per 256. 5.5 bits.

use super::ik::{self, FIVE_MORE, bit, five, fives, of_halves, six_bit_scales, tile_fives};
use super::tile::{eight, halves, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// f16 scale, a bit per half for the form of the table, the high two bits of 16 scales, their low
/// four, 128 bytes of low four bits, 32 of fifth bits.
pub struct Iq5K;

impl Block for Iq5K {
    type Bytes = [u8; 176];
    const WEIGHTS: usize = 256;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::Signed;

    #[inline(always)]
    fn group(block: &[u8; 176], index: usize) -> Group {
        let codes = fives(&block[16..], &block[144..], index);
        let more = [0, 1].map(|half| bit(block, 2, 2 * index + half));
        let d = half_at(block, 0);
        Group {
            codes: std::array::from_fn(|i| five(codes[i], more[i / 16])),
            scales: six_bit_scales(block, index).map(|scale| d * scale),
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 176]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        let [extra, ..] = sixteen(isa, rows, 0);
        let more = of_halves(isa, extra, FIVE_MORE);
        for half in 0..2 {
            let values = tile_fives(isa, rows, 16, half);
            for (index, (group, values)) in groups.iter_mut().zip(values).enumerate() {
                let more = more[index / 2][2 * (index % 2) + half];
                group.set_codes(isa, half, ik::added(isa, values, more));
            }
        }
    }
}

impl ByRow for Iq5K {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 176]; TILE_ROWS], groups: &mut [TileGroup]) {
        ik::set_six_bit_scales(isa, rows, halves(isa, rows, 0), eight(groups));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 176], index: usize) -> I::U8 {
        let values = ik::row_fives(isa, block, 16, index);
        isa.add_bytes(values, ik::row_more::<I, FIVE_MORE, _>(isa, block, 2, index))
    }
}
