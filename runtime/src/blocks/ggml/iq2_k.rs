//! IQ2_K: a table of 4 in two forms, a 4-bit scale per 16 and an f16 per 256. 2.375 bits.

use super::ik::{self, TWO, bit, of_halves, tile_twos, twos};
use super::tile::{eight, halves, nibble_numbers, row_small, sixteen, small, subarray};
use super::{Block, ByRow, CodeRange, Group, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// f16 scale, a bit per half for the form of the table, 16 scales, 64 bytes of codes.
pub struct Iq2K;

/// The table for lookups.
pub(super) const TABLE: [i8; 16] = {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 8 {
        table[i] = TWO[i];
        i += 1;
    }
    table
};

impl Block for Iq2K {
    type Bytes = [u8; 76];
    const WEIGHTS: usize = 256;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 76], index: usize) -> Group {
        let codes = twos(&block[12..], index);
        let more = [0, 1].map(|half| 4 * usize::from(bit(block, 2, 2 * index + half)));
        let (d, scales) = (half_at(block, 0), block[4 + index]);
        Group {
            codes: std::array::from_fn(|i| TWO[usize::from(codes[i] & 3) + more[i / 16]]),
            scales: [scales & 15, scales >> 4].map(|scale| d * (f32::from(scale) - 8.0)),
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 76]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        let [extra, ..] = sixteen(isa, rows, 0);
        let more = of_halves(isa, extra, 4);
        for half in 0..2 {
            let codes = tile_twos(isa, rows, 12, half);
            for (index, (group, codes)) in groups.iter_mut().zip(codes).enumerate() {
                let more = more[index / 2][2 * (index % 2) + half];
                group.set_codes(isa, half, small(isa, &TABLE, ik::added(isa, codes, more)));
            }
        }
    }
}

impl ByRow for Iq2K {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 76]; TILE_ROWS], groups: &mut [TileGroup]) {
        let groups = eight(groups);
        let d = halves(isa, rows, 0);
        let scales = isa.transpose_eights(subarray::<8, 76>(rows, 4));
        for half in 0..2 {
            let scales =
                [nibble_numbers(isa, scales[0], half), nibble_numbers(isa, scales[1], half)];
            for (group, scale) in groups.iter_mut().zip(scales.as_flattened()) {
                let scale = isa.mul(d, isa.sub(*scale, isa.splat(8.0)));
                group.set_factors(isa, half, scale, isa.splat(0.0));
            }
        }
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 76], index: usize) -> I::U8 {
        let codes = ik::row_twos(isa, block, 12, index);
        let codes = isa.add_bytes(codes, ik::row_more::<I, 4, _>(isa, block, 2, index));
        row_small(isa, &TABLE, codes)
    }
}
