//! MXFP4: the OCP microscaling format, 4-bit floats with a power of two per 32. 4.25 bits.

use super::tile::{bits, part, row_small, sixteen, small};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, nibbles};
use crate::isa::Isa;

/// The values of e2m1, doubled.
pub(super) const TABLE: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// One byte of exponent, 16 bytes of codes.
pub struct Mxfp4;

impl Block for Mxfp4 {
    type Bytes = [u8; 17];
    const WEIGHTS: usize = 32;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 17], _: usize) -> Group {
        // 2^(e - 128): half of the scale, since the values are doubled.
        let bits = match u32::from(block[0]) {
            small @ 0..2 => 0x0020_0000 << small,
            exponent => (exponent - 1) << 23,
        };
        let codes = nibbles(&block[1..]).map(|code| TABLE[usize::from(code & 15)]);
        Group { codes, scales: [f32::from_bits(bits); 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 17]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let codes = sixteen(isa, rows, 1);
        groups[0].set_codes(isa, 0, small(isa, &TABLE, bits::<I, 0>(isa, codes, 15)));
        groups[0].set_codes(isa, 1, small(isa, &TABLE, bits::<I, 4>(isa, codes, 15)));
    }
}

impl ByRow for Mxfp4 {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 17]; TILE_ROWS], groups: &mut [TileGroup]) {
        // 2^(e - 128) as a product of two powers, since it may be below the range of an exponent.
        let [exponent, ..] = sixteen(isa, rows, 0);
        let half = isa.to_f32(isa.byte::<0>(isa.shift_and::<1>(exponent, 127)));
        let rest = isa.sub(isa.to_f32(isa.byte::<0>(exponent)), half);
        let center = isa.splat(64.0);
        let half = isa.exp2i(isa.round(isa.sub(half, center)));
        let rest = isa.exp2i(isa.round(isa.sub(rest, center)));
        groups[0].set_factors(isa, 0, isa.mul(half, rest), isa.splat(0.0));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 17], _: usize) -> I::U8 {
        row_small(isa, &TABLE, isa.nibbles(part(block, 1)))
    }
}
