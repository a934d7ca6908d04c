//! Q6_K: 6-bit integers less 32, an 8-bit scale per 16, an f16 per 256. 6.5625 bits.

use super::{Block, Group, field, half_at};

/// 128 bytes of the low four bits, 64 bytes of the high two, 16 scales, f16 scale of scales.
pub struct Q6K;

impl Block for Q6K {
    const WEIGHTS: usize = 256;
    const BYTES: usize = 210;
    const HAS_OFFSETS: bool = false;

    #[inline(always)]
    fn group(block: &[u8], index: usize) -> Group {
        // Of each half block: four groups, whose low bits are in 64 bytes, high bits in 32.
        let (half, place) = (index / 4, index % 4);
        let low = field(&block[64 * half + 32 * (place % 2)..], 4 * (place / 2), 15);
        let high = field(&block[128 + 32 * half..], 2 * place, 3);
        let d = half_at(block, 208);
        let scale = |which: usize| d * f32::from(block[192 + which] as i8);
        Group {
            codes: std::array::from_fn(|i| (low[i] | high[i] << 4) as i8 - 32),
            scales: [scale(2 * index), scale(2 * index + 1)],
            offsets: [0.0; 2],
        }
    }
}
