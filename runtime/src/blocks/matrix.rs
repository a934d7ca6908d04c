//! A matrix of weights: a block type, a shape and the bytes.

use super::{BlockType, coded, ggml, plain};
use crate::bytes::Bytes;

/// Why bytes are not the matrix they are said to be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MatrixError {
    /// The type cannot hold the shape.
    #[error(
        "{ty} cannot hold {rows} x {cols} weights: columns must be a multiple of 32 (256 for ggml's K types), and the size must fit memory"
    )]
    Shape {
        /// The block type.
        ty: BlockType,
        /// Output rows.
        rows: usize,
        /// Input columns.
        cols: usize,
    },
    /// The number of bytes is not what type and shape need.
    #[error("{rows} x {cols} weights of {ty} take {expected} bytes, found {found}")]
    Extent {
        /// The block type.
        ty: BlockType,
        /// Output rows.
        rows: usize,
        /// Input columns.
        cols: usize,
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// An entry of the value table is beyond what kernels can add without overflow.
    #[error("the value table of a {ty} matrix holds {found}; entries lie between -64 and 64")]
    Table {
        /// The block type.
        ty: BlockType,
        /// The entry.
        found: i8,
    },
}

/// Weights of a linear map, `rows` outputs by `cols` inputs, checked against their bytes.
#[derive(Clone, Debug)]
pub struct Matrix {
    ty: BlockType,
    rows: usize,
    cols: usize,
    data: Bytes,
}

impl Matrix {
    /// Takes `data` as a matrix of `ty`.
    pub fn new(ty: BlockType, rows: usize, cols: usize, data: Bytes) -> Result<Self, MatrixError> {
        let expected = ty.byte_len(rows, cols).ok_or(MatrixError::Shape { ty, rows, cols })?;
        if data.len() != expected {
            return Err(MatrixError::Extent { ty, rows, cols, expected, found: data.len() });
        }
        if ty.is_coded() {
            coded::check_table(ty, &data)?;
        }
        Ok(Self { ty, rows, cols, data })
    }

    /// A matrix of F32 weights from their values, row-major.
    pub fn from_f32(rows: usize, cols: usize, values: &[f32]) -> Result<Self, MatrixError> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(BlockType::F32, rows, cols, bytes.into())
    }

    /// The block type.
    pub fn block_type(&self) -> BlockType {
        self.ty
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bytes, laid out as the block type says.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Says that the weights are not needed soon: see [`Bytes::release`].
    pub fn release(&self) {
        self.data.release();
    }

    /// Decodes one row into `out`, which has `cols` places.
    ///
    /// # Panics
    /// Where `row` is not a row or `out` has another length.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {}", self.rows);
        if self.ty.is_coded() {
            coded::decode_row(self, row, out);
        } else if self.ty.is_plain() {
            plain::decode_row(self, row, out);
        } else {
            ggml::decode_row(self, row, out);
        }
    }

    /// All weights, decoded, row-major.
    pub fn decode(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.cols];
        for (row, out) in values.chunks_exact_mut(self.cols).enumerate() {
            self.decode_row(row, out);
        }
        values
    }
}
