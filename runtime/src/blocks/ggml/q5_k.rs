//! Q5_K: Q4_K with a fifth bit. 5.5 bits.

use super::k_scales::scale_and_min;
use super::{Block, Group, field, half_at};

/// As Q4_K, with 32 bytes before the codes that hold the fifth bits of a group in each bit.
pub struct Q5K;

impl Block for Q5K {
    const WEIGHTS: usize = 256;
    const BYTES: usize = 176;
    const HAS_OFFSETS: bool = true;

    #[inline(always)]
    fn group(block: &[u8], index: usize) -> Group {
        let (scale, min) = scale_and_min(&block[4..16], index);
        let high = field(&block[16..], index, 1);
        let low = field(&block[48 + 32 * (index / 2)..], 4 * (index % 2), 15);
        Group {
            codes: std::array::from_fn(|i| (low[i] | high[i] << 4) as i8),
            scales: [half_at(block, 0) * f32::from(scale); 2],
            offsets: [half_at(block, 2) * f32::from(min); 2],
        }
    }
}
