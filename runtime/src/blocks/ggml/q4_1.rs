//! Q4_1: 4-bit integers, a scale and a minimum per 32. 5 bits.

use super::tile::{halves, part, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at, nibbles};
use crate::isa::Isa;

/// f16 scale, f16 minimum, 16 bytes of codes: the low halves are the first 16 weights.
pub struct Q4_1;

impl Block for Q4_1 {
    type Bytes = [u8; 20];
    const WEIGHTS: usize = 32;
    const CODES: CodeRange = CodeRange::FourBits;

    #[inline(always)]
    fn group(block: &[u8; 20], _: usize) -> Group {
        let codes = nibbles(&block[4..]).map(|code| code as i8);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [-half_at(block, 2); 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 20]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        groups[0].set_nibbles(isa, sixteen(isa, rows, 4));
    }
}

impl ByRow for Q4_1 {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 20]; TILE_ROWS], groups: &mut [TileGroup]) {
        groups[0].set_factors(isa, 0, halves(isa, rows, 0), halves(isa, rows, 2));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 20], _: usize) -> I::U8 {
        isa.nibbles(part(block, 4))
    }
}
