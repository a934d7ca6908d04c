//! Q5_1: 5-bit integers, a scale and a minimum per 32. 6 bits.

use super::q5_0::fifth_bits;
use super::tile::{bits, halves, insert, part, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at, nibbles};
use crate::isa::Isa;

/// f16 scale, f16 minimum, a bit map of the fifth bits, 16 bytes of the low four.
pub struct Q5_1;

impl Block for Q5_1 {
    type Bytes = [u8; 24];
    const WEIGHTS: usize = 32;
    const CODES: CodeRange = CodeRange::FiveBits;

    #[inline(always)]
    fn group(block: &[u8; 24], _: usize) -> Group {
        let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        let low = nibbles(&block[8..]);
        let codes = std::array::from_fn(|i| (low[i] | ((high >> i & 1) << 4) as u8) as i8);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [-half_at(block, 2); 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 24]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let [map, ..] = sixteen(isa, rows, 4);
        let (codes, [first, second]) = (sixteen(isa, rows, 8), fifth_bits(isa, map));
        groups[0].set_codes(isa, 0, insert::<I, 0>(isa, bits::<I, 0>(isa, codes, 15), first, 16));
        groups[0].set_codes(isa, 1, insert::<I, 0>(isa, bits::<I, 4>(isa, codes, 15), second, 16));
    }
}

impl ByRow for Q5_1 {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 24]; TILE_ROWS], groups: &mut [TileGroup]) {
        groups[0].set_factors(isa, 0, halves(isa, rows, 0), halves(isa, rows, 2));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 24], _: usize) -> I::U8 {
        let fifth = isa.and_bytes(isa.masks(part(block, 4)), isa.splat_bytes(16));
        isa.add_bytes(isa.nibbles(part(block, 8)), fifth)
    }
}
