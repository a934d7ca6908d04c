//! Weights by row: all that an encoder needs of its input.

use vaquita_runtime::blocks::Matrix;

/// A matrix whose rows can be read, by several threads at once.
pub trait Rows: Sync {
    /// Outputs.
    fn rows(&self) -> usize;
    /// Inputs.
    fn cols(&self) -> usize;
    /// Reads a row; `out` has `cols` places.
    fn read_row(&self, row: usize, out: &mut [f32]);
}

impl Rows for Matrix {
    fn rows(&self) -> usize {
        self.rows()
    }

    fn cols(&self) -> usize {
        self.cols()
    }

    fn read_row(&self, row: usize, out: &mut [f32]) {
        self.decode_row(row, out);
    }
}

/// Row-major weights in memory, of which the last row may be cut short only by a caller's mistake: it is
/// then not counted.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    cols: usize,
    values: &'a [f32],
}

impl<'a> Slice<'a> {
    /// Takes `values` as rows of `cols` weights.
    pub fn new(cols: usize, values: &'a [f32]) -> Self {
        Self { cols, values }
    }
}

impl Rows for Slice<'_> {
    fn rows(&self) -> usize {
        self.values.len().checked_div(self.cols).unwrap_or(0)
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read_row(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.values[row * self.cols..][..self.cols]);
    }
}
