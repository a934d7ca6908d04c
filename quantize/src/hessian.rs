//! Second moments of a matrix's inputs, `H = sum of x x^T`, in blocks along the diagonal: what decides how an
//! error in one column can be made good in others.
//!
//! Blocks keep this small: of 2,048 inputs the whole would have 4 million entries, blocks of 64 have 133,000.

/// Blocks of the symmetric matrix of second moments, the upper triangle of each, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hessian {
    cols: usize,
    block: usize,
    sums: Vec<f32>,
}

impl Hessian {
    /// All zero, for `cols` inputs in blocks of `block`; the last block may be smaller.
    pub fn new(cols: usize, block: usize) -> Self {
        let block = block.max(1);
        Self { cols, block, sums: vec![0.0; Self::packed_len(cols, block)] }
    }

    /// Takes packed triangles; `None` where they are not finite, or not as many as they should be.
    pub fn from_packed(cols: usize, block: usize, sums: Vec<f32>) -> Option<Self> {
        let fits = block > 0 && sums.len() == Self::packed_len(cols, block);
        (fits && sums.iter().all(|sum| sum.is_finite())).then_some(Self { cols, block, sums })
    }

    /// Entries that are stored for `cols` inputs in blocks of `block`.
    pub fn packed_len(cols: usize, block: usize) -> usize {
        widths(cols, block).map(|n| n * (n + 1) / 2).sum()
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Inputs of a block.
    pub fn block(&self) -> usize {
        self.block
    }

    /// The triangles.
    pub fn packed(&self) -> &[f32] {
        &self.sums
    }

    /// Adds `factor` times another of the same shape; one of another shape adds nothing.
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

    /// The blocks, each as a full matrix, row-major, and its width.
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

/// The widths of the blocks of `cols` inputs.
fn widths(cols: usize, block: usize) -> impl Iterator<Item = usize> {
    (0..cols).step_by(block.max(1)).map(move |at| block.min(cols - at))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Hessian {
        /// Adds `factor * x x^T` for each row `x` of `rows`; the factor is that of the row's number.
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
