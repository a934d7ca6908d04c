//! Q4_K: 4-bit integers, a 6-bit scale and minimum per 32, two f16 per 256. 4.5 bits.

use super::k_scales::{scale_and_min, set_scales};
use super::tile::{bits, eight, part, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, field, half_at};
use crate::isa::Isa;

/// f16 scale of scales and of minima, 12 bytes of both, 128 bytes of codes: the low halves of 32
/// bytes are one group, the high halves the next.
pub struct Q4K;

impl Block for Q4K {
    type Bytes = [u8; 144];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::FourBits;

    #[inline(always)]
    fn group(block: &[u8; 144], index: usize) -> Group {
        let (scale, min) = scale_and_min(&block[4..16], index);
        let codes = field(&block[16 + 32 * (index / 2)..], 4 * (index % 2), 15);
        Group {
            codes: codes.map(|code| code as i8),
            scales: [half_at(block, 0) * f32::from(scale); 2],
            offsets: [half_at(block, 2) * f32::from(min); 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 144]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        for (i, [first, second]) in groups.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            for half in 0..2 {
                let codes = sixteen(isa, rows, 16 + 32 * i + 16 * half);
                first.set_codes(isa, half, bits::<I, 0>(isa, codes, 15));
                second.set_codes(isa, half, bits::<I, 4>(isa, codes, 15));
            }
        }
    }
}

impl ByRow for Q4K {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 144]; TILE_ROWS], groups: &mut [TileGroup]) {
        set_scales(isa, rows, eight(groups));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 144], index: usize) -> I::U8 {
        let bytes = isa.load_bytes(part(block, 16 + 32 * (index / 2)));
        isa.field(bytes, 4 * (index % 2) as u32, 15)
    }
}
