//! Numbers of 8 bits: e4m3, and the exponents of ue8m0. Blocks of a matrix that share a scale are
//! truncated at its right and lower edges.

use std::sync::LazyLock;

/// The value of every e4m3 byte (the variant without infinities; 0x7f and 0xff are NaN).
static VALUES: LazyLock<[f32; 256]> =
    LazyLock::new(|| std::array::from_fn(|byte| decode(byte as u8)));

/// Decodes one e4m3 number: sign, 4 bits of exponent with bias 7, 3 bits of mantissa.
fn decode(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The value of an e4m3 byte.
pub(super) fn value(byte: u8) -> f32 {
    VALUES[usize::from(byte)]
}

/// The value of a ue8m0 byte: a power of two from 2^-127 to 2^127, or NaN.
pub(super) fn exponent(byte: u8) -> f32 {
    match byte {
        0 => 2f32.powi(-127),
        255 => f32::NAN,
        byte => f32::from_bits(u32::from(byte) << 23),
    }
}

/// Number of blocks along each side of a matrix.
pub(super) fn blocks([rows, cols]: [usize; 2], [block_rows, block_cols]: [usize; 2]) -> [usize; 2] {
    [rows.div_ceil(block_rows), cols.div_ceil(block_cols)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_has_the_values_of_its_definition() {
        let cases = [
            (0x00, 0.0),
            (0x01, 2f32.powi(-9)),
            (0x07, 7.0 * 2f32.powi(-9)),
            (0x08, 2f32.powi(-6)),
            (0x38, 1.0),
            (0x3c, 1.5),
            (0x7e, 448.0),
            (0xb8, -1.0),
        ];
        for (byte, value) in cases {
            assert_eq!(decode(byte), value, "{byte:#04x}");
        }
        assert!(decode(0x7f).is_nan() && decode(0xff).is_nan());
    }

    #[test]
    fn exponents_are_powers_of_two() {
        let cases = [(0, 2f32.powi(-127)), (1, 2f32.powi(-126)), (127, 1.0), (254, 2f32.powi(127))];
        for (byte, value) in cases {
            assert_eq!(exponent(byte), value, "{byte}");
        }
        assert!(exponent(255).is_nan());
    }

    #[test]
    fn blocks_cover_ragged_edges() {
        assert_eq!(blocks([3, 5], [2, 2]), [2, 3]);
    }
}
