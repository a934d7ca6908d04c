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
//!
//! Within a row each weight waits for the one before, so eight rows go side by side, a lane each.

use std::ops::Range;

use vaquita_runtime::blocks::GROUP;

use super::search::{self, Choice, Grid, LANES, Lanes};
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
            carry.extend((0..n * n).map(|at| u[at % n * n + at / n] as f32));
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

    /// The columns of `col`'s block.
    fn block(&self, col: usize) -> Range<usize> {
        let first = col / self.block * self.block;
        first..self.cols().min(first + self.block)
    }

    /// How errors in some columns, all before `col`, carry over to it: the first of them that do, and their factors.
    #[inline(always)]
    fn carry(&self, columns: Range<usize>, col: usize) -> (usize, &[f32]) {
        let block = self.block(col);
        let row = block.start * self.block + (col - block.start) * block.len();
        let columns = columns.start.max(block.start)..columns.end.max(block.start);
        let carry = &self.carry[row..row + block.len()];
        (columns.start, &carry[columns.start - block.start..columns.end - block.start])
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

/// Rows that are being rounded: what their errors, and their weights, so far carry on to later columns.
pub(super) struct Carried<'a> {
    feedback: &'a Feedback,
    errors: Vec<Lanes>,
    weights: Vec<Lanes>,
}

impl<'a> Carried<'a> {
    pub fn new(feedback: &'a Feedback) -> Self {
        let zeros = vec![[0f32; LANES]; feedback.cols()];
        Self { feedback, errors: zeros.clone(), weights: zeros }
    }

    /// Rounds the next group column by column, each towards what the errors before it leave to be made good. Of
    /// the scale that is best for what is wanted at first and its two neighbours, the one that turns out best is
    /// kept.
    #[inline(always)]
    pub fn round(
        &mut self,
        grid: &Grid,
        group: usize,
        values: &[Lanes; GROUP],
        codes: &mut [[u8; GROUP]; LANES],
    ) -> [Choice; LANES] {
        let first = group * GROUP;
        let importance = self.feedback.importance(group);
        let mut wanted = *values;
        for (wanted, carried) in wanted.iter_mut().zip(&self.errors[first..]) {
            for lane in 0..LANES {
                wanted[lane] += carried[lane];
            }
        }
        // Loops, since closures would not be compiled for the processor's vectors.
        let mut bytes = [[0; LANES]; 3];
        for lane in 0..LANES {
            let mut row = [0f32; GROUP];
            for (row, wanted) in row.iter_mut().zip(&wanted) {
                *row = wanted[lane];
            }
            let byte = search::choose(grid, &row, importance).byte;
            for (bytes, step) in bytes.iter_mut().zip([-1, 0, 1]) {
                let magnitude = (byte & 0x7f).saturating_add_signed(step).min(0x7f);
                bytes[lane] = byte & 0x80 | magnitude;
            }
        }
        let [below, middle, above] = bytes;
        let tries = [
            self.try_scales(grid, first, below, values, &wanted),
            self.try_scales(grid, first, middle, values, &wanted),
            self.try_scales(grid, first, above, values, &wanted),
        ];

        let mut missing = [[0f32; LANES]; GROUP];
        let mut choices = [Choice { byte: 0, error: 0.0 }; LANES];
        for lane in 0..LANES {
            let mut best = &tries[0];
            for other in &tries[1..] {
                if other.error[lane] < best.error[lane] {
                    best = other;
                }
            }
            for k in 0..GROUP {
                codes[lane][k] = grid.code(best.places[k][lane]);
                // What overflowed is not passed on.
                missing[k][lane] =
                    if best.error[lane].is_finite() { best.left[k][lane] } else { 0.0 };
            }
            choices[lane] = Choice { byte: best.bytes[lane], error: best.error[lane] };
        }
        carry_on(self.feedback, first, &missing, &mut self.errors);
        choices
    }

    /// A group under given scales.
    #[inline(always)]
    fn try_scales(
        &self,
        grid: &Grid,
        first: usize,
        bytes: [u8; LANES],
        values: &[Lanes; GROUP],
        wanted: &[Lanes; GROUP],
    ) -> Try {
        let scales = search::Scales::new(bytes);
        let importance = self.feedback.importance(first / GROUP);
        let mut tried = Try {
            bytes,
            places: [[0; LANES]; GROUP],
            left: [[0f32; LANES]; GROUP],
            error: [0f32; LANES],
        };
        for k in 0..GROUP {
            let mut wanted = wanted[k];
            let (from, carry) = self.feedback.carry(first..first + k, first + k);
            for (left, carry) in tried.left[from - first..].iter().zip(carry) {
                for lane in 0..LANES {
                    wanted[lane] += left[lane] * carry;
                }
            }
            let (places, rounded) = scales.nearest(grid, &wanted);
            let importance = importance.map_or(1.0, |all| all[k]);
            for lane in 0..LANES {
                let missed = wanted[lane] - rounded[lane];
                tried.error[lane] += missed * missed * importance;
                tried.left[k][lane] = values[k][lane] - rounded[lane];
            }
            tried.places[k] = places;
        }
        tried
    }

    /// What the next group adds to `w H w^T`: what would be lost if all weights were zero.
    #[inline(always)]
    pub fn energy(&mut self, group: usize, values: &[Lanes; GROUP]) -> Lanes {
        let first = group * GROUP;
        carry_on(self.feedback, first, values, &mut self.weights);
        let importance = self.feedback.importance(group);
        let mut energy = [0.0; LANES];
        for (k, value) in values.iter().enumerate() {
            let importance = importance.map_or(1.0, |all| all[k]);
            for lane in 0..LANES {
                let whole = value[lane] + self.weights[first + k][lane];
                energy[lane] += whole * whole * importance;
            }
        }
        energy
    }
}

/// How a group turns out under one scale per row.
struct Try {
    bytes: [u8; LANES],
    /// Of the nearest values.
    places: [[u8; LANES]; GROUP],
    /// What each weight lost.
    left: [Lanes; GROUP],
    /// The error that counts.
    error: Lanes,
}

/// Adds what a group passes on to the columns after each of its own.
#[inline(always)]
fn carry_on(feedback: &Feedback, first: usize, from: &[Lanes; GROUP], to: &mut [Lanes]) {
    let end = feedback.block(first + GROUP - 1).end;
    for (col, sum) in (first + 1..end).zip(&mut to[first + 1..end]) {
        let (start, carry) = feedback.carry(first..col.min(first + GROUP), col);
        let mut carried = *sum;
        for (from, carry) in from[start - first..].iter().zip(carry) {
            for lane in 0..LANES {
                carried[lane] += from[lane] * carry;
            }
        }
        *sum = carried;
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
    fn a_matrix_that_no_inputs_have_feeds_nothing_back() {
        let hessian = Hessian::from_packed(2, 2, vec![1.0, 5.0, 1.0]).unwrap();
        let feedback = Feedback::new(&hessian);
        assert_eq!(feedback.carry(0..1, 1), (0, &[0.0][..]));
        let zeros = Feedback::new(&Hessian::new(64, 64));
        assert!(zeros.importance(0).is_none());
        assert!(zeros.carry(0..63, 63).1.iter().all(|one| *one == 0.0));
    }
}
