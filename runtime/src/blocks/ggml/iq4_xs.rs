//! IQ4_XS: IQ4_NL's table with a 6-bit scale per 32 and an f16 per 256. 4.25 bits.

use super::iq4_nl::TABLE;
use super::{Block, Group, half_at, nibbles};

/// f16 scale, the high two bits of 8 scales, their low four, 128 bytes of codes.
pub struct Iq4Xs;

impl Block for Iq4Xs {
    const WEIGHTS: usize = 256;
    const BYTES: usize = 136;
    const HAS_OFFSETS: bool = false;

    #[inline(always)]
    fn group(block: &[u8], index: usize) -> Group {
        let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * index) & 3;
        let low = block[4 + index / 2] >> (4 * (index % 2)) & 15;
        let scale = i32::from(low) + 16 * i32::from(high) - 32;
        let codes = nibbles(&block[8 + 16 * index..]).map(|code| TABLE[usize::from(code & 15)]);
        Group { codes, scales: [half_at(block, 0) * scale as f32; 2], offsets: [0.0; 2] }
    }
}
