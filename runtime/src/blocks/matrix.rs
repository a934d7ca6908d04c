//! A matrix of weights: block type, shape and bytes.

use super::{BlockType, coded, ggml, plain};
use crate::bytes::Bytes;

/// Error of interpreting bytes as a matrix.
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
    /// The number of bytes does not match type and shape.
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
    /// An entry of the value table could overflow kernels' sums.
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
    /// Interprets `data` as a matrix of type `ty`.
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

    /// A matrix of F32 weights from row-major values.
    pub fn from_f32(rows: usize, cols: usize, values: &[f32]) -> Result<Self, MatrixError> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(BlockType::F32, rows, cols, bytes.into())
    }

    /// Block type.
    pub fn block_type(&self) -> BlockType {
        self.ty
    }

    /// Number of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bytes, in the layout of the block type.
    #[inline]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Advises that the weights are not needed soon: see [`Bytes::release`].
    pub fn release(&self) {
        self.data.release();
    }

    /// Decodes one row into `out`, which has `cols` elements.
    ///
    /// # Panics
    /// Panics if `row` is out of range or `out` has another length.
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

    /// Decodes all weights, row-major.
    pub fn decode(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.cols];
        for (row, out) in values.chunks_exact_mut(self.cols).enumerate() {
            self.decode_row(row, out);
        }
        values
    }
}
