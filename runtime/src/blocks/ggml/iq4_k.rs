//! IQ4_K: IQ4_NL's table in two forms, a 6-bit scale per 16 and an f16 per 256. 4.5 bits.

use super::ik::{self, FOUR_MORE, bit, of_halves, six_bit_scales};
use super::iq4_nl::TABLE;
use super::tile::{bits, eight, halves, looked_up, part, row_looked_up, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at, nibbles};
use crate::isa::Isa;

/// f16 scale, a bit per half for the form of the table, the high two bits of 16 scales, their low
/// four, 128 bytes of codes.
pub struct Iq4K;

impl Block for Iq4K {
    type Bytes = [u8; 144];
    const WEIGHTS: usize = 256;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::Signed;

    #[inline(always)]
    fn group(block: &[u8; 144], index: usize) -> Group {
        let codes = nibbles(&block[16 + 16 * index..]);
        let more = [0, 1].map(|half| match bit(block, 2, 2 * index + half) {
            true => FOUR_MORE as i8,
            false => 0,
        });
        let d = half_at(block, 0);
        Group {
            codes: std::array::from_fn(|i| TABLE[usize::from(codes[i] & 15)] + more[i / 16]),
            scales: six_bit_scales(block, index).map(|scale| d * scale),
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 144]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        let [extra, ..] = sixteen(isa, rows, 0);
        let more = of_halves(isa, extra, FOUR_MORE);
        for (index, group) in groups.iter_mut().enumerate() {
            let codes = sixteen(isa, rows, 16 + 16 * index);
            let more = &more[index / 2][2 * (index % 2)..];
            let low = looked_up(isa, &TABLE, bits::<I, 0>(isa, codes, 15));
            group.set_codes(isa, 0, ik::added(isa, low, more[0]));
            let high = looked_up(isa, &TABLE, bits::<I, 4>(isa, codes, 15));
            group.set_codes(isa, 1, ik::added(isa, high, more[1]));
        }
    }
}

impl ByRow for Iq4K {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 144]; TILE_ROWS], groups: &mut [TileGroup]) {
        ik::set_six_bit_scales(isa, rows, halves(isa, rows, 0), eight(groups));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 144], index: usize) -> I::U8 {
        let values = row_looked_up(isa, &TABLE, isa.nibbles(part(block, 16 + 16 * index)));
        isa.add_bytes(values, ik::row_more::<I, FOUR_MORE, _>(isa, block, 2, index))
    }
}
