//! Q4_1: 4-bit integers, a scale and a minimum per 32. 5 bits.

use super::{Block, Group, half_at, nibbles};

/// f16 scale, f16 minimum, 16 bytes of codes: the low halves are the first 16 weights.
pub struct Q4_1;

impl Block for Q4_1 {
    const WEIGHTS: usize = 32;
    const BYTES: usize = 20;
    const HAS_OFFSETS: bool = true;

    #[inline(always)]
    fn group(block: &[u8], _: usize) -> Group {
        let codes = nibbles(&block[4..]).map(|code| code as i8);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [-half_at(block, 2); 2] }
    }
}
