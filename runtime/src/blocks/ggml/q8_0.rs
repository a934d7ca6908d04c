//! Q8_0: 8-bit integers, a scale per 32. 8.5 bits.

use super::{Block, Group, half_at};

/// f16 scale, 32 integers.
pub struct Q8_0;

impl Block for Q8_0 {
    const WEIGHTS: usize = 32;
    const BYTES: usize = 34;
    const HAS_OFFSETS: bool = false;

    #[inline(always)]
    fn group(block: &[u8], _: usize) -> Group {
        let codes = std::array::from_fn(|i| block[2 + i] as i8);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [0.0; 2] }
    }
}
