//! IQ3_KS: a table of 8 in two forms, a 5-bit scale per 32 and an f16 per row. 3.1875 bits.

use super::ik::{self, THREE, bit, middle, threes, tile_threes, where_set};
use super::tile::{eight, row_small, small, subarray};
use super::{Block, ByRow, CodeRange, Group, RowScale, TILE_ROWS, TileGroup};
use crate::isa::Isa;

/// A fifth bit of each scale, a bit per group for the form of the table, eight scales' low four
/// bits, 64 bytes of low two bits, 32 of third bits.
pub struct Iq3Ks;

impl Block for Iq3Ks {
    type Bytes = [u8; 102];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Small;
    const ROW_SCALE: RowScale = RowScale::Half;

    #[inline(always)]
    fn group(block: &[u8; 102], index: usize) -> Group {
        let more = 8 * usize::from(bit(block, 1, index));
        let low = block[2 + index % 4] >> (4 * (index / 4)) & 15;
        let scale = low | u8::from(bit(block, 0, index)) << 4;
        let codes = threes(&block[6..], &block[70..], index);
        Group {
            codes: codes.map(|code| THREE[usize::from(code & 7) + more]),
            scales: [f32::from(scale) - 16.0; 2],
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 102]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        let [extra, _] = isa.transpose_eights(subarray::<8, 102>(rows, 0));
        let more = [where_set::<I, 8>(isa, extra, 8), where_set::<I, 12>(isa, extra, 8)];
        for half in 0..2 {
            let codes = tile_threes(isa, rows, 6, half);
            for (index, (group, codes)) in groups.iter_mut().zip(codes).enumerate() {
                let more = more[index / 4][index % 4];
                group.set_codes(isa, half, small(isa, &THREE, ik::added(isa, codes, more)));
            }
        }
    }
}

impl ByRow for Iq3Ks {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 102]; TILE_ROWS], groups: &mut [TileGroup]) {
        let groups = eight(groups);
        let [extra, low] = isa.transpose_eights(subarray::<8, 102>(rows, 0));
        let fives = [where_set::<I, 0>(isa, extra, 16), where_set::<I, 4>(isa, extra, 16)];
        // The low four bits are in bytes 2 to 5.
        let low = [middle(isa, [extra, low], 0), middle(isa, [extra, low], 1)];
        for (index, group) in groups.iter_mut().enumerate() {
            let high = isa.to_f32(isa.byte::<0>(fives[index / 4][index % 4]));
            let scale = isa.add(low[index / 4][index % 4], high);
            group.set_factors(isa, 0, isa.sub(scale, isa.splat(16.0)), isa.splat(0.0));
        }
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 102], index: usize) -> I::U8 {
        let codes = ik::row_threes(isa, block, 6, index);
        let more = 8 * u8::from(bit(block, 1, index));
        row_small(isa, &THREE, isa.add_bytes(codes, isa.splat_bytes(more)))
    }
}
