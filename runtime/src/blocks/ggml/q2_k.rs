//! Q2_K: 2-bit integers, a 4-bit scale and minimum per 16, two f16 per 256. 2.625 bits.

use super::{Block, Group, field, half_at};

/// 16 bytes of scales and minima, 64 bytes of codes, f16 scale of scales and of minima.
pub struct Q2K;

impl Block for Q2K {
    const WEIGHTS: usize = 256;
    const BYTES: usize = 84;
    const HAS_OFFSETS: bool = true;

    #[inline(always)]
    fn group(block: &[u8], index: usize) -> Group {
        let (d, min) = (half_at(block, 80), half_at(block, 82));
        let both = [block[2 * index], block[2 * index + 1]];
        Group {
            codes: field(&block[16 + 32 * (index / 4)..], 2 * (index % 4), 3)
                .map(|code| code as i8),
            scales: both.map(|both| d * f32::from(both & 15)),
            offsets: both.map(|both| min * f32::from(both >> 4)),
        }
    }
}
