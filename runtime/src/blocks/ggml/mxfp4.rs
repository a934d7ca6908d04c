//! MXFP4: the OCP microscaling format, 4-bit floats with a power of two per 32. 4.25 bits.

use super::{Block, Group, nibbles};

/// The values of e2m1, doubled.
const TABLE: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// One byte of exponent, 16 bytes of codes.
pub struct Mxfp4;

impl Block for Mxfp4 {
    const WEIGHTS: usize = 32;
    const BYTES: usize = 17;
    const HAS_OFFSETS: bool = false;

    #[inline(always)]
    fn group(block: &[u8], _: usize) -> Group {
        // 2^(e - 128): half of the scale, since the values are doubled.
        let bits = match u32::from(block[0]) {
            small @ 0..2 => 0x0020_0000 << small,
            exponent => (exponent - 1) << 23,
        };
        let codes = nibbles(&block[1..]).map(|code| TABLE[usize::from(code & 15)]);
        Group { codes, scales: [f32::from_bits(bits); 2], offsets: [0.0; 2] }
    }
}
