//! Q3_K: 3-bit integers less 4, a 6-bit scale per 16, an f16 per 256. 3.4375 bits.

use super::{Block, Group, field, half_at};

/// 32 bytes of third bits, 64 bytes of the low two, 12 bytes of scales, f16 scale of scales.
pub struct Q3K;

impl Block for Q3K {
    const WEIGHTS: usize = 256;
    const BYTES: usize = 110;
    const HAS_OFFSETS: bool = false;

    #[inline(always)]
    fn group(block: &[u8], index: usize) -> Group {
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
            // A third bit that is set takes nothing away.
            codes: std::array::from_fn(|i| (low[i] + (high[i] << 2)) as i8 - 4),
            scales: [scale(2 * index), scale(2 * index + 1)],
            offsets: [0.0; 2],
        }
    }
}
