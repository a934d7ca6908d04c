//! Q5_0: 5-bit integers less 16, a scale per 32. 5.5 bits.

use super::{Block, Group, half_at, nibbles};

/// f16 scale, a bit map of the fifth bits, 16 bytes of the low four.
pub struct Q5_0;

impl Block for Q5_0 {
    const WEIGHTS: usize = 32;
    const BYTES: usize = 22;
    const HAS_OFFSETS: bool = false;

    #[inline(always)]
    fn group(block: &[u8], _: usize) -> Group {
        let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        let low = nibbles(&block[6..]);
        let codes = std::array::from_fn(|i| (low[i] | ((high >> i & 1) << 4) as u8) as i8 - 16);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [0.0; 2] }
    }
}
