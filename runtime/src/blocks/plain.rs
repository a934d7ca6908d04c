//! F32, F16 and BF16: row-major little-endian numbers, as checkpoints store them.

use half::{bf16, f16};

use super::{BlockType, Matrix};

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
