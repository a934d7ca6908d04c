//! IQ4_KSS: IQ4_KS in 4 bits: codes that differ in an even number of bits, which leaves room for the
//! scales. An f32 per row.

use super::ik::{self, FOUR_MORE, set_scales};
use super::iq4_nl::TABLE;
use super::tile::{bits, eight, looked_up, row_looked_up};
use super::{Block, ByRow, CodeRange, Group, RowScale, TILE_ROWS, TileGroup, nibbles};
use crate::isa::Isa;

/// 64 words of 16 bits. The lowest bits of a group's eight are its scale and the form of its table;
/// each other bit of a code is the difference of a bit and the one above it.
pub struct Iq4Kss;

/// The codes of a group, in nibbles, and the byte of its scale.
#[inline(always)]
fn unpacked(block: &[u8; 128], index: usize) -> ([u8; 16], u8) {
    const LOWEST: u64 = 0x0001_0001_0001_0001;
    let words = block[16 * index..][..16].as_chunks::<8>().0;
    let mut codes = [0; 16];
    let mut scale = 0;
    for (four, (words, codes)) in words.iter().zip(codes.as_chunks_mut::<8>().0).enumerate() {
        let words = u64::from_le_bytes(*words);
        // The product adds the four lowest bits at bits 48 to 51.
        let lowest = (words & LOWEST).wrapping_mul(0x0001_0002_0004_0008) >> 48 & 15;
        scale |= (lowest as u8) << (4 * four);
        let above = words & !LOWEST;
        *codes = (above ^ (above >> 1 & 0x7fff_7fff_7fff_7fff)).to_le_bytes();
    }
    (codes, scale)
}

impl Block for Iq4Kss {
    type Bytes = [u8; 128];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Signed;
    const ROW_SCALE: RowScale = RowScale::Single;

    #[inline(always)]
    fn group(block: &[u8; 128], index: usize) -> Group {
        let (codes, scale) = unpacked(block, index);
        let more = if scale & 1 == 1 { FOUR_MORE as i8 } else { 0 };
        Group {
            codes: nibbles(&codes).map(|code| TABLE[usize::from(code & 15)] + more),
            scales: [ik::byte_scale(scale); 2],
            offsets: [0.0; 2],
        }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 128]; TILE_ROWS], groups: &mut [TileGroup]) {
        let groups = eight(groups);
        let mut codes = [[[0; 16]; TILE_ROWS]; 8];
        let mut scales = [[0; 8]; TILE_ROWS];
        for (row, (block, scales)) in rows.into_iter().zip(&mut scales).enumerate() {
            for (index, (codes, scale)) in codes.iter_mut().zip(scales).enumerate() {
                (codes[row], *scale) = unpacked(block, index);
            }
        }
        let more = set_scales(isa, isa.transpose_eights(scales.each_ref()), FOUR_MORE, groups);
        for ((group, codes), more) in groups.iter_mut().zip(&codes).zip(more) {
            let codes = isa.transpose(codes.each_ref());
            let low = looked_up(isa, &TABLE, bits::<I, 0>(isa, codes, 15));
            group.set_codes(isa, 0, ik::added(isa, low, more));
            let high = looked_up(isa, &TABLE, bits::<I, 4>(isa, codes, 15));
            group.set_codes(isa, 1, ik::added(isa, high, more));
        }
    }
}

impl ByRow for Iq4Kss {
    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 128]; TILE_ROWS], groups: &mut [TileGroup]) {
        let mut scales = [[0; 8]; TILE_ROWS];
        for (block, scales) in rows.into_iter().zip(&mut scales) {
            for (index, scale) in scales.iter_mut().enumerate() {
                *scale = unpacked(block, index).1;
            }
        }
        set_scales(isa, isa.transpose_eights(scales.each_ref()), 0, eight(groups));
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 128], index: usize) -> I::U8 {
        let (codes, scale) = unpacked(block, index);
        let values = row_looked_up(isa, &TABLE, isa.nibbles(&codes));
        isa.add_bytes(values, isa.splat_bytes(FOUR_MORE * (scale & 1)))
    }
}
