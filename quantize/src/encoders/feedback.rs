//! Error feedback: what rounding one weight loses is made good in the weights after it.
//!
//! GPTQ (arXiv 2210.17323) in the form of LDLQ (QuIP, arXiv 2307.13304, section 3): with the second moments of the
//! inputs factored as `H = U D U^T`, U unit upper triangular, the error of a row `e` costs
//!
//! ```text
//! e H e^T = sum over k of D_k (e_k + sum over i < k of e_i U_ik)^2
//! ```
//!
//! so that column k, rounded towards `w_k + sum of e_i U_ik` with `e_i` the errors so far, leaves the least. A group's
//! scale is chosen when its first column comes up, with `D` as the importance of its columns. The inputs are those
//! of the unquantized model. [`super::carried`] rounds by it.

use std::ops::Range;

use vaquita_runtime::blocks::GROUP;

use crate::hessian::Hessian;

/// Part of the mean of the diagonal that is added to it: texts to come differ.
const DAMPING: f64 = 0.01;

/// The factors of a Hessian.
#[derive(Clone, Debug)]
pub struct Feedback {
    block: usize,
    /// `D`, one per column.
    importance: Vec<f32>,
    /// `U^T`, block by block, row-major and full: a row has what each column before passes on to this one.
    carry: Vec<f32>,
    /// `H` itself, damped, likewise.
    products: Vec<f32>,
    /// The factors of each group's own part of `H`; none where groups reach over the border of a block.
    within: Vec<Factors>,
}

/// The factors of the second moments of one group's inputs, the others left out.
#[derive(Clone, Debug)]
pub(super) struct Factors {
    /// `D`.
    pub importance: [f32; GROUP],
    /// `U`.
    pub carry: Carry,
}

/// How errors in the columns of a group carry over to the ones after them: for each column those of the ones before,
/// and zeros.
pub(super) type Carry = Box<[[f32; GROUP]; GROUP]>;

impl Factors {
    fn new(block: &[f64], n: usize, first: usize, least: f64) -> Self {
        let rows = (first..first + GROUP).flat_map(|i| &block[i * n + first..][..GROUP]);
        let mut own: Vec<f64> = rows.copied().collect();
        let (d, u) = factor(own.clone(), GROUP, least).unwrap_or_else(|| without(&mut own, GROUP));
        let importance = std::array::from_fn(|i| d[i] as f32);
        let before = |k: usize, i: usize| if i < k { u[i * GROUP + k] as f32 } else { 0.0 };
        let carry = Box::new(std::array::from_fn(|k| std::array::from_fn(|i| before(k, i))));
        Self { importance, carry }
    }
}

impl Feedback {
    /// Factors a Hessian. A block that has no factors (it is not positive definite, damped as it is) feeds
    /// nothing back.
    pub fn new(hessian: &Hessian) -> Self {
        let (mut importance, mut carry) = (Vec::new(), Vec::new());
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
            carry.extend((0..n * n).map(|at| u[at % n * n + at / n] as f32));
        }
        Self { block: hessian.block(), importance, carry, products, within }
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.importance.len()
    }

    /// The importance of a group's columns; `None` where no input was ever there.
    pub(super) fn importance(&self, group: usize) -> Option<&[f32; GROUP]> {
        let group = self.importance.as_chunks::<GROUP>().0.get(group)?;
        group.iter().any(|d| *d > 0.0).then_some(group)
    }

    /// The columns of `col`'s block.
    pub(super) fn block(&self, col: usize) -> Range<usize> {
        let first = col / self.block * self.block;
        first..self.cols().min(first + self.block)
    }

    /// How errors in some columns, all before `col`, carry over to it: the first of them that do, and their factors.
    #[inline(always)]
    pub(super) fn carry(&self, columns: Range<usize>, col: usize) -> (usize, &[f32]) {
        let block = self.block(col);
        let row = block.start * self.block + (col - block.start) * block.len();
        let columns = columns.start.max(block.start)..columns.end.max(block.start);
        let carry = &self.carry[row..row + block.len()];
        (columns.start, &carry[columns.start - block.start..columns.end - block.start])
    }

    /// The part of that within a group.
    pub(super) fn carry_within(&self, group: usize) -> Carry {
        let (first, mut carry) = (group * GROUP, Box::new([[0.0; GROUP]; GROUP]));
        for (k, row) in carry.iter_mut().enumerate() {
            let (from, factors) = self.carry(first..first + k, first + k);
            row[from - first..k].copy_from_slice(factors);
        }
        carry
    }

    /// Groups of a block, where groups do not reach over its border.
    pub(super) fn groups_at_once(&self) -> Option<usize> {
        (!self.within.is_empty()).then_some(self.block / GROUP)
    }

    /// The factors of a group's own part.
    pub(super) fn within(&self, group: usize) -> &Factors {
        &self.within[group]
    }

    /// A column's products with all columns of its block.
    #[inline(always)]
    pub(super) fn products(&self, col: usize) -> &[f32] {
        let block = self.block(col);
        &self.products[block.start * self.block + (col - block.start) * block.len()..]
            [..block.len()]
    }
}

/// `D` and `U` of a symmetric matrix, from the last column to the first; `None` where an entry of `D` is not above
/// `least`: second moments that are damped have larger ones, and their factors are no larger than some thousands.
fn factor(mut a: Vec<f64>, n: usize, least: f64) -> Option<(Vec<f64>, Vec<f64>)> {
    let mut d = vec![0.0; n];
    for k in (0..n).rev() {
        d[k] = a[k * n + k];
        if d[k] <= least || !d[k].is_finite() {
            return None;
        }
        // Column k of U, then what is left of the triangle above and left of it.
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

/// Makes do with the diagonal of a matrix: no feedback.
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
        /// The same for one way through the columns only.
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
                    f64::from(feedback.carry(first + i..first + k, first + k).1[0])
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
        // Of no inputs, and positive definite only by the damping of 3,333: a factor would be 5,000.
        let hessian = Hessian::from_packed(3, 3, vec![1e6, 100.0, 0.0, 1.0, 3334.33, 1.0]);
        let feedback = Feedback::new(&hessian.unwrap());
        for col in 1..3 {
            let (_, carry) = feedback.carry(0..col, col);
            assert!(carry.iter().all(|factor| factor.abs() < 1e3), "{carry:?}");
        }
    }

    #[test]
    fn a_matrix_that_no_inputs_have_feeds_nothing_back() {
        let hessian = Hessian::from_packed(2, 2, vec![1.0, 5.0, 1.0]).unwrap();
        let feedback = Feedback::new(&hessian);
        assert_eq!(feedback.carry(0..1, 1), (0, &[0.0][..]));
        let zeros = Feedback::new(&Hessian::new(64, 64));
        assert!(zeros.importance(0).is_none());
        assert!(zeros.carry(0..63, 63).1.iter().all(|one| *one == 0.0));
    }
}
