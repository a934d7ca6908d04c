//! IQ2_KS: a table of 4 in two forms, a 5-bit scale per 32 and an f16 per row. 2.1875 bits.

use super::ik::{self, TWO, bit, middle, tile_twos, twos, where_set};
use super::iq2_k::TABLE;
use super::tile::{eight, row_small, small, subarray};
use super::{Block, ByRow, CodeRange, Group, RowScale, TILE_ROWS, TileGroup};
use crate::isa::Isa;

/// A bit per group for the form of the table, a fifth bit of each scale, eight scales' low four
/// bits, 64 bytes of codes.
pub struct Iq2Ks;

impl Block for Iq2Ks {
    type Bytes = [u8; 70];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Small;
    const ROW_SCALE: RowScale = RowScale::Half;

    #[inline(always)]
    fn group(block: &[u8; 70], index: usize) -> Group {
        let more = 4 * usize::from(bit(block, 0, index));
        let low = block[2 + index / 2] >> (4 * (index % 2)) & 15;
        let scale = low | u8::from(bit(block, 1, index)) << 4;
        Group {
            codes: twos(&block[6..], index).map(|code| TWO[usize::from(code & 3) + more]),
            scales: [f32::from(scale) - 16.0; 2],
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 70]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let groups = eight(groups);
        let [extra, _] = isa.transpose_eights(subarray::<8, 70>(rows, 0));
        let more = [where_set::<I, 0>(isa, extra, 4), where_set::<I, 4>(isa, extra, 4)];
        for half in 0..2 {
            let codes = tile_twos(isa, rows, 6, half);
            for (index, (group, codes)) in groups.iter_mut().zip(codes).enumerate() {
                let more = more[index / 4][index % 4];
                group.set_codes(isa, half, small(isa, &TABLE, ik::added(isa, codes, more)));
            }
        }
    }
}

impl ByRow for Iq2Ks {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 70]; TILE_ROWS], groups: &mut [TileGroup]) {
        let groups = eight(groups);
        let [extra, low] = isa.transpose_eights(subarray::<8, 70>(rows, 0));
        let fives = [where_set::<I, 8>(isa, extra, 16), where_set::<I, 12>(isa, extra, 16)];
        // The low four bits are in bytes 2 to 5.
        let low = [middle(isa, [extra, low], 0), middle(isa, [extra, low], 1)];
        for (index, group) in groups.iter_mut().enumerate() {
            let high = isa.to_f32(isa.byte::<0>(fives[index / 4][index % 4]));
            let scale = isa.add(low[index % 2][index / 2], high);
            group.set_factors(isa, 0, isa.sub(scale, isa.splat(16.0)), isa.splat(0.0));
        }
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 70], index: usize) -> I::U8 {
        let codes = ik::row_twos(isa, block, 6, index);
        let more = 4 * u8::from(bit(block, 0, index));
        row_small(isa, &TABLE, isa.add_bytes(codes, isa.splat_bytes(more)))
    }
}
