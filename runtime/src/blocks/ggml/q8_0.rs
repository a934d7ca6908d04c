//! Q8_0: 8-bit integers, a scale per 32. 8.5 bits.

use super::tile::{halves, part, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// f16 scale, 32 integers.
pub struct Q8_0;

impl Block for Q8_0 {
    type Bytes = [u8; 34];
    const WEIGHTS: usize = 32;
    const CODES: CodeRange = CodeRange::Signed;

    #[inline(always)]
    fn group(block: &[u8; 34], _: usize) -> Group {
        let codes = std::array::from_fn(|i| block[2 + i] as i8);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 34]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        groups[0].set_codes(isa, 0, sixteen(isa, rows, 2));
        groups[0].set_codes(isa, 1, sixteen(isa, rows, 18));
    }
}

impl ByRow for Q8_0 {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 34]; TILE_ROWS], groups: &mut [TileGroup]) {
        groups[0].set_factors(isa, 0, halves(isa, rows, 0), isa.splat(0.0));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 34], _: usize) -> I::U8 {
        isa.load_bytes(part(block, 2))
    }
}
