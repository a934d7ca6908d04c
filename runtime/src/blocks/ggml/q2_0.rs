//! Q2_0: 2-bit integers less 1, a scale per 64. 2.25 bits.

use super::tile::{halves, less_one, part, set_scale, sixteen};
use super::{Block, ByRow, CodeRange, GROUP, Group, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// f16 scale, 16 bytes of codes, four neighbours in each.
pub struct Q2_0;

impl Block for Q2_0 {
    type Bytes = [u8; 18];
    const WEIGHTS: usize = 64;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 18], index: usize) -> Group {
        let bytes = &block[2 + 8 * index..];
        let codes =
            std::array::from_fn::<_, GROUP, _>(|i| (bytes[i / 4] >> (2 * (i % 4)) & 3) as i8 - 1);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 18]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let bytes = sixteen(isa, rows, 2);
        for (group, halves) in groups.iter_mut().zip(bytes.as_chunks::<2>().0) {
            for (half, bytes) in halves.iter().enumerate() {
                let codes = [
                    isa.twos::<0>(*bytes),
                    isa.twos::<1>(*bytes),
                    isa.twos::<2>(*bytes),
                    isa.twos::<3>(*bytes),
                ];
                group.set_codes(isa, half, less_one(isa, codes));
            }
        }
    }
}

impl ByRow for Q2_0 {
    const PLUS_ONE: bool = true;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 18]; TILE_ROWS], groups: &mut [TileGroup]) {
        set_scale(isa, halves(isa, rows, 0), groups);
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 18], index: usize) -> I::U8 {
        isa.quarters(part(block, 2 + 8 * index))
    }
}
