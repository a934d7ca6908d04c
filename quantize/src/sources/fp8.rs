//! DeepSeek's FP8: e4m3 numbers with one scale per block of a matrix, `weight_scale_inv`.
//!
//! Blocks are 128 x 128 unless `quantization_config.weight_block_size` states otherwise, and are
//! truncated at the right and lower edges.

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

/// Number of blocks along each side of a matrix.
pub(super) fn blocks([rows, cols]: [usize; 2], [block_rows, block_cols]: [usize; 2]) -> [usize; 2] {
    [rows.div_ceil(block_rows), cols.div_ceil(block_cols)]
}

/// Decodes a matrix to row-major weights. `scales` has one scale per block, also row-major.
pub(super) fn dequantize(
    bytes: &[u8],
    shape: [usize; 2],
    scales: &[f32],
    block: [usize; 2],
) -> Vec<f32> {
    let [_, blocks_across] = blocks(shape, block);
    let mut weights = Vec::with_capacity(bytes.len());
    for (row, bytes) in bytes.chunks_exact(shape[1]).enumerate() {
        let scales = &scales[row / block[0] * blocks_across..][..blocks_across];
        for (bytes, scale) in bytes.chunks(block[1]).zip(scales) {
            weights.extend(bytes.iter().map(|byte| VALUES[usize::from(*byte)] * scale));
        }
    }
    weights
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
    fn ragged_blocks_use_the_factor_of_the_block_they_are_in() {
        // 3 x 5 in blocks of 2 x 2: 2 x 3 blocks.
        let weights = dequantize(&[0x38; 15], [3, 5], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 2]);
        assert_eq!(weights[..5], [1.0, 1.0, 2.0, 2.0, 3.0]);
        assert_eq!(weights[5..10], [1.0, 1.0, 2.0, 2.0, 3.0]);
        assert_eq!(weights[10..], [4.0, 4.0, 5.0, 5.0, 6.0]);
    }
}
