//! Rounds rows with [`Feedback`]: group by group, each towards what the errors before it leave to be made good; then
//! each group anew, now that the errors after it are known as well.
//!
//! The first way through a block cannot know what later columns will make good of, and with few bits they cannot make good
//! of much. So it is gone through again: with the errors `f` of the other groups as they are, a group's errors `e` cost
//!
//! ```text
//! e H e^T + 2 f H e^T = sum over k of D_k (e_k + sum over i < k of e_i U_ik + t_k)^2 - what does not depend on e
//! ```
//!
//! with `U D U^T` the group's own part of `H` and `U D t` the products of `f` with its columns. So it is rounded as before,
//! towards what is `t` away, and what is better than what was there stays.
//!
//! Within a row each weight waits for the one before, so several rows go side by side, a lane each. Loops are written out, since
//! closures would not be compiled for the processor's vectors.

use std::ops::Range;
use std::sync::LazyLock;

use vaquita_runtime::blocks::GROUP;
use vaquita_runtime::isa::{Isa, Kernel, Tier};

use super::feedback::{Carry, Factors, Feedback};
use super::search::{self, Grid, LANES, Lanes, Scales};

/// How often a block is gone through again, at the most. Measured: more than two change next to nothing.
const ROUNDS: usize = 2;

/// A cost below this part of what was there is no mere rounding.
const BETTER: f32 = 0.9999;

/// A group of each row.
type GroupLanes = [Lanes; GROUP];

/// What rows are rounded with. Measured: tables are looked up faster than in the widest vectors.
static TIER: LazyLock<Tier> = LazyLock::new(|| Tier::from_name("avx2").unwrap_or_else(Tier::best));

/// Rows that are rounded.
pub(super) struct Rounded {
    /// Scale bytes, by groups.
    pub scales: Vec<[u8; LANES]>,
    /// Codes, by groups and columns.
    pub codes: Vec<[[u8; LANES]; GROUP]>,
    /// What is lost of the outputs, in units of the squared row scale.
    pub error: [f64; LANES],
    /// What would be lost if all weights were zero.
    pub energy: [f64; LANES],
}

/// Rounds rows that are already divided by their scales; `values` are theirs by groups.
pub(super) fn round(feedback: &Feedback, grid: &Grid, values: &[GroupLanes]) -> Rounded {
    TIER.run(Round { feedback, grid, values })
}

/// It has nothing of any instruction set in it, but the compiler makes vectors of its loops, and each lane computes what
/// it does alone.
struct Round<'a> {
    feedback: &'a Feedback,
    grid: &'a Grid<'a>,
    values: &'a [GroupLanes],
}

impl Kernel for Round<'_> {
    type Output = Rounded;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Rounded {
        let Self { feedback, grid, values } = self;
        let energy = energy(feedback, values);
        Rounded { energy, ..rounded(feedback, grid, values) }
    }
}

