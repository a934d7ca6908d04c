//! Weights by row, the input of an encoder.

use vaquita_runtime::blocks::Matrix;

/// A matrix whose rows several threads can read at once.
pub trait Rows: Sync {
    /// Number of outputs.
    fn rows(&self) -> usize;
    /// Number of inputs.
    fn cols(&self) -> usize;
    /// Reads a row into `out`, which has `cols` elements.
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
    /// A matrix of `values` with rows of `cols` weights.
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

/// Evenly spaced rows of a matrix, as a sample of it.
pub struct Sample<'a> {
    inner: &'a dyn Rows,
    step: usize,
}

impl<'a> Sample<'a> {
    /// At most `rows` evenly spaced rows.
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
