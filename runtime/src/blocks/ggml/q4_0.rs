//! Q4_0: 4-bit integers less 8, a scale per 32. 4.5 bits.

use super::{Block, Group, half_at, nibbles};

/// f16 scale, 16 bytes of codes: the low halves are the first 16 weights.
pub struct Q4_0;

impl Block for Q4_0 {
    const WEIGHTS: usize = 32;
    const BYTES: usize = 18;
    const HAS_OFFSETS: bool = false;

    #[inline(always)]
    fn group(block: &[u8], _: usize) -> Group {
        let codes = nibbles(&block[2..]).map(|code| code as i8 - 8);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [0.0; 2] }
    }
}
