//! Q2_K: 2-bit integers, a 4-bit scale and minimum per 16, two f16 per 256. 2.625 bits.

use super::tile::{bits, eight, halves, numbers, part, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, field, half_at};
use crate::isa::Isa;

/// 16 bytes of scales and minima, 64 bytes of codes, f16 scale of scales and of minima.
pub struct Q2K;

impl Block for Q2K {
    type Bytes = [u8; 84];
    const WEIGHTS: usize = 256;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::FourBits;

    #[inline(always)]
    fn group(block: &[u8; 84], index: usize) -> Group {
        let (d, min) = (half_at(block, 80), half_at(block, 82));
        let both = [block[2 * index], block[2 * index + 1]];
        Group {
            codes: field(&block[16 + 32 * (index / 4)..], 2 * (index % 4), 3)
                .map(|code| code as i8),
            scales: both.map(|both| d * f32::from(both & 15)),
            offsets: both.map(|both| min * f32::from(both >> 4)),
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 84]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        for (i, four) in groups.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            for half in 0..2 {
                let codes = sixteen(isa, rows, 16 + 32 * i + 16 * half);
                four[0].set_codes(isa, half, bits::<I, 0>(isa, codes, 3));
                four[1].set_codes(isa, half, bits::<I, 2>(isa, codes, 3));
                four[2].set_codes(isa, half, bits::<I, 4>(isa, codes, 3));
                four[3].set_codes(isa, half, bits::<I, 6>(isa, codes, 3));
            }
        }
    }
}

impl ByRow for Q2K {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 84]; TILE_ROWS], groups: &mut [TileGroup]) {
        let groups = eight(groups);
        let (d, min) = (halves(isa, rows, 80), isa.sub(isa.splat(0.0), halves(isa, rows, 82)));
        for (pair, both) in groups.as_chunks_mut::<2>().0.iter_mut().zip(sixteen(isa, rows, 0)) {
            let scales = numbers(isa, isa.shift_and::<0>(both, 15));
            let minima = numbers(isa, isa.shift_and::<4>(both, 15));
            for (i, group) in pair.iter_mut().enumerate() {
                for half in 0..2 {
                    let (scale, minimum) = (scales[2 * i + half], minima[2 * i + half]);
                    group.set_factors(isa, half, isa.mul(d, scale), isa.mul(min, minimum));
                }
            }
        }
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 84], index: usize) -> I::U8 {
        let bytes = isa.load_bytes(part(block, 16 + 32 * (index / 4)));
        isa.field(bytes, 2 * (index % 4) as u32, 3)
    }
}
