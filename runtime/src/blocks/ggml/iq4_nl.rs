//! IQ4_NL: codes into a table of 16, a scale per 32. 4.5 bits.

use super::{Block, Group, half_at, nibbles};

/// The values that codes stand for.
pub(super) const TABLE: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// f16 scale, 16 bytes of codes.
pub struct Iq4Nl;

impl Block for Iq4Nl {
    const WEIGHTS: usize = 32;
    const BYTES: usize = 18;
    const HAS_OFFSETS: bool = false;

    #[inline(always)]
    fn group(block: &[u8], _: usize) -> Group {
        let codes = nibbles(&block[2..]).map(|code| TABLE[usize::from(code & 15)]);
        Group { codes, scales: [half_at(block, 0); 2], offsets: [0.0; 2] }
    }
}
