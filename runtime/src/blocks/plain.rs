//! F32, F16 and BF16: row-major little-endian numbers, as checkpoints store them.

use half::{bf16, f16};

use super::{BlockType, Matrix};

/// Converts half to single precision. The `half` crate checks for a hardware instruction on each
/// call and includes a software fallback, which is too much code for kernels to inline.
#[inline(always)]
pub(super) fn half_to_f32(half: u16) -> f32 {
    let (sign, magnitude) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff) << 13);
    // Exponents are 112 less than an f32's; infinities and NaN have all exponent bits set.
    let value = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let finite = half & 0x7c00 != 0x7c00;
    f32::from_bits(sign | if finite { value.to_bits() } else { magnitude | 0x7f80_0000 })
}

/// Decodes one row of a plain matrix.
pub(super) fn decode_row(matrix: &Matrix, row: usize, out: &mut [f32]) {
    let cols = matrix.cols();
    match matrix.block_type() {
        BlockType::F32 => {
            let bytes = &matrix.data()[row * cols * 4..][..cols * 4];
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        BlockType::F16 => {
            let bytes = &matrix.data()[row * cols * 2..][..cols * 2];
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        BlockType::BF16 => {
            let bytes = &matrix.data()[row * cols * 2..][..cols * 2];
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
        other => unreachable!("{other} is no plain type"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (half_to_f32(bits), f16::from_bits(bits).to_f32());
            assert!(
                ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(),
                "{bits:#x}"
            );
        }
    }
}
