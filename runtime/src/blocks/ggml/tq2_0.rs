//! TQ2_0: ternary weights in 2 bits, a scale per 256. 2.0625 bits.

use super::tile::{bits, eight, halves, less_one, part, set_scale, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, field, half_at};
use crate::isa::Isa;

/// 64 bytes of codes, which are the weights plus one, and an f16 scale.
pub struct Tq2_0;

impl Block for Tq2_0 {
    type Bytes = [u8; 66];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 66], index: usize) -> Group {
        let codes = field(&block[32 * (index / 4)..], 2 * (index % 4), 3);
        let codes = codes.map(|code| code as i8 - 1);
        Group { codes, scales: [half_at(block, 64); 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 66]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        for (i, four) in eight(groups).as_chunks_mut::<4>().0.iter_mut().enumerate() {
            for half in 0..2 {
                let codes = sixteen(isa, rows, 32 * i + 16 * half);
                four[0].set_codes(isa, half, less_one(isa, bits::<I, 0>(isa, codes, 3)));
                four[1].set_codes(isa, half, less_one(isa, bits::<I, 2>(isa, codes, 3)));
                four[2].set_codes(isa, half, less_one(isa, bits::<I, 4>(isa, codes, 3)));
                four[3].set_codes(isa, half, less_one(isa, bits::<I, 6>(isa, codes, 3)));
            }
        }
    }
}

impl ByRow for Tq2_0 {
    const PLUS_ONE: bool = true;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 66]; TILE_ROWS], groups: &mut [TileGroup]) {
        set_scale(isa, halves(isa, rows, 64), groups);
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 66], index: usize) -> I::U8 {
        let bytes = isa.load_bytes(part(block, 32 * (index / 4)));
        isa.field(bytes, 2 * (index % 4) as u32, 3)
    }
}
