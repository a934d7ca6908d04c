//! Lossless encoding: a matrix that has the target type keeps its bytes, and MXFP4 becomes e4.

use vaquita_runtime::blocks::coded::{Packer, encode_scale};
use vaquita_runtime::blocks::{BlockType, GROUP, Matrix};

use super::{Distortion, EncodeError, Rows, tables};

/// Bytes of an MXFP4 group: an exponent, then two codes per byte.
const MXFP4_GROUP: usize = 17;
/// e4's largest group scale that is a power of two is 1, its smallest 2^-15.
const SCALE_RANGE: u8 = 15;
/// Exponent from which MXFP4's largest value overflows single precision.
const MXFP4_OVERFLOW: u8 = 253;

/// Encodes the matrix in a type that holds exactly the same weights; `None` if that requires
/// rounding.
pub fn exact(ty: BlockType, matrix: &Matrix) -> Option<Vec<u8>> {
    match (matrix.block_type(), ty) {
        (from, to) if from == to => Some(matrix.data().to_vec()),
        (BlockType::Mxfp4, BlockType::E4) if holds_mxfp4(matrix) => mxfp4_to_e4(matrix),
        _ => None,
    }
}

/// Whether e4 holds an MXFP4 matrix exactly, that is, whether the scales of each row lie within the
/// range of e4's.
pub fn holds_mxfp4(matrix: &Matrix) -> bool {
    matrix.block_type() == BlockType::Mxfp4 && {
        let mut rows = mxfp4_rows(matrix);
        rows.all(|row| {
            let (least, most) = exponents(row);
            most < MXFP4_OVERFLOW && most.saturating_sub(least) <= SCALE_RANGE
        })
    }
}

/// The distortion of lossless encoding. Rejects weights that are not finite.
pub fn unchanged(weights: &dyn Rows) -> Result<Distortion, EncodeError> {
    let mut values = vec![0f32; weights.cols()];
    let mut energy = 0.0;
    for row in 0..weights.rows() {
        weights.read_row(row, &mut values);
        if let Some(col) = values.iter().position(|value| !value.is_finite()) {
            return Err(EncodeError::NotFinite { row, col, value: values[col] });
        }
        energy += values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>();
    }
    Ok(Distortion { squared_error: 0.0, energy })
}

fn mxfp4_rows(matrix: &Matrix) -> std::slice::ChunksExact<'_, u8> {
    matrix.data().chunks_exact(matrix.cols() / GROUP * MXFP4_GROUP)
}

/// Smallest and largest exponent among the nonzero groups of a row; the largest is 0 if all groups
/// are zero.
fn exponents(row: &[u8]) -> (u8, u8) {
    let groups = row.chunks_exact(MXFP4_GROUP);
    let counts = groups.filter(|group| group[1..].iter().any(|codes| codes & 0x77 != 0));
    counts.fold((u8::MAX, 0), |(least, most), group| (least.min(group[0]), most.max(group[0])))
}

/// The codes are those of e4's table of MXFP4 values, which are four times as large.
fn mxfp4_to_e4(matrix: &Matrix) -> Option<Vec<u8>> {
    const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
    let holds = |table: &&tables::Table| DOUBLED.iter().all(|x| table.values().contains(&(4 * x)));
    let table = tables::candidates(BlockType::E4).iter().find(holds)?;
    let place = |x: i8| table.values().iter().position(|entry| *entry == 4 * x);
    let mut codes_of = [0u8; 16];
    for (code, doubled) in codes_of.iter_mut().zip(DOUBLED) {
        *code = place(doubled)? as u8;
    }
    let mut packer = Packer::new(BlockType::E4, matrix.rows(), matrix.cols(), &table.entries)?;
    for (number, row) in mxfp4_rows(matrix).enumerate() {
        let (_, most) = exponents(row);
        // A group's exponent e means 2^(e - 128) for doubled values, hence 2^(e - 130) for e4's.
        let scale = f64::from(i32::from(most) - 130).exp2() as f32;
        let (mut scales, mut codes) = (Vec::new(), Vec::with_capacity(matrix.cols()));
        for group in row.chunks_exact(MXFP4_GROUP) {
            let below = most.saturating_sub(group[0]).min(SCALE_RANGE);
            scales.push(encode_scale(f32::from(below).exp2().recip()));
            let half =
                |shift: u8| group[1..].iter().map(move |pair| usize::from(pair >> shift & 15));
            codes.extend(half(0).chain(half(4)).map(|code| codes_of[code]));
        }
        packer.set_row(number, scale, &scales, &codes);
    }
    Some(packer.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of MXFP4 with these exponents and all kinds of codes.
    fn mxfp4(rows: &[&[u8]]) -> Matrix {
        let groups = rows.iter().copied().flatten().enumerate();
        let bytes = groups.flat_map(|(i, exponent)| {
            let codes = (0..16u8).map(move |j| j.wrapping_mul(17).wrapping_add(i as u8 * 41));
            std::iter::once(*exponent).chain(codes)
        });
        let bytes: Vec<u8> = bytes.collect();
        let cols = rows[0].len() * GROUP;
        Matrix::new(BlockType::Mxfp4, rows.len(), cols, bytes.into()).unwrap()
    }

    fn in_e4(matrix: &Matrix) -> Option<Vec<f32>> {
        let bytes = exact(BlockType::E4, matrix)?;
        let (rows, cols) = (matrix.rows(), matrix.cols());
        Some(Matrix::new(BlockType::E4, rows, cols, bytes.into()).unwrap().decode())
    }

    #[test]
    fn mxfp4_becomes_e4_without_loss_where_a_rows_scales_are_near_each_other() {
        let matrix = mxfp4(&[&[120, 127, 128], &[0, 15, 1], &[252, 237, 240], &[3, 3, 3]]);
        assert_eq!(in_e4(&matrix).unwrap(), matrix.decode());
    }

    #[test]
    fn what_e4_cannot_hold_stays_mxfp4() {
        for row in [[100, 116, 100], [0, 0, 253], [255, 255, 255]] {
            let matrix = mxfp4(&[&[127, 127, 127], &row]);
            assert!(exact(BlockType::E4, &matrix).is_none(), "{row:?}");
            assert_eq!(exact(BlockType::Mxfp4, &matrix).unwrap(), matrix.data());
        }
    }

    #[test]
    fn the_scale_of_a_group_of_zeros_does_not_matter() {
        let zeros = [&[0u8][..], &[0x88; 16], &[200], &[0x21; 16]].concat();
        let matrix = Matrix::new(BlockType::Mxfp4, 1, 64, zeros.into()).unwrap();
        assert_eq!(in_e4(&matrix).unwrap(), matrix.decode());
    }
}
