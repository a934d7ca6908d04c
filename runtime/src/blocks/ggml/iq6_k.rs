//! IQ6_K: a table of 64 in two forms, an 8-bit scale per 16 and an f16 per 256. 6.625 bits.

use super::ik::{self, SIX_MORE, bit, of_halves, six, sixes, tile_sixes};
use super::tile::{eight, halves, signed_numbers, sixteen};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// f16 scale, a bit per half for the form of the table, 16 scales, 128 bytes of low four bits, 64 of
/// high two bits.
///
/// ik_llama.cpp's products, and its decoder for GPUs, look codes up in a table of integers, as here.
/// Its decoder for CPUs evaluates the polynomial of which the table has the nearest integers.
pub struct Iq6K;

impl Block for Iq6K {
    type Bytes = [u8; 212];
    const WEIGHTS: usize = 256;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::Signed;

    #[inline(always)]
    fn group(block: &[u8; 212], index: usize) -> Group {
        let codes = sixes(&block[20..], &block[148..], index);
        let more = [0, 1].map(|half| bit(block, 2, 2 * index + half));
        let d = half_at(block, 0);
        Group {
            codes: std::array::from_fn(|i| six(codes[i], more[i / 16])),
            scales: [0, 1].map(|half| d * f32::from(block[4 + 2 * index + half] as i8)),
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 212]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        let [extra, ..] = sixteen(isa, rows, 0);
        let more = of_halves(isa, extra, SIX_MORE);
        for half in 0..2 {
            let values = tile_sixes(isa, rows, 20, half);
            for (index, (group, values)) in groups.iter_mut().zip(values).enumerate() {
                let more = more[index / 2][2 * (index % 2) + half];
                group.set_codes(isa, half, ik::added(isa, values, more));
            }
        }
    }
}

impl ByRow for Iq6K {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 212]; TILE_ROWS], groups: &mut [TileGroup]) {
        let d = halves(isa, rows, 0);
        let pairs = eight(groups).as_chunks_mut::<2>().0.iter_mut();
        for (pair, bytes) in pairs.zip(sixteen(isa, rows, 4)) {
            let scales = signed_numbers(isa, bytes);
            for (at, scale) in scales.into_iter().enumerate() {
                pair[at / 2].set_factors(isa, at % 2, isa.mul(d, scale), isa.splat(0.0));
            }
        }
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 212], index: usize) -> I::U8 {
        let values = ik::row_sixes(isa, block, 20, index);
        isa.add_bytes(values, ik::row_more::<I, SIX_MORE, _>(isa, block, 2, index))
    }
}
