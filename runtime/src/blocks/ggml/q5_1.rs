//! Q5_1: 5-bit integers, a scale and a minimum per 32. 6 bits.

use super::{Block, Group, half_at, nibbles};

/// f16 scale, f16 minimum, a bit map of the fifth bits, 16 bytes of the low four.
pub struct Q5_1;

impl Block for Q5_1 {
    const WEIGHTS: usize = 32;
    const BYTES: usize = 24;
    const HAS_OFFSETS: bool = true;

    #[inline(always)]
    fn group(block: &[u8], _: usize) -> Group {
        let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        let low = nibbles(&block[8..]);
        let codes = std::array::from_fn(|i| (low[i] | ((high >> i & 1) << 4) as u8) as i8);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [-half_at(block, 2); 2] }
    }
}
