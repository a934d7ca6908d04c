//! Q4_K: 4-bit integers, a 6-bit scale and minimum per 32, two f16 per 256. 4.5 bits.

use super::k_scales::scale_and_min;
use super::{Block, Group, field, half_at};

/// f16 scale of scales and of minima, 12 bytes of both, 128 bytes of codes: the low halves of 32 bytes are one
/// group, the high halves the next.
pub struct Q4K;

impl Block for Q4K {
    const WEIGHTS: usize = 256;
    const BYTES: usize = 144;
    const HAS_OFFSETS: bool = true;

    #[inline(always)]
    fn group(block: &[u8], index: usize) -> Group {
        let (scale, min) = scale_and_min(&block[4..16], index);
        let codes = field(&block[16 + 32 * (index / 2)..], 4 * (index % 2), 15);
        Group {
            codes: codes.map(|code| code as i8),
            scales: [half_at(block, 0) * f32::from(scale); 2],
            offsets: [half_at(block, 2) * f32::from(min); 2],
        }
    }
}
