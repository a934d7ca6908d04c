//! Error feedback: the rounding error of a weight is compensated by later weights.
//!
//! GPTQ (arXiv 2210.17323) in the form of LDLQ (QuIP, arXiv 2307.13304, section 3): with the second
//! moments of the inputs factored as `H = U D U^T`, `U` unit upper triangular, the error `e` of a
//! row costs
//!
//! ```text
//! e H e^T = sum over k of D_k (e_k + sum over i < k of e_i U_ik)^2
//! ```
//!
//! so that column k is best rounded toward `w_k + sum of e_i U_ik`, with `e_i` the errors so far.
//! The scale of a group is chosen when its first column is reached, with `D` as the importance of
//! its columns. The inputs are those of the unquantized model. [`super::ldlq`] quantizes by these
//! factors.

use std::ops::Range;

use vaquita_runtime::blocks::GROUP;

use crate::hessian::Hessian;

/// Damping relative to the mean of the diagonal: regularizes against overfitting the calibration
/// text.
const DAMPING: f64 = 0.01;

/// Factors of a Hessian.
#[derive(Clone, Debug)]
pub struct Feedback {
    block: usize,
    /// `D`, one entry per column.
    importance: Vec<f32>,
    /// `U^T`, block by block, as full row-major matrices: the row of a column has the factors of
    /// all columns before it.
    u: Vec<f32>,
    /// The damped `H`, in the same format.
    products: Vec<f32>,
    /// Factors of the diagonal part of `H` of each group; empty if groups straddle blocks.
    within: Vec<Factors>,
}

/// Factors of the second moments of one group's inputs alone.
#[derive(Clone, Debug)]
pub(super) struct Factors {
    /// `D`.
    pub importance: [f32; GROUP],
    /// `U`, by column.
    pub u: Triangular,
}

/// Factors within a group: for each column those of the columns before it, and zeros.
pub(super) type Triangular = Box<[[f32; GROUP]; GROUP]>;

impl Factors {
    fn new(block: &[f64], n: usize, first: usize, least: f64) -> Self {
        let rows = (first..first + GROUP).flat_map(|i| &block[i * n + first..][..GROUP]);
        let mut own: Vec<f64> = rows.copied().collect();
        let (d, u) = factor(own.clone(), GROUP, least).unwrap_or_else(|| without(&mut own, GROUP));
        let importance = std::array::from_fn(|i| d[i] as f32);
        let before = |k: usize, i: usize| if i < k { u[i * GROUP + k] as f32 } else { 0.0 };
        let u = Box::new(std::array::from_fn(|k| std::array::from_fn(|i| before(k, i))));
        Self { importance, u }
    }
}

impl Feedback {
    /// Factors a Hessian. A block without factors (not positive definite despite damping) gets no
    /// feedback.
    pub fn new(hessian: &Hessian) -> Self {
        let (mut importance, mut all_u) = (Vec::new(), Vec::new());
        let (mut products, mut within) = (Vec::new(), Vec::new());
        for (mut matrix, n) in hessian.blocks() {
            let mean = (0..n).map(|i| matrix[i * n + i].max(0.0)).sum::<f64>() / n as f64;
            for i in 0..n {
                matrix[i * n + i] = matrix[i * n + i].max(0.0) + mean * DAMPING;
            }
            let least = mean * DAMPING / 1000.0; // sums of inputs are not exact
            let (d, u) =
                factor(matrix.clone(), n, least).unwrap_or_else(|| without(&mut matrix, n));
            if hessian.block().is_multiple_of(GROUP) {
                let groups = (0..n / GROUP).map(|group| group * GROUP);
                within.extend(groups.map(|first| Factors::new(&matrix, n, first, least)));
            }
            products.extend(matrix.iter().map(|one| *one as f32));
            importance.extend(d.iter().map(|d| *d as f32));
            all_u.extend((0..n * n).map(|at| u[at % n * n + at / n] as f32));
        }
        Self { block: hessian.block(), importance, u: all_u, products, within }
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.importance.len()
    }

    /// Importance of a group's columns; `None` if all inputs were zero.
    pub(super) fn importance(&self, group: usize) -> Option<&[f32; GROUP]> {
        let group = self.importance.as_chunks::<GROUP>().0.get(group)?;
        group.iter().any(|d| *d > 0.0).then_some(group)
    }

    /// The columns of the block that contains `col`.
    pub(super) fn block(&self, col: usize) -> Range<usize> {
        let first = col / self.block * self.block;
        first..self.cols().min(first + self.block)
    }

    /// Factors by which errors of `columns`, all before `col`, propagate to `col`: the index of the
    /// first, and the factors.
    #[inline(always)]
    pub(super) fn u_column(&self, columns: Range<usize>, col: usize) -> (usize, &[f32]) {
        let block = self.block(col);
        let row = block.start * self.block + (col - block.start) * block.len();
        let columns = columns.start.max(block.start)..columns.end.max(block.start);
        let column = &self.u[row..row + block.len()];
        (columns.start, &column[columns.start - block.start..columns.end - block.start])
    }

