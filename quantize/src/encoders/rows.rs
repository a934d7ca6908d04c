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

/// Row-major weights in memory.
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

/// Every so many rows of a matrix: enough to judge it by.
pub struct Sample<'a> {
    inner: &'a dyn Rows,
    step: usize,
}

impl<'a> Sample<'a> {
    /// At most `rows` rows, evenly spread.
    pub fn new(inner: &'a dyn Rows, rows: usize) -> Self {
        Self { inner, step: inner.rows().div_ceil(rows.max(1)).max(1) }
    }
}

impl Rows for Sample<'_> {
    fn rows(&self) -> usize {
        self.inner.rows().div_ceil(self.step)
    }

    fn cols(&self) -> usize {
        self.inner.cols()
    }

    fn read_row(&self, row: usize, out: &mut [f32]) {
        self.inner.read_row(row * self.step, out);
    }
}
