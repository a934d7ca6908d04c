//! LDLQ with refinement: quantizes rows under [`Feedback`]. Groups are quantized in order, each
//! compensating the errors of the groups before it; then each group is requantized, now that the
//! errors of the groups after it are known as well.
//!
//! A single pass fixes each column before it is known how much of its error later columns can
//! compensate; at few bits they can compensate little. We therefore add passes of coordinate
//! descent: with the errors `f` of the other groups held fixed, the errors `e` of a group cost
//!
//! ```text
//! e H e^T + 2 f H e^T = sum over k of D_k (e_k + sum over i < k of e_i U_ik + t_k)^2 + const
//! ```
//!
//! where `U D U^T` is the group's own part of `H` and `U D t` are the products of `f` with its
//! columns. The group is thus quantized as before, toward a target shifted by `t`, and the new
//! codes are kept only if the cost falls.
//!
//! Within a row, each weight depends on the one before, so several rows are processed together, one
//! per lane. Loops are written out, since closures would not be compiled with the tier's target
//! features.

use std::ops::Range;

use vaquita_runtime::blocks::GROUP;
use vaquita_runtime::isa::{Isa, Kernel};

use super::TIER;
use super::feedback::{Factors, Feedback, Triangular};
use super::search::{self, Grid, LANES, Lanes, Scales};

/// Maximum number of refinement passes over a block. Measured: more than two change almost nothing.
const ROUNDS: usize = 2;

/// Ratio of the new to the old cost below which a change counts as an improvement rather than
/// floating-point noise.
const IMPROVEMENT: f32 = 0.9999;

/// A group of each row.
type GroupLanes = [Lanes; GROUP];

/// Quantized rows.
pub(super) struct QuantizedRows {
    /// Scale bytes, by group.
    pub scales: Vec<[u8; LANES]>,
    /// Codes, by group and column.
    pub codes: Vec<[[u8; LANES]; GROUP]>,
    /// Squared error of the outputs, in units of the squared row scale.
    pub error: [f64; LANES],
    /// Energy: the squared error if all weights were zero.
    pub energy: [f64; LANES],
}

/// Quantizes rows that are already divided by their scales; `values` are their weights by group.
pub(super) fn quantize(feedback: &Feedback, grid: &Grid, values: &[GroupLanes]) -> QuantizedRows {
    TIER.run(Ldlq { feedback, grid, values })
}

/// Plain loops that auto-vectorize, wrapped in a `Kernel` only so that they are compiled with the
/// tier's target features. Each lane computes the same as it would alone.
struct Ldlq<'a> {
    feedback: &'a Feedback,
    grid: &'a Grid<'a>,
    values: &'a [GroupLanes],
}

impl Kernel for Ldlq<'_> {
    type Output = QuantizedRows;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> QuantizedRows {
        let Self { feedback, grid, values } = self;
        let energy = energy(feedback, values);
        QuantizedRows { energy, ..quantized(feedback, grid, values) }
    }
}

#[inline(always)]
fn quantized(feedback: &Feedback, grid: &Grid, values: &[GroupLanes]) -> QuantizedRows {
    let mut rows = QuantizedRows {
        scales: Vec::with_capacity(values.len()),
        codes: Vec::with_capacity(values.len()),
        error: [0.0; LANES],
        energy: [0.0; LANES],
    };
    let mut errors = vec![[0f32; LANES]; values.len() * GROUP];
    let mut compensation = errors.clone();
    for (group, values) in values.iter().enumerate() {
        let (first, importance) = (group * GROUP, feedback.importance(group));
        let mut wanted = *values;
        for (wanted, compensation) in wanted.iter_mut().zip(&compensation[first..]) {
            for lane in 0..LANES {
                wanted[lane] += compensation[lane];
            }
        }
        let mut bytes = [0; LANES];
        for lane in 0..LANES {
            let mut row = [0f32; GROUP];
            for (row, wanted) in row.iter_mut().zip(&wanted) {
                *row = wanted[lane];
            }
            bytes[lane] = search::choose(grid, &row, importance).byte;
        }
        let u = &feedback.u_within(group);
        let best = Group { grid, values, wanted: &wanted, importance, u }.best(bytes);
        propagate(feedback, first, &best.errors, &mut compensation);
        errors[first..][..GROUP].copy_from_slice(&best.errors);
        for lane in 0..LANES {
            rows.error[lane] += f64::from(best.cost[lane]);
        }
        rows.scales.push(best.bytes);
        rows.codes.push(best.codes(grid));
    }
    if let Some(at_once) = feedback.groups_at_once() {
        rows.error = [0.0; LANES];
        for first in (0..values.len()).step_by(at_once) {
            let block = first..values.len().min(first + at_once);
            refine(feedback, grid, block, values, &mut rows, &mut errors);
        }
    }
    rows
}

