//! Second moments of inputs, factored for feedback as in `vaquita_quantize::encoders::Feedback`, and rotated with
//! the columns where those are.

use vaquita_quantize::hessian::Hessian;
use vaquita_runtime::blocks::GROUP;

use crate::data::transposed;
use crate::rotation::Rotation;

/// Part of the mean of the diagonal that is added to it.
const DAMPING: f64 = 0.01;

/// How errors of a group's columns count, and how they carry on within it.
pub struct Weighing {
    pub importance: [f32; GROUP],
    /// `[to][from]`
    pub carry: [[f32; GROUP]; GROUP],
}

/// `H = U D U^T`.
pub struct Factors {
    cols: usize,
    /// `U`, row-major.
    carry: Vec<f32>,
    groups: Vec<Weighing>,
}

impl Factors {
    /// Factors a Hessian that is kept whole; `None` where it is not, or has no factors.
    pub fn new(hessian: &Hessian, rotation: Option<&Rotation>) -> Option<Self> {
        let n = hessian.cols();
        if hessian.block() < n {
            return None;
        }
        let mut full = vec![0f32; n * n];
        let mut packed = hessian.packed().iter();
        for i in 0..n {
            for j in i..n {
                let sum = *packed.next()?;
                (full[i * n + j], full[j * n + i]) = (sum, sum);
            }
        }
        if let Some(rotation) = rotation {
            // H is symmetric: its rows, then its columns, which are rows once it is turned.
            for _ in 0..2 {
                full.chunks_exact_mut(n).for_each(|row| rotation.forward(row));
                full = transposed(&full, n);
            }
        }
        let mut a: Vec<f64> = full.into_iter().map(f64::from).collect();
        let mean = (0..n).map(|i| a[i * n + i]).sum::<f64>() / n as f64;
        (0..n).for_each(|i| a[i * n + i] += mean * DAMPING);
        let mut d = vec![0f64; n];
        for k in (0..n).rev() {
            d[k] = a[k * n + k];
            if d[k] <= 0.0 {
                return None;
            }
            let column: Vec<f64> = (0..k).map(|i| a[i * n + k]).collect();
            for i in 0..k {
                let u = column[i] / d[k];
                a[i * n + k] = u;
                for j in i..k {
                    a[i * n + j] -= u * column[j];
                }
            }
        }
        let carry: Vec<f32> = a.into_iter().map(|u| u as f32).collect();
        let groups = (0..n).step_by(GROUP).map(|first| Weighing {
            importance: std::array::from_fn(|k| d[first + k] as f32),
            carry: std::array::from_fn(|to| {
                std::array::from_fn(|from| {
                    if from < to { carry[(first + from) * n + first + to] } else { 0.0 }
                })
            }),
        });
        Some(Self { cols: n, groups: groups.collect(), carry })
    }

    /// Of a group's columns.
    pub fn group(&self, group: usize) -> &Weighing {
        &self.groups[group]
    }

    /// Adds to the columns after some what the errors of those leave to be made good.
    pub fn make_good(&self, errors: &[f32], target: &mut [f32; GROUP]) {
        for (error, row) in errors.iter().zip(self.carry.chunks_exact(self.cols)) {
            for (target, u) in target.iter_mut().zip(&row[errors.len()..]) {
                *target += error * u;
            }
        }
    }

    /// `e H e^T`.
    pub fn error(&self, errors: &[f32]) -> f64 {
        let importance = self.groups.iter().flat_map(|group| group.importance);
        let whole = |k: usize| -> f64 {
            let carried = (0..k).map(|i| f64::from(errors[i] * self.carry[i * self.cols + k]));
            f64::from(errors[k]) + carried.sum::<f64>()
        };
        importance.enumerate().map(|(k, d)| f64::from(d) * whole(k) * whole(k)).sum()
    }
}
