//! Encodes F32, F16 and BF16, rounding to nearest, ties to even.

use half::{bf16, f16};
use vaquita_runtime::blocks::BlockType;

use super::{Distortion, EncodeError, Rows};

/// Encodes a matrix as a floating-point type.
pub(super) fn encode(
    ty: BlockType,
    weights: &dyn Rows,
) -> Result<(Vec<u8>, Distortion), EncodeError> {
    let (rows, cols) = (weights.rows(), weights.cols());
    let bytes = ty.byte_len(rows, cols).ok_or(EncodeError::Shape { ty, rows, cols })?;
    let mut out = Vec::with_capacity(bytes);
    let mut values = vec![0f32; cols];
    let mut distortion = Distortion::default();
    for row in 0..rows {
        weights.read_row(row, &mut values);
        for (col, value) in values.iter().copied().enumerate() {
            if !value.is_finite() {
                return Err(EncodeError::NotFinite { row, col, value });
            }
            let stored = put(ty, value, &mut out);
            if !stored.is_finite() {
                return Err(EncodeError::TooLarge { ty, row, col, value });
            }
            let (value, stored) = (f64::from(value), f64::from(stored));
            distortion.squared_error += (value - stored) * (value - stored);
            distortion.energy += value * value;
        }
    }
    Ok((out, distortion))
}

/// Appends one value and returns the rounded value.
fn put(ty: BlockType, value: f32, out: &mut Vec<u8>) -> f32 {
    match ty {
        BlockType::F16 => {
            let stored = f16::from_f32(value);
            out.extend_from_slice(&stored.to_le_bytes());
            stored.to_f32()
        }
        BlockType::BF16 => {
            let stored = bf16::from_f32(value);
            out.extend_from_slice(&stored.to_le_bytes());
            stored.to_f32()
        }
        _ => {
            out.extend_from_slice(&value.to_le_bytes());
            value
        }
    }
}
