//! Q5_K: Q4_K with a fifth bit. 5.5 bits.

use super::k_scales::{scale_and_min, set_scales};
use super::tile::{bits, eight, insert, part, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, field, half_at};
use crate::isa::Isa;

/// As Q4_K, with 32 bytes before the codes that hold the fifth bits of a group in each bit.
pub struct Q5K;

impl Block for Q5K {
    type Bytes = [u8; 176];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::FiveBits;

    #[inline(always)]
    fn group(block: &[u8; 176], index: usize) -> Group {
        let (scale, min) = scale_and_min(&block[4..16], index);
        let high = field(&block[16..], index, 1);
        let low = field(&block[48 + 32 * (index / 2)..], 4 * (index % 2), 15);
        Group {
            codes: std::array::from_fn(|i| (low[i] | high[i] << 4) as i8),
            scales: [half_at(block, 0) * f32::from(scale); 2],
            offsets: [half_at(block, 2) * f32::from(min); 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 176]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        for half in 0..2 {
            let high = sixteen(isa, rows, 16 + 16 * half);
            let low = sixteen(isa, rows, 48 + 16 * half);
            let code = insert::<I, 4>(isa, bits::<I, 0>(isa, low, 15), high, 16);
            groups[0].set_codes(isa, half, code);
            let code = insert::<I, 3>(isa, bits::<I, 4>(isa, low, 15), high, 16);
            groups[1].set_codes(isa, half, code);
            let low = sixteen(isa, rows, 80 + 16 * half);
            let code = insert::<I, 2>(isa, bits::<I, 0>(isa, low, 15), high, 16);
            groups[2].set_codes(isa, half, code);
            let code = insert::<I, 1>(isa, bits::<I, 4>(isa, low, 15), high, 16);
            groups[3].set_codes(isa, half, code);
            let low = sixteen(isa, rows, 112 + 16 * half);
            let code = insert::<I, 0>(isa, bits::<I, 0>(isa, low, 15), high, 16);
            groups[4].set_codes(isa, half, code);
            let code = insert::<I, -1>(isa, bits::<I, 4>(isa, low, 15), high, 16);
            groups[5].set_codes(isa, half, code);
            let low = sixteen(isa, rows, 144 + 16 * half);
            let code = insert::<I, -2>(isa, bits::<I, 0>(isa, low, 15), high, 16);
            groups[6].set_codes(isa, half, code);
            let code = insert::<I, -3>(isa, bits::<I, 4>(isa, low, 15), high, 16);
            groups[7].set_codes(isa, half, code);
        }
    }
}

impl ByRow for Q5K {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 176]; TILE_ROWS], groups: &mut [TileGroup]) {
        set_scales(isa, rows, eight(groups));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 176], index: usize) -> I::U8 {
        let low = isa.load_bytes(part(block, 48 + 32 * (index / 2)));
        let high = isa.field(isa.load_bytes(part(block, 16)), index as u32, 1);
        isa.append::<4>(isa.field(low, 4 * (index % 2) as u32, 15), high)
    }
}
