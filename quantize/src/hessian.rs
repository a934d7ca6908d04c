//! Second moments of a matrix's inputs, `H = sum of x x^T`, in blocks along the diagonal. They
//! determine how an error in one column can be compensated in others.
//!
//! Blocks keep this small: for 2,048 inputs, the full matrix would have 4 million entries; blocks
//! of 64 have 133,000.

/// Diagonal blocks of the symmetric matrix of second moments, each as a packed upper triangle in
/// row order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hessian {
    cols: usize,
    block: usize,
    sums: Vec<f32>,
}

impl Hessian {
    /// Zeros for `cols` inputs in blocks of `block`; the last block may be smaller.
    pub fn new(cols: usize, block: usize) -> Self {
        let block = block.max(1);
        Self { cols, block, sums: vec![0.0; Self::packed_len(cols, block)] }
    }

    /// From packed triangles; `None` if they are not finite or have the wrong length.
    pub fn from_packed(cols: usize, block: usize, sums: Vec<f32>) -> Option<Self> {
        let fits = block > 0 && sums.len() == Self::packed_len(cols, block);
        (fits && sums.iter().all(|sum| sum.is_finite())).then_some(Self { cols, block, sums })
    }

    /// Number of stored entries for `cols` inputs in blocks of `block`.
    pub fn packed_len(cols: usize, block: usize) -> usize {
        widths(cols, block).map(|n| n * (n + 1) / 2).sum()
    }

    /// Number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Inputs per block.
    pub fn block(&self) -> usize {
        self.block
    }

    /// The packed triangles.
    pub fn packed(&self) -> &[f32] {
        &self.sums
    }

    /// Adds `factor` times another Hessian; no effect if its shape differs.
    pub fn merge(&mut self, other: &Self, factor: f32) {
        if self.sums.is_empty() {
            *self = Self { sums: vec![0.0; other.sums.len()], ..*other };
        }
        if (self.cols, self.block) == (other.cols, other.block) {
            for (sum, other) in self.sums.iter_mut().zip(&other.sums) {
                *sum += factor * other;
            }
        }
    }

    /// The blocks as full row-major matrices, with their widths.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (Vec<f64>, usize)> + '_ {
        let mut packed = self.sums.iter();
        widths(self.cols, self.block).map(move |n| {
            let mut full = vec![0.0; n * n];
            for i in 0..n {
                for (j, sum) in (i..n).zip(&mut packed) {
                    full[i * n + j] = f64::from(*sum);
                    full[j * n + i] = f64::from(*sum);
                }
            }
            (full, n)
        })
    }
}

/// Widths of the blocks of `cols` inputs.
fn widths(cols: usize, block: usize) -> impl Iterator<Item = usize> {
    (0..cols).step_by(block.max(1)).map(move |at| block.min(cols - at))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Hessian {
        /// Adds `factor(i) * x x^T` for each row `x` of `rows`, with `i` the index of the row.
        pub fn add_rows(&mut self, rows: &[f32], factor: impl Fn(usize) -> f32) {
            for (row, x) in rows.chunks_exact(self.cols).enumerate() {
                let mut sums = self.sums.iter_mut();
                for block in x.chunks(self.block) {
                    for i in 0..block.len() {
                        for (value, sum) in block[i..].iter().zip(&mut sums) {
                            *sum += block[i] * factor(row) * value;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_sum_of_products_computed_by_hand() {
        let mut hessian = Hessian::new(3, 2);
        hessian.add_rows(&[1.0, 2.0, 3.0, 1.0, 0.0, 1.0], |row| [2.0, 1.0][row]);
        assert_eq!(hessian.packed(), [3.0, 4.0, 8.0, 19.0]);
        let blocks: Vec<_> = hessian.blocks().collect();
        assert_eq!(blocks, [(vec![3.0, 4.0, 4.0, 8.0], 2), (vec![19.0], 1)]);

        let mut sum = Hessian::default();
        sum.merge(&hessian, 1.0);
        sum.merge(&hessian, 0.5);
        assert_eq!(sum.packed(), [4.5, 6.0, 12.0, 28.5]);
    }

    #[test]
    fn packed_triangles_are_checked() {
        assert!(Hessian::from_packed(3, 2, vec![1.0; 4]).is_some());
        assert!(Hessian::from_packed(3, 2, vec![1.0; 5]).is_none());
        assert!(Hessian::from_packed(3, 0, vec![]).is_none());
        assert!(Hessian::from_packed(3, 2, vec![1.0, f32::NAN, 1.0, 1.0]).is_none());
    }
}
