//! Q4_0: 4-bit integers less 8, a scale per 32. 4.5 bits.

use super::tile::{halves, part, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at, nibbles};
use crate::isa::Isa;

/// f16 scale, 16 bytes of codes: the low halves are the first 16 weights.
pub struct Q4_0;

impl Block for Q4_0 {
    type Bytes = [u8; 18];
    const WEIGHTS: usize = 32;
    const CODES: CodeRange = CodeRange::FourBits;

    #[inline(always)]
    fn group(block: &[u8; 18], _: usize) -> Group {
        let codes = nibbles(&block[2..]).map(|code| code as i8 - 8);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 18]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        groups[0].set_nibbles(isa, sixteen(isa, rows, 2));
    }
}

impl ByRow for Q4_0 {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 18]; TILE_ROWS], groups: &mut [TileGroup]) {
        let scale = halves(isa, rows, 0);
        groups[0].set_factors(isa, 0, scale, isa.mul(scale, isa.splat(-8.0)));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 18], _: usize) -> I::U8 {
        isa.nibbles(part(block, 2))
    }
}