/// Requantizes each group of a block until none improves, and accumulates the final error.
#[inline(always)]
fn refine(
    feedback: &Feedback,
    grid: &Grid,
    block: Range<usize>,
    values: &[GroupLanes],
    rows: &mut QuantizedRows,
    errors: &mut [Lanes],
) {
    let start = block.start * GROUP;
    let errors = &mut errors[start..block.end * GROUP];
    // The errors times H.
    let mut sums = vec![[0f32; LANES]; errors.len()];
    for (col, sum) in sums.iter_mut().enumerate() {
        add_products(sum, errors, feedback.products(start + col));
    }
    for _ in 0..ROUNDS {
        let mut any_better = false;
        for group in block.clone().filter(|group| feedback.importance(*group).is_some()) {
            let (first, factors) = (group * GROUP - start, feedback.within(group));
            let old: GroupLanes = *errors[first..].first_chunk().expect("groups lie in the block");
            // f H: the sums without the contribution of the group's own errors.
            let mut less = old;
            less.as_flattened_mut().iter_mut().for_each(|error| *error = -*error);
            let mut others: GroupLanes = *sums[first..].first_chunk().expect("as above");
            for (k, others) in others.iter_mut().enumerate() {
                add_products(others, &less, &feedback.products(start + first + k)[first..]);
            }
            let shift = factors.shift(&others);
            let mut wanted = values[group];
            for (wanted, shift) in wanted.iter_mut().zip(&shift) {
                for lane in 0..LANES {
                    wanted[lane] += shift[lane];
                }
            }
            let (importance, u) = (Some(&factors.importance), &factors.u);
            let (values, wanted) = (&values[group], &wanted);
            let new = Group { grid, values, wanted, importance, u }.best(rows.scales[group]);
            let there = factors.cost(&old, &shift);

            let codes = new.codes(grid);
            let mut change = [[0f32; LANES]; GROUP];
            let mut better = false;
            for lane in 0..LANES {
                if new.cost[lane] < there[lane] * IMPROVEMENT {
                    better = true;
                    rows.scales[group][lane] = new.bytes[lane];
                    for k in 0..GROUP {
                        rows.codes[group][k][lane] = codes[k][lane];
                        change[k][lane] = new.errors[k][lane] - old[k][lane];
                        errors[first + k][lane] = new.errors[k][lane];
                    }
                }
            }
            if better {
                any_better = true;
                for (col, sum) in sums.iter_mut().enumerate() {
                    add_products(sum, &change, &feedback.products(start + col)[first..]);
                }
            }
        }
        if !any_better {
            break;
        }
    }
    let mut lost = [0f64; LANES];
    for (error, sum) in errors.iter().zip(&sums) {
        for lane in 0..LANES {
            lost[lane] += f64::from(error[lane] * sum[lane]);
        }
    }
    for (error, lost) in rows.error.iter_mut().zip(lost) {
        *error += lost.max(0.0);
    }
}

impl Factors {
    /// Solves `U D t = others` for `t`.
    #[inline(always)]
    fn shift(&self, others: &GroupLanes) -> GroupLanes {
        let mut shift = *others;
        for k in (0..GROUP).rev() {
            let (before, after) = shift.split_at_mut(k + 1);
            let mut sum = [0f32; LANES];
            for (row, shift) in self.u[k + 1..].iter().zip(after) {
                for lane in 0..LANES {
                    sum[lane] += row[k] * shift[lane];
                }
            }
            for (shift, sum) in before[k].iter_mut().zip(sum) {
                *shift -= sum;
            }
        }
        for (shift, importance) in shift.iter_mut().zip(&self.importance) {
            shift.iter_mut().for_each(|shift| *shift /= importance);
        }
        shift
    }

    /// Cost of a group's errors for a given `shift` (`t`).
    #[inline(always)]
    fn cost(&self, errors: &GroupLanes, shift: &GroupLanes) -> Lanes {
        let mut cost = [0f32; LANES];
        for k in 0..GROUP {
            let mut whole = shift[k];
            add_products(&mut whole, &errors[..k], &self.u[k]);
            for lane in 0..LANES {
                let here = whole[lane] + errors[k][lane];
                cost[lane] += here * here * self.importance[k];
            }
        }
        cost
    }
}

/// A group of each row, quantized with one scale per row.
struct Trial {
    bytes: [u8; LANES],
    /// Places of the nearest values.
    places: [[u8; LANES]; GROUP],
    /// Weights minus quantized values.
    errors: GroupLanes,
    cost: Lanes,
}

impl Trial {
    #[inline(always)]
    fn codes(&self, grid: &Grid) -> [[u8; LANES]; GROUP] {
        let mut codes = self.places;
        for code in codes.iter_mut().flatten() {
            *code = grid.code(*code);
        }
        codes
    }
}

/// A group of each row, with everything that its quantization depends on.
struct Group<'a> {
    grid: &'a Grid<'a>,
    values: &'a GroupLanes,
    /// Target: the values plus the compensation for errors of other groups.
    wanted: &'a GroupLanes,
    importance: Option<&'a [f32; GROUP]>,
    u: &'a Triangular,
}

