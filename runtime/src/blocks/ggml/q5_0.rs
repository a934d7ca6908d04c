//! Q5_0: 5-bit integers less 16, a scale per 32. 5.5 bits.

use super::tile::{Sixteen, bits, halves, insert, part, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at, nibbles};
use crate::isa::Isa;

/// f16 scale, a bit map of the fifth bits, 16 bytes of the low four.
pub struct Q5_0;

impl Block for Q5_0 {
    type Bytes = [u8; 22];
    const WEIGHTS: usize = 32;
    const CODES: CodeRange = CodeRange::FiveBits;

    #[inline(always)]
    fn group(block: &[u8; 22], _: usize) -> Group {
        let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        let low = nibbles(&block[6..]);
        let codes = std::array::from_fn(|i| (low[i] | ((high >> i & 1) << 4) as u8) as i8 - 16);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 22]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let [map, ..] = sixteen(isa, rows, 2);
        let (codes, [first, second]) = (sixteen(isa, rows, 6), fifth_bits(isa, map));
        groups[0].set_codes(isa, 0, insert::<I, 0>(isa, bits::<I, 0>(isa, codes, 15), first, 16));
        groups[0].set_codes(isa, 1, insert::<I, 0>(isa, bits::<I, 4>(isa, codes, 15), second, 16));
    }
}

/// A bit map of fifth bits as bytes, of each half.
#[inline(always)]
pub(super) fn fifth_bits<I: Isa>(isa: I, map: I::U8) -> [Sixteen<I>; 2] {
    [
        [isa.spread::<0>(map), isa.spread::<4>(map), isa.spread::<8>(map), isa.spread::<12>(map)],
        [
            isa.spread::<16>(map),
            isa.spread::<20>(map),
            isa.spread::<24>(map),
            isa.spread::<28>(map),
        ],
    ]
}

impl ByRow for Q5_0 {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 22]; TILE_ROWS], groups: &mut [TileGroup]) {
        let scale = halves(isa, rows, 0);
        groups[0].set_factors(isa, 0, scale, isa.mul(scale, isa.splat(-16.0)));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 22], _: usize) -> I::U8 {
        let fifth = isa.and_bytes(isa.masks(part(block, 2)), isa.splat_bytes(16));
        isa.add_bytes(isa.nibbles(part(block, 6)), fifth)
    }
}
