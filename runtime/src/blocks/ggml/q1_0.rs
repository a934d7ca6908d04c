//! Q1_0: a sign each, a scale per 128. 1.125 bits.

use super::tile::{halves, part, set_scale, sixteen};
use super::{Block, ByRow, CodeRange, GROUP, Group, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// f16 scale, 16 bytes of signs: a set bit means plus.
pub struct Q1_0;

impl Block for Q1_0 {
    type Bytes = [u8; 18];
    const WEIGHTS: usize = 128;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 18], index: usize) -> Group {
        let bits = &block[2 + 4 * index..];
        let codes = std::array::from_fn::<_, GROUP, _>(|i| {
            if bits[i / 8] >> (i % 8) & 1 == 1 { 1 } else { -1 }
        });
        Group { codes, scales: [half_at(block, 0); 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 18]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        // Minus one, plus two where a bit is set.
        let minus = isa.splat_bytes((I::TABLE_BIAS - 1) as u8);
        for (group, bits) in groups.iter_mut().zip(sixteen(isa, rows, 2)) {
            let masks = [
                [isa.spread::<0>(bits), isa.spread::<4>(bits)],
                [isa.spread::<8>(bits), isa.spread::<12>(bits)],
                [isa.spread::<16>(bits), isa.spread::<20>(bits)],
                [isa.spread::<24>(bits), isa.spread::<28>(bits)],
            ];
            for (at, masks) in masks.iter().enumerate() {
                let codes = [isa.shift_and::<0>(masks[0], 2), isa.shift_and::<0>(masks[1], 2)];
                group.set_moved(isa, at, codes, minus);
            }
        }
    }
}

impl ByRow for Q1_0 {
    const PLUS_ONE: bool = true;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 18]; TILE_ROWS], groups: &mut [TileGroup]) {
        set_scale(isa, halves(isa, rows, 0), groups);
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 18], index: usize) -> I::U8 {
        isa.and_bytes(isa.masks(part(block, 2 + 4 * index)), isa.splat_bytes(2))
    }
}
