//! IQ5_KS: a table of 32 in two forms, a 7-bit scale per 32 and an f32 per row. 5.25 bits.

use super::ik::{self, FIVE_MORE, five, fives, set_byte_scales, tile_fives};
use super::tile::eight;
use super::{Block, ByRow, CodeRange, Group, RowScale, TILE_ROWS, TileGroup};
use crate::isa::Isa;

/// Eight scales, whose lowest bits are for the form of the table, 128 bytes of low four bits, 32 of
/// fifth bits.
pub struct Iq5Ks;

impl Block for Iq5Ks {
    type Bytes = [u8; 168];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Signed;
    const ROW_SCALE: RowScale = RowScale::Single;

    #[inline(always)]
    fn group(block: &[u8; 168], index: usize) -> Group {
        let more = block[index] & 1 == 1;
        Group {
            codes: fives(&block[8..], &block[136..], index).map(|code| five(code, more)),
            scales: [ik::byte_scale(block[index]); 2],
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 168]; TILE_ROWS], groups: &mut [TileGroup]) {
        let groups = eight(groups);
        let more = set_byte_scales(isa, rows, FIVE_MORE, groups);
        for half in 0..2 {
            let values = tile_fives(isa, rows, 8, half);
            for ((group, values), more) in groups.iter_mut().zip(values).zip(more) {
                group.set_codes(isa, half, ik::added(isa, values, more));
            }
        }
    }
}

impl ByRow for Iq5Ks {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 168]; TILE_ROWS], groups: &mut [TileGroup]) {
        set_byte_scales(isa, rows, 0, eight(groups));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 168], index: usize) -> I::U8 {
        let values = ik::row_fives(isa, block, 8, index);
        isa.add_bytes(values, isa.splat_bytes(FIVE_MORE * (block[index] & 1)))
    }
}
