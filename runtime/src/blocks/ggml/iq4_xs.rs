//! IQ4_XS: IQ4_NL's table with a 6-bit scale per 32 and an f16 per 256. 4.25 bits.

use super::iq4_nl::TABLE;
use super::tile::{
    bits, eight, halves, looked_up, nibble_numbers, numbers, part, row_looked_up, sixteen,
};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at, nibbles};
use crate::isa::Isa;

/// f16 scale, the high two bits of 8 scales, their low four, 128 bytes of codes.
pub struct Iq4Xs;

impl Block for Iq4Xs {
    type Bytes = [u8; 136];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Signed;

    #[inline(always)]
    fn group(block: &[u8; 136], index: usize) -> Group {
        let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * index) & 3;
        let low = block[4 + index / 2] >> (4 * (index % 2)) & 15;
        let scale = i32::from(low) + 16 * i32::from(high) - 32;
        let codes = nibbles(&block[8 + 16 * index..]).map(|code| TABLE[usize::from(code & 15)]);
        Group { codes, scales: [half_at(block, 0) * scale as f32; 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 136]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        for (index, group) in eight(groups).iter_mut().enumerate() {
            let codes = sixteen(isa, rows, 8 + 16 * index);
            group.set_codes(isa, 0, looked_up(isa, &TABLE, bits::<I, 0>(isa, codes, 15)));
            group.set_codes(isa, 1, looked_up(isa, &TABLE, bits::<I, 4>(isa, codes, 15)));
        }
    }
}

impl ByRow for Iq4Xs {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 136]; TILE_ROWS], groups: &mut [TileGroup]) {
        let groups = eight(groups);
        let [high, low, ..] = sixteen(isa, rows, 0);
        let d = halves(isa, rows, 0);
        // The first of high bytes 2 and 3, then the second, and so on.
        let high = [
            numbers(isa, isa.shift_and::<0>(high, 3)),
            numbers(isa, isa.shift_and::<2>(high, 3)),
            numbers(isa, isa.shift_and::<4>(high, 3)),
            numbers(isa, isa.shift_and::<6>(high, 3)),
        ];
        let low = [nibble_numbers(isa, low, 0), nibble_numbers(isa, low, 1)];
        for (index, group) in groups.iter_mut().enumerate() {
            let (low, high) = (low[index % 2][index / 2], high[index % 4][2 + index / 4]);
            let scale = isa.sub(isa.fma(high, isa.splat(16.0), low), isa.splat(32.0));
            group.set_factors(isa, 0, isa.mul(d, scale), isa.splat(0.0));
        }
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 136], index: usize) -> I::U8 {
        row_looked_up(isa, &TABLE, isa.nibbles(part(block, 8 + 16 * index)))
    }
}