#[inline(always)]
fn rounded(feedback: &Feedback, grid: &Grid, values: &[GroupLanes]) -> Rounded {
    let mut rows = Rounded {
        scales: Vec::with_capacity(values.len()),
        codes: Vec::with_capacity(values.len()),
        error: [0.0; LANES],
        energy: [0.0; LANES],
    };
    let mut errors = vec![[0f32; LANES]; values.len() * GROUP];
    let mut carried = errors.clone();
    for (group, values) in values.iter().enumerate() {
        let (first, importance) = (group * GROUP, feedback.importance(group));
        let mut wanted = *values;
        for (wanted, carried) in wanted.iter_mut().zip(&carried[first..]) {
            for lane in 0..LANES {
                wanted[lane] += carried[lane];
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
        let carry = &feedback.carry_within(group);
        let best = Group { grid, values, wanted: &wanted, importance, carry }.best(bytes);
        carry_on(feedback, first, &best.errors, &mut carried);
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

/// Rounds each group of a block anew until none gets better, and adds up what is lost in the end.
#[inline(always)]
fn refine(
    feedback: &Feedback,
    grid: &Grid,
    block: Range<usize>,
    values: &[GroupLanes],
    rows: &mut Rounded,
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
            // f H: without what the group's own errors add to the sums.
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
            let (importance, carry) = (Some(&factors.importance), &factors.carry);
            let (values, wanted) = (&values[group], &wanted);
            let new = Group { grid, values, wanted, importance, carry }.best(rows.scales[group]);
            let there = factors.cost(&old, &shift);

            let codes = new.codes(grid);
            let mut change = [[0f32; LANES]; GROUP];
            let mut better = false;
            for lane in 0..LANES {
                if new.cost[lane] < there[lane] * BETTER {
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
    /// `t` of `U D t = others`.
    #[inline(always)]
    fn shift(&self, others: &GroupLanes) -> GroupLanes {
        let mut shift = *others;
        for k in (0..GROUP).rev() {
            let (before, after) = shift.split_at_mut(k + 1);
            let mut sum = [0f32; LANES];
            for (carry, shift) in self.carry[k + 1..].iter().zip(after) {
                for lane in 0..LANES {
                    sum[lane] += carry[k] * shift[lane];
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

    /// What errors of the group cost, where `t` is `shift`.
    #[inline(always)]
    fn cost(&self, errors: &GroupLanes, shift: &GroupLanes) -> Lanes {
        let mut cost = [0f32; LANES];
        for k in 0..GROUP {
            let mut whole = shift[k];
            add_products(&mut whole, &errors[..k], &self.carry[k]);
            for lane in 0..LANES {
                let here = whole[lane] + errors[k][lane];
                cost[lane] += here * here * self.importance[k];
            }
        }
        cost
    }
}

/// A group of each row rounded with one scale.
struct Trial {
    bytes: [u8; LANES],
    /// Of the nearest values.
    places: [[u8; LANES]; GROUP],
    /// Weights less what they are rounded to.
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

/// A group of each row, and what it is to be rounded by.
struct Group<'a> {
    grid: &'a Grid<'a>,
    values: &'a GroupLanes,
    /// The values, and what the errors of other groups leave to be made good.
    wanted: &'a GroupLanes,
    importance: Option<&'a [f32; GROUP]>,
    carry: &'a Carry,
}

impl Group<'_> {
    /// Of each row's scale and its two neighbours the one that turns out best.
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

    /// The group column by column under given scales.
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
            add_products(&mut wanted, &trial.errors[..k], &self.carry[k]);
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

/// `w H w^T` of rows: what would be lost if all weights were zero.
#[inline(always)]
fn energy(feedback: &Feedback, values: &[GroupLanes]) -> [f64; LANES] {
    let mut carried = vec![[0f32; LANES]; values.len() * GROUP];
    let mut energy = [0f64; LANES];
    for (group, values) in values.iter().enumerate() {
        carry_on(feedback, group * GROUP, values, &mut carried);
        let importance = feedback.importance(group);
        let mut sum = [0f32; LANES];
        for (k, value) in values.iter().enumerate() {
            let importance = importance.map_or(1.0, |all| all[k]);
            for lane in 0..LANES {
                let whole = value[lane] + carried[group * GROUP + k][lane];
                sum[lane] += whole * whole * importance;
            }
        }
        for lane in 0..LANES {
            energy[lane] += f64::from(sum[lane]);
        }
    }
    energy
}

/// Adds what a group passes on to the columns after each of its own.
#[inline(always)]
fn carry_on(feedback: &Feedback, first: usize, from: &GroupLanes, to: &mut [Lanes]) {
    let end = feedback.block(first + GROUP - 1).end;
    for (col, to) in (first + 1..end).zip(&mut to[first + 1..end]) {
        let (start, factors) = feedback.carry(first..col.min(first + GROUP), col);
        add_products(to, &from[start - first..], factors);
    }
}

/// Adds the sum of `from` times their factors, as far as both go.
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
            // Neighbours have much in common.
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
                error += round(&again, &grid, &values).error.iter().sum::<f64>();
                before += round(&once, &grid, &values).error.iter().sum::<f64>();
            }
            assert!(error < before * 0.97, "{ty}: {error} of {before}");
        }
    }
}