impl Group<'_> {
    /// Tries each row's scale and its two neighbours, and keeps the best.
    #[inline(always)]
    fn best(&self, bytes: [u8; LANES]) -> Trial {
        let (mut below, mut above) = (bytes, bytes);
        for lane in 0..LANES {
            let (sign, magnitude) = (bytes[lane] & 0x80, bytes[lane] & 0x7f);
            below[lane] = sign | magnitude.saturating_sub(1);
            above[lane] = sign | (magnitude + 1).min(0x7f);
        }
        let mut best = self.attempt(bytes);
        for bytes in [below, above] {
            let other = self.attempt(bytes);
            for lane in 0..LANES {
                if other.cost[lane] < best.cost[lane] {
                    best.bytes[lane] = other.bytes[lane];
                    best.cost[lane] = other.cost[lane];
                    for k in 0..GROUP {
                        best.places[k][lane] = other.places[k][lane];
                        best.errors[k][lane] = other.errors[k][lane];
                    }
                }
            }
        }
        best
    }

    /// Quantizes the group column by column with given scales.
    #[inline(always)]
    fn attempt(&self, bytes: [u8; LANES]) -> Trial {
        let scales = Scales::new(bytes);
        let mut trial = Trial {
            bytes,
            places: [[0; LANES]; GROUP],
            errors: [[0f32; LANES]; GROUP],
            cost: [0f32; LANES],
        };
        for k in 0..GROUP {
            let mut wanted = self.wanted[k];
            add_products(&mut wanted, &trial.errors[..k], &self.u[k]);
            let (places, rounded) = scales.nearest(self.grid, &wanted);
            let importance = self.importance.map_or(1.0, |all| all[k]);
            for lane in 0..LANES {
                let missed = wanted[lane] - rounded[lane];
                trial.cost[lane] += missed * missed * importance;
                trial.errors[k][lane] = self.values[k][lane] - rounded[lane];
            }
            trial.places[k] = places;
        }
        trial
    }
}

/// Energy `w H w^T` of rows: the squared error if all weights were zero.
#[inline(always)]
fn energy(feedback: &Feedback, values: &[GroupLanes]) -> [f64; LANES] {
    let mut compensation = vec![[0f32; LANES]; values.len() * GROUP];
    let mut energy = [0f64; LANES];
    for (group, values) in values.iter().enumerate() {
        propagate(feedback, group * GROUP, values, &mut compensation);
        let importance = feedback.importance(group);
        let mut sum = [0f32; LANES];
        for (k, value) in values.iter().enumerate() {
            let importance = importance.map_or(1.0, |all| all[k]);
            for lane in 0..LANES {
                let whole = value[lane] + compensation[group * GROUP + k][lane];
                sum[lane] += whole * whole * importance;
            }
        }
        for lane in 0..LANES {
            energy[lane] += f64::from(sum[lane]);
        }
    }
    energy
}

/// Propagates the errors of a group to all later columns.
#[inline(always)]
fn propagate(feedback: &Feedback, first: usize, from: &GroupLanes, to: &mut [Lanes]) {
    let end = feedback.block(first + GROUP - 1).end;
    for (col, to) in (first + 1..end).zip(&mut to[first + 1..end]) {
        let (start, factors) = feedback.u_column(first..col.min(first + GROUP), col);
        add_products(to, &from[start - first..], factors);
    }
}

/// Adds the products of `from` with `factors`, up to the shorter of the two.
#[inline(always)]
fn add_products(to: &mut Lanes, from: &[Lanes], factors: &[f32]) {
    let mut sum = *to;
    for (from, factor) in from.iter().zip(factors) {
        for lane in 0..LANES {
            sum[lane] += from[lane] * factor;
        }
    }
    *to = sum;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoders::tables;
    use crate::hessian::Hessian;
    use vaquita_lcg::Lcg;
    use vaquita_runtime::blocks::BlockType;

    #[test]
    fn going_through_again_loses_less() {
        let mut lcg = Lcg(3);
        let mut random = || 2.0 * lcg.unit() - 1.0;
        let mut hessian = Hessian::new(192, 128);
        for _ in 0..400 {
            // Neighbouring columns are correlated.
            let mut last = 0.0;
            let x: Vec<f32> = (0..192)
                .map(|_| {
                    last = last * 0.8 + random();
                    last
                })
                .collect();
            hessian.add_rows(&x, |_| 1.0);
        }
        let (again, once) = (Feedback::new(&hessian), Feedback::new(&hessian).once());
        for ty in [BlockType::E2, BlockType::E3, BlockType::E4] {
            let grid = Grid::Table(&tables::candidates(ty)[0]);
            let (mut error, mut before) = (0.0, 0.0);
            for _ in 0..2 {
                let values: Vec<GroupLanes> = (0..6)
                    .map(|_| std::array::from_fn(|_| std::array::from_fn(|_| random())))
                    .collect();
                error += quantize(&again, &grid, &values).error.iter().sum::<f64>();
                before += quantize(&once, &grid, &values).error.iter().sum::<f64>();
            }
            assert!(error < before * 0.97, "{ty}: {error} of {before}");
        }
    }
}
