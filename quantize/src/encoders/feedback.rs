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
//! of the unquantized model.

use vaquita_runtime::blocks::GROUP;

use super::search::{self, Choice, Grid};
use crate::hessian::Hessian;

/// Part of the mean of the diagonal that is added to it: texts to come differ.
const DAMPING: f64 = 0.01;

/// The factors of a Hessian.
#[derive(Clone, Debug)]
pub struct Feedback {
    block: usize,
    /// `D`, one per column.
    importance: Vec<f32>,
    /// `U`, block by block, row-major and full.
    carry: Vec<f32>,
}

impl Feedback {
    /// Factors a Hessian. A block that has no factors (it is not positive definite, damped as it is) feeds
    /// nothing back.
    pub fn new(hessian: &Hessian) -> Self {
        let (mut importance, mut carry) = (Vec::new(), Vec::new());
        for (mut matrix, n) in hessian.blocks() {
            let mean = (0..n).map(|i| matrix[i * n + i].max(0.0)).sum::<f64>() / n as f64;
            for i in 0..n {
                matrix[i * n + i] = matrix[i * n + i].max(0.0) + mean * DAMPING;
            }
            let (d, u) = factor(matrix, n);
            importance.extend(d.iter().map(|d| *d as f32));
            carry.extend(u.iter().map(|u| *u as f32));
        }
        Self { block: hessian.block(), importance, carry }
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.importance.len()
    }

    /// The importance of a group's columns; `None` where no input was ever there.
    fn importance(&self, group: usize) -> Option<&[f32; GROUP]> {
        let group = self.importance.as_chunks::<GROUP>().0.get(group)?;
        group.iter().any(|d| *d > 0.0).then_some(group)
    }

    /// How an error in a column carries over to the ones after it in its block.
    fn carry(&self, col: usize) -> &[f32] {
        let first = col / self.block * self.block;
        let n = self.block.min(self.cols() - first);
        let row = first * self.block + (col - first) * n;
        &self.carry[row..row + n][col - first + 1..]
    }
}

/// `D` and `U` of a symmetric matrix, from the last column to the first.
fn factor(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut d = vec![0.0; n];
    for k in (0..n).rev() {
        d[k] = a[k * n + k];
        if d[k] <= 0.0 || !d[k].is_finite() {
            return without(&a, n);
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
    (d, a)
}

/// No feedback, and the diagonal as the importance.
fn without(a: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let d = (0..n).map(|i| a[i * n + i]).map(|d| if d.is_finite() { d.max(0.0) } else { 0.0 });
    (d.collect(), vec![0.0; n * n])
}

/// A row that is being rounded: what its errors, and its weights, so far carry on to later columns.
pub(super) struct Carried<'a> {
    feedback: &'a Feedback,
    errors: Vec<f32>,
    weights: Vec<f32>,
}

impl<'a> Carried<'a> {
    pub fn new(feedback: &'a Feedback) -> Self {
        let zeros = vec![0f32; feedback.cols()];
        Self { feedback, errors: zeros.clone(), weights: zeros }
    }

    /// Rounds the next group column by column, each towards what the errors before it leave to be made good. Of
    /// the scale that is best for what is wanted at first and its two neighbours, the one that turns out best is
    /// kept.
    pub fn round(
        &mut self,
        grid: &Grid,
        group: usize,
        values: &[f32; GROUP],
        codes: &mut [u8; GROUP],
    ) -> Choice {
        let (first, feedback) = (group * GROUP, self.feedback);
        let importance = feedback.importance(group);
        let mut wanted = *values;
        for (wanted, carried) in wanted.iter_mut().zip(&self.errors[first..]) {
            *wanted += carried;
        }
        let byte = search::choose(grid, &wanted, importance).byte;
        let (sign, magnitude) = (byte & 0x80, byte & 0x7f);
        let mut best = Choice { byte, error: f32::INFINITY };
        let mut missing = [0f32; GROUP];
        for magnitude in magnitude.saturating_sub(1)..=(magnitude + 1).min(0x7f) {
            let byte = sign | magnitude;
            let (mut wanted, mut now, mut left) = (wanted, [0; GROUP], [0f32; GROUP]);
            let mut error = 0.0;
            for k in 0..GROUP {
                let (code, rounded) = search::nearest(grid, byte, wanted[k]);
                let missed = wanted[k] - rounded;
                error += missed * missed * importance.map_or(1.0, |all| all[k]);
                now[k] = code;
                left[k] = values[k] - rounded;
                for (wanted, carry) in wanted[k + 1..].iter_mut().zip(feedback.carry(first + k)) {
                    *wanted += left[k] * carry;
                }
            }
            if error < best.error {
                best = Choice { byte, error };
                (*codes, missing) = (now, left);
            }
        }
        carry_on(feedback, first, &missing, &mut self.errors);
        best
    }

    /// What the next group adds to `w H w^T`: what would be lost if all weights were zero.
    pub fn energy(&mut self, group: usize, values: &[f32; GROUP]) -> f32 {
        let first = group * GROUP;
        carry_on(self.feedback, first, values, &mut self.weights);
        let importance = self.feedback.importance(group);
        let mut energy = 0.0;
        for (k, value) in values.iter().enumerate() {
            let whole = value + self.weights[first + k];
            energy += whole * whole * importance.map_or(1.0, |all| all[k]);
        }
        energy
    }
}

/// Adds what a group passes on to the columns after each of its own.
fn carry_on(feedback: &Feedback, first: usize, from: &[f32; GROUP], to: &mut [f32]) {
    for (k, value) in from.iter().enumerate() {
        for (to, carry) in to[first + k + 1..].iter_mut().zip(feedback.carry(first + k)) {
            *to += value * carry;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_multiply_to_the_damped_matrix() {
        let mut hessian = Hessian::new(6, 4);
        let mut state = 7u32;
        for _ in 0..40 {
            let x: Vec<f32> = (0..6)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 24) as f32 - 0.3
                })
                .collect();
            hessian.add_rows(&x, |_| 1.0);
        }
        let feedback = Feedback::new(&hessian);
        assert_eq!(feedback.cols(), 6);
        let mut first = 0;
        for (matrix, n) in hessian.blocks() {
            let mean = (0..n).map(|i| matrix[i * n + i]).sum::<f64>() / n as f64;
            let u = |i: usize, k: usize| match i.cmp(&k) {
                std::cmp::Ordering::Equal => 1.0,
                std::cmp::Ordering::Less => f64::from(feedback.carry(first + i)[k - i - 1]),
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
    fn a_matrix_that_no_inputs_have_feeds_nothing_back() {
        let hessian = Hessian::from_packed(2, 2, vec![1.0, 5.0, 1.0]).unwrap();
        let feedback = Feedback::new(&hessian);
        assert_eq!(feedback.carry(0), [0.0]);
        let zeros = Feedback::new(&Hessian::new(64, 64));
        assert!(zeros.importance(0).is_none() && zeros.carry(3).iter().all(|one| *one == 0.0));
    }
}
