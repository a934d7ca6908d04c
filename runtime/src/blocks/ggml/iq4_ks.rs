//! IQ4_KS: IQ4_NL's table in two forms, a 7-bit scale per 32 and an f32 per row. 4.25 bits.

use super::ik::{self, FOUR_MORE, set_byte_scales};
use super::iq4_nl::TABLE;
use super::tile::{bits, eight, looked_up, part, row_looked_up, sixteen};
use super::{Block, ByRow, CodeRange, Group, RowScale, TILE_ROWS, TileGroup, nibbles};
use crate::isa::Isa;

/// Eight scales, whose lowest bits are for the form of the table, 128 bytes of codes.
pub struct Iq4Ks;

impl Block for Iq4Ks {
    type Bytes = [u8; 136];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Signed;
    const ROW_SCALE: RowScale = RowScale::Single;

    #[inline(always)]
    fn group(block: &[u8; 136], index: usize) -> Group {
        let more = if block[index] & 1 == 1 { FOUR_MORE as i8 } else { 0 };
        let codes = nibbles(&block[8 + 16 * index..]);
        Group {
            codes: codes.map(|code| TABLE[usize::from(code & 15)] + more),
            scales: [ik::byte_scale(block[index]); 2],
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 136]; TILE_ROWS], groups: &mut [TileGroup]) {
        let groups = eight(groups);
        let more = set_byte_scales(isa, rows, FOUR_MORE, groups);
        for (index, (group, more)) in groups.iter_mut().zip(more).enumerate() {
            let codes = sixteen(isa, rows, 8 + 16 * index);
            let low = looked_up(isa, &TABLE, bits::<I, 0>(isa, codes, 15));
            group.set_codes(isa, 0, ik::added(isa, low, more));
            let high = looked_up(isa, &TABLE, bits::<I, 4>(isa, codes, 15));
            group.set_codes(isa, 1, ik::added(isa, high, more));
        }
    }
}

impl ByRow for Iq4Ks {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 136]; TILE_ROWS], groups: &mut [TileGroup]) {
        set_byte_scales(isa, rows, 0, eight(groups));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 136], index: usize) -> I::U8 {
        let values = row_looked_up(isa, &TABLE, isa.nibbles(part(block, 8 + 16 * index)));
        isa.add_bytes(values, isa.splat_bytes(FOUR_MORE * (block[index] & 1)))
    }
}