    /// The factors within a group.
    pub(super) fn u_within(&self, group: usize) -> Triangular {
        let (first, mut u) = (group * GROUP, Box::new([[0.0; GROUP]; GROUP]));
        for (k, row) in u.iter_mut().enumerate() {
            let (from, factors) = self.u_column(first..first + k, first + k);
            row[from - first..k].copy_from_slice(factors);
        }
        u
    }

    /// Number of groups per block, unless groups straddle blocks.
    pub(super) fn groups_at_once(&self) -> Option<usize> {
        (!self.within.is_empty()).then_some(self.block / GROUP)
    }

    /// Factors of a group's own part.
    pub(super) fn within(&self, group: usize) -> &Factors {
        &self.within[group]
    }

    /// Second moments of a column with all columns of its block.
    #[inline(always)]
    pub(super) fn products(&self, col: usize) -> &[f32] {
        let block = self.block(col);
        &self.products[block.start * self.block + (col - block.start) * block.len()..]
            [..block.len()]
    }
}

/// `D` and `U` of a symmetric matrix, computed from the last column to the first; `None` if an
/// entry of `D` is not above `least`. Damped second moments have larger entries, and their factors
/// are at most a few thousand.
fn factor(mut a: Vec<f64>, n: usize, least: f64) -> Option<(Vec<f64>, Vec<f64>)> {
    let mut d = vec![0.0; n];
    for k in (0..n).rev() {
        d[k] = a[k * n + k];
        if d[k] <= least || !d[k].is_finite() {
            return None;
        }
        // Column k of U, then the remaining triangle above and to its left.
        let column: Vec<f64> = (0..k).map(|i| a[i * n + k]).collect();
        for i in 0..k {
            let u = column[i] / d[k];
            a[i * n + k] = u;
            for (left, other) in a[i * n + i..i * n + k].iter_mut().zip(&column[i..]) {
                *left -= u * other;
            }
        }
    }
    Some((d, a))
}

/// Factors of the diagonal alone: no feedback.
fn without(a: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let usable = |d: f64| if d.is_finite() { d.max(0.0) } else { 0.0 };
    let d: Vec<f64> = (0..n).map(|i| usable(a[i * n + i])).collect();
    a.fill(0.0);
    (0..n).for_each(|i| a[i * n + i] = d[i]);
    (d, vec![0.0; n * n])
}

#[cfg(test)]
mod tests {
    use super::*;
    use vaquita_lcg::Lcg;

    impl Feedback {
        /// The same factors without refinement, for a single pass.
        pub fn once(self) -> Self {
            Self { within: Vec::new(), ..self }
        }
    }

    #[test]
    fn factors_multiply_to_the_damped_matrix() {
        let mut hessian = Hessian::new(6, 4);
        let mut random = Lcg(7);
        for _ in 0..40 {
            let x: Vec<f32> = (0..6).map(|_| random.unit() - 0.3).collect();
            hessian.add_rows(&x, |_| 1.0);
        }
        let feedback = Feedback::new(&hessian);
        assert_eq!(feedback.cols(), 6);
        let mut first = 0;
        for (matrix, n) in hessian.blocks() {
            let mean = (0..n).map(|i| matrix[i * n + i]).sum::<f64>() / n as f64;
            let u = |i: usize, k: usize| match i.cmp(&k) {
                std::cmp::Ordering::Equal => 1.0,
                std::cmp::Ordering::Less => {
                    f64::from(feedback.u_column(first + i..first + k, first + k).1[0])
                }
                std::cmp::Ordering::Greater => 0.0,
            };
            for i in 0..n {
                for j in 0..n {
                    let d = |k: usize| f64::from(feedback.importance[first + k]);
                    let found: f64 = (0..n).map(|k| u(i, k) * d(k) * u(j, k)).sum();
                    let damping = if i == j { mean * DAMPING } else { 0.0 };
                    assert!((found - matrix[i * n + j] - damping).abs() < 1e-4, "{i} {j}");
                }
            }
            first += n;
        }
    }

    #[test]
    fn factors_stay_small_whatever_the_matrix() {
        // No inputs, and positive definite only through the damping of 3,333: a factor would be
        // 5,000.
        let hessian = Hessian::from_packed(3, 3, vec![1e6, 100.0, 0.0, 1.0, 3334.33, 1.0]);
        let feedback = Feedback::new(&hessian.unwrap());
        for col in 1..3 {
            let (_, column) = feedback.u_column(0..col, col);
            assert!(column.iter().all(|factor| factor.abs() < 1e3), "{column:?}");
        }
    }

    #[test]
    fn a_matrix_that_no_inputs_have_feeds_nothing_back() {
        let hessian = Hessian::from_packed(2, 2, vec![1.0, 5.0, 1.0]).unwrap();
        let feedback = Feedback::new(&hessian);
        assert_eq!(feedback.u_column(0..1, 1), (0, &[0.0][..]));
        let zeros = Feedback::new(&Hessian::new(64, 64));
        assert!(zeros.importance(0).is_none());
        assert!(zeros.u_column(0..63, 63).1.iter().all(|one| *one == 0.0));
    }
}
