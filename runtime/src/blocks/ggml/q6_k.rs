//! Q6_K: 6-bit integers less 32, an 8-bit scale per 16, an f16 per 256. 6.5625 bits.

use super::tile::{bits, eight, halves, insert, part, signed_numbers, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, field, half_at};
use crate::isa::Isa;

/// 128 bytes of the low four bits, 64 bytes of the high two, 16 scales, f16 scale of scales.
pub struct Q6K;

impl Block for Q6K {
    type Bytes = [u8; 210];
    const WEIGHTS: usize = 256;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::SixBits;

    #[inline(always)]
    fn group(block: &[u8; 210], index: usize) -> Group {
        // Per half block: four groups with low bits in 64 bytes and high bits in 32.
        let (half, place) = (index / 4, index % 4);
        let low = field(&block[64 * half + 32 * (place % 2)..], 4 * (place / 2), 15);
        let high = field(&block[128 + 32 * half..], 2 * place, 3);
        let d = half_at(block, 208);
        let scale = |which: usize| d * f32::from(block[192 + which] as i8);
        Group {
            codes: std::array::from_fn(|i| (low[i] | high[i] << 4) as i8 - 32),
            scales: [scale(2 * index), scale(2 * index + 1)],
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 210]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        for (i, four) in groups.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            for half in 0..2 {
                let high = sixteen(isa, rows, 128 + 32 * i + 16 * half);
                let low = sixteen(isa, rows, 64 * i + 16 * half);
                let code = insert::<I, 4>(isa, bits::<I, 0>(isa, low, 15), high, 0x30);
                four[0].set_codes(isa, half, code);
                let code = insert::<I, 0>(isa, bits::<I, 4>(isa, low, 15), high, 0x30);
                four[2].set_codes(isa, half, code);
                let low = sixteen(isa, rows, 64 * i + 32 + 16 * half);
                let code = insert::<I, 2>(isa, bits::<I, 0>(isa, low, 15), high, 0x30);
                four[1].set_codes(isa, half, code);
                let code = insert::<I, -2>(isa, bits::<I, 4>(isa, low, 15), high, 0x30);
                four[3].set_codes(isa, half, code);
            }
        }
    }
}

impl ByRow for Q6K {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 210]; TILE_ROWS], groups: &mut [TileGroup]) {
        let groups = eight(groups);
        let d = halves(isa, rows, 208);
        let pairs = groups.as_chunks_mut::<2>().0.iter_mut();
        for (pair, bytes) in pairs.zip(sixteen(isa, rows, 192)) {
            for (at, scale) in signed_numbers(isa, bytes).into_iter().enumerate() {
                let scale = isa.mul(d, scale);
                let offset = isa.mul(scale, isa.splat(-32.0));
                pair[at / 2].set_factors(isa, at % 2, scale, offset);
            }
        }
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 210], index: usize) -> I::U8 {
        let (half, place) = (index / 4, index % 4);
        let low = isa.load_bytes(part(block, 64 * half + 32 * (place % 2)));
        let high = isa.load_bytes(part(block, 128 + 32 * half));
        let high = isa.field(high, 2 * place as u32, 3);
        isa.append::<4>(isa.field(low, 4 * (place / 2) as u32, 15), high)
    }
}
