//! Q3_K: 3-bit integers less 4, a 6-bit scale per 16, an f16 per 256. 3.4375 bits.

use super::tile::{bits, eight, halves, insert, numbers, part, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, field, half_at};
use crate::isa::Isa;

/// 32 bytes of third bits, 64 bytes of the low two, 12 bytes of scales, f16 scale of scales.
pub struct Q3K;

impl Block for Q3K {
    type Bytes = [u8; 110];
    const WEIGHTS: usize = 256;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::FourBits;

    #[inline(always)]
    fn group(block: &[u8; 110], index: usize) -> Group {
        let high = field(block, index, 1);
        let low = field(&block[32 + 32 * (index / 4)..], 2 * (index % 4), 3);
        let scales = &block[96..108];
        // Sixteen scales: low four bits in eight bytes, high two in four.
        let scale = |which: usize| {
            let low = scales[which % 8] >> (4 * (which / 8)) & 15;
            let high = scales[8 + which % 4] >> (2 * (which / 4)) & 3;
            half_at(block, 108) * (i32::from(low | high << 4) - 32) as f32
        };
        Group {
            // A set third bit means that 4 is not subtracted.
            codes: std::array::from_fn(|i| (low[i] + (high[i] << 2)) as i8 - 4),
            scales: [scale(2 * index), scale(2 * index + 1)],
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 110]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        for half in 0..2 {
            let high = sixteen(isa, rows, 16 * half);
            let low = sixteen(isa, rows, 32 + 16 * half);
            let code = insert::<I, 2>(isa, bits::<I, 0>(isa, low, 3), high, 4);
            groups[0].set_codes(isa, half, code);
            let code = insert::<I, 1>(isa, bits::<I, 2>(isa, low, 3), high, 4);
            groups[1].set_codes(isa, half, code);
            let code = insert::<I, 0>(isa, bits::<I, 4>(isa, low, 3), high, 4);
            groups[2].set_codes(isa, half, code);
            let code = insert::<I, -1>(isa, bits::<I, 6>(isa, low, 3), high, 4);
            groups[3].set_codes(isa, half, code);
            let low = sixteen(isa, rows, 64 + 16 * half);
            let code = insert::<I, -2>(isa, bits::<I, 0>(isa, low, 3), high, 4);
            groups[4].set_codes(isa, half, code);
            let code = insert::<I, -3>(isa, bits::<I, 2>(isa, low, 3), high, 4);
            groups[5].set_codes(isa, half, code);
            let code = insert::<I, -4>(isa, bits::<I, 4>(isa, low, 3), high, 4);
            groups[6].set_codes(isa, half, code);
            let code = insert::<I, -5>(isa, bits::<I, 6>(isa, low, 3), high, 4);
            groups[7].set_codes(isa, half, code);
        }
    }
}

impl ByRow for Q3K {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 110]; TILE_ROWS], groups: &mut [TileGroup]) {
        let groups = eight(groups);
        let d = halves(isa, rows, 108);
        // The end of the codes, eight bytes of low bits, four of high ones.
        let [_, first, second, high] = sixteen(isa, rows, 92);
        let scales = [
            isa.insert::<4>(isa.shift_and::<0>(first, 15), high, 0x30),
            isa.insert::<2>(isa.shift_and::<0>(second, 15), high, 0x30),
            isa.insert::<0>(isa.shift_and::<4>(first, 15), high, 0x30),
            isa.insert::<-2>(isa.shift_and::<4>(second, 15), high, 0x30),
        ];
        for (pair, scales) in groups.as_chunks_mut::<2>().0.iter_mut().zip(scales) {
            let scales = numbers(isa, scales);
            for (i, group) in pair.iter_mut().enumerate() {
                for half in 0..2 {
                    let scale = isa.mul(d, isa.sub(scales[2 * i + half], isa.splat(32.0)));
                    group.set_factors(isa, half, scale, isa.mul(scale, isa.splat(-4.0)));
                }
            }
        }
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 110], index: usize) -> I::U8 {
        let low = isa.load_bytes(part(block, 32 + 32 * (index / 4)));
        let high = isa.field(isa.load_bytes(part(block, 0)), index as u32, 1);
        isa.append::<2>(isa.field(low, 2 * (index % 4) as u32, 3), high)
    }
}
