//! IQ4_NL: codes into a table of 16, a scale per 32. 4.5 bits.

use super::tile::{bits, halves, looked_up, part, row_looked_up, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at, nibbles};
use crate::isa::Isa;

/// Values of the codes.
pub(super) const TABLE: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// f16 scale, 16 bytes of codes.
pub struct Iq4Nl;

impl Block for Iq4Nl {
    type Bytes = [u8; 18];
    const WEIGHTS: usize = 32;
    const CODES: CodeRange = CodeRange::Signed;

    #[inline(always)]
    fn group(block: &[u8; 18], _: usize) -> Group {
        let codes = nibbles(&block[2..]).map(|code| TABLE[usize::from(code & 15)]);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 18]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let codes = sixteen(isa, rows, 2);
        groups[0].set_codes(isa, 0, looked_up(isa, &TABLE, bits::<I, 0>(isa, codes, 15)));
        groups[0].set_codes(isa, 1, looked_up(isa, &TABLE, bits::<I, 4>(isa, codes, 15)));
    }
}

impl ByRow for Iq4Nl {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 18]; TILE_ROWS], groups: &mut [TileGroup]) {
        groups[0].set_factors(isa, 0, halves(isa, rows, 0), isa.splat(0.0));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 18], _: usize) -> I::U8 {
        row_looked_up(isa, &TABLE, isa.nibbles(part(block, 2)))
    }
}
