//! Encoding, the same for every code: per group of 32 weights a scale byte, and the entries that leave the least
//! error, with what earlier errors of the row leave to be made good.
//!
//! The M-algorithm: the best few ways to write a row's weights so far are kept, each with its own errors, so that
//! a code with memory and feedback from column to column go together. Without feedback, and with a beam as wide as a
//! trellis has states, this is Viterbi's algorithm, but that a group's scale is settled when the group ends. State
//! runs on from group to group, from 0 at the start of a row.

use vaquita_runtime::blocks::GROUP;
use vaquita_runtime::isa::scalar::decode_scale;

use crate::code::{Code, Step};
use crate::factors::{Factors, Weighing};

/// Scales that are searched with the whole beam, of those that a narrow one likes best.
const FINALISTS: usize = 2;
/// The narrow beam: so much of the whole one, but no less than `LEAST`.
const NARROW: usize = 8;
const LEAST: usize = 4;
/// Scales lie within these factors of the weights' root mean square over that of the code, or go on to where
/// nothing is clipped.
const RANGE: (f32, f32) = (0.6, 1.5);

/// A row as it is written.
pub struct Row {
    /// Each group's scale.
    pub scales: Vec<f32>,
    /// Per `width` columns one.
    pub entries: Vec<u32>,
    /// What they stand for.
    pub values: Vec<f32>,
    /// Squared error, under the factors where there are any.
    pub cost: f64,
}

/// A way to write a row up to a group.
#[derive(Clone)]
struct Start {
    cost: f32,
    state: u32,
    /// Of the columns so far.
    errors: Vec<f32>,
    entries: Vec<u32>,
    /// The group's weights, and what the errors so far leave to be made good.
    target: [f32; GROUP],
}

/// A way to write a group up to some column, in units of its scale.
#[derive(Clone)]
struct Path {
    start: u32,
    cost: f32,
    state: u32,
    errors: [f32; GROUP],
    entries: [u32; GROUP],
}

struct Found {
    cost: f32,
    parent: u32,
    step: Step,
}

/// Buffers of a search.
#[derive(Default)]
pub struct Scratch {
    steps: Vec<Step>,
    found: Vec<Found>,
    paths: Vec<Path>,
    next: Vec<Path>,
    seen: Seen,
}

/// Writes a row.
pub fn write_row(
    code: &dyn Code,
    weights: &[f32],
    factors: Option<&Factors>,
    scratch: &mut Scratch,
) -> Row {
    let width = code.width();
    let (errors, entries) = (Vec::new(), Vec::new());
    let mut starts = vec![Start { cost: 0.0, state: 0, errors, entries, target: [0.0; GROUP] }];
    let mut scales = Vec::new();
    for (group, weights) in weights.as_chunks::<GROUP>().0.iter().enumerate() {
        for start in &mut starts {
            start.target = *weights;
            if let Some(factors) = factors {
                factors.make_good(&start.errors, &mut start.target);
            }
        }
        let wanted = Wanted { weights, weighing: factors.map(|all| all.group(group)) };
        let (scale, paths) = write_group(code, &wanted, &starts, scratch);
        scales.push(scale);
        starts = paths
            .into_iter()
            .map(|path| {
                let mut start = starts[path.start as usize].clone();
                (start.cost, start.state) = (path.cost * scale * scale, path.state);
                start.errors.extend(path.errors.map(|error| error * scale));
                start.entries.extend(&path.entries[..GROUP / width]);
                start
            })
            .collect();
    }
    let Start { cost, entries, .. } =
        starts.into_iter().min_by(|a, b| a.cost.total_cmp(&b.cost)).expect("never empty");
    let values = entries.iter().flat_map(|at| &code.values()[*at as usize * width..][..width]);
    let values = values.enumerate().map(|(col, value)| scales[col / GROUP] * value).collect();
    Row { scales, entries, values, cost: f64::from(cost) }
}

/// What is to be written.
struct Wanted<'a> {
    weights: &'a [f32; GROUP],
    weighing: Option<&'a Weighing>,
}

/// Writes a group with the scale that suits it best.
fn write_group(
    code: &dyn Code,
    wanted: &Wanted,
    starts: &[Start],
    scratch: &mut Scratch,
) -> (f32, Vec<Path>) {
    let best = starts.iter().min_by(|a, b| a.cost.total_cmp(&b.cost)).expect("never empty");
    let square: f32 = best.target.iter().map(|w| w * w).sum();
    if square == 0.0 {
        return (0.0, search(code, code.beam(), wanted, starts, 0.0, scratch).to_vec());
    }
    let rms = (square / GROUP as f32).sqrt() / code.spread();
    let narrow = (code.beam() / NARROW).max(LEAST).min(code.beam());
    let mut few = starts.to_vec();
    few.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    few.truncate(narrow);
    let mut tried: Vec<(f32, f32)> = Vec::new();
    let largest = best.target.iter().fold(0f32, |most, w| most.max(w.abs()));
    let highest = code.values().iter().fold(0f32, |most, v| most.max(v.abs()));
    for magnitude in scales(rms * RANGE.0, (rms * RANGE.1).max(largest / highest)) {
        for scale in [magnitude, -magnitude].into_iter().take(1 + usize::from(code.lopsided())) {
            let paths = search(code, narrow, wanted, &few, scale, scratch);
            tried.push((least(paths) * scale * scale, scale));
        }
    }
    tried.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut best = (f32::INFINITY, 0.0, Vec::new());
    for (_, scale) in tried.into_iter().take(FINALISTS) {
        let paths = search(code, code.beam(), wanted, starts, scale, scratch);
        let cost = least(paths) * scale * scale;
        if cost < best.0 {
            best = (cost, scale, paths.to_vec());
        }
    }
    (best.1, best.2)
}

fn least(paths: &[Path]) -> f32 {
    paths.iter().map(|path| path.cost).fold(f32::INFINITY, f32::min)
}

/// The values of scale bytes between two bounds, whatever the row's scale: that is a power of two.
fn scales(low: f32, high: f32) -> impl Iterator<Item = f32> {
    let exponent = low.log2().floor();
    let all = (0..40u8).map(move |step| {
        (exponent + f32::from(step / 8)).exp2() * decode_scale((15 << 3) | (step % 8))
    });
    all.filter(move |scale| (low..=high).contains(scale))
}

/// The best ways found to write the group, costs in units of the squared scale.
fn search<'a>(
    code: &dyn Code,
    beam: usize,
    wanted: &Wanted,
    starts: &[Start],
    scale: f32,
    scratch: &'a mut Scratch,
) -> &'a [Path] {
    let width = code.width();
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let Scratch { steps, found, paths, next, seen } = scratch;
    paths.clear();
    paths.extend(starts.iter().enumerate().map(|(at, start)| Path {
        start: at as u32,
        cost: start.cost * inverse * inverse,
        state: start.state,
        errors: [0.0; GROUP],
        entries: [0; GROUP],
    }));
    let (mut target, mut weights) = ([0f32; GROUP], [0f32; GROUP]);
    let (target, weights) = (&mut target[..width], &mut weights[..width]);
    for first in (0..GROUP).step_by(width) {
        found.clear();
        for (weight, w) in weights.iter_mut().zip(&wanted.weights[first..]) {
            *weight = w * inverse;
        }
        for (parent, path) in paths.iter().enumerate() {
            let whole = &starts[path.start as usize].target;
            for (k, target) in (first..).zip(&mut *target) {
                *target = whole[k] * inverse;
                if let Some(weighing) = wanted.weighing {
                    let carry = &weighing.carry[k][..first];
                    *target += carry.iter().zip(&path.errors).map(|(u, e)| u * e).sum::<f32>();
                }
            }
            steps.clear();
            code.follow(path.state, target, steps);
            for step in &*steps {
                let values = &code.values()[step.entry as usize * width..][..width];
                let cost = path.cost + unit_cost(values, first, target, weights, wanted.weighing);
                found.push(Found { cost, parent: parent as u32, step: *step });
            }
        }
        select(found, beam, code.merges().then_some(&mut *seen));
        next.clear();
        for Found { cost, parent, step } in found.iter() {
            let mut path = paths[*parent as usize].clone();
            (path.cost, path.state) = (*cost, step.state);
            path.entries[first / width] = step.entry;
            let values = &code.values()[step.entry as usize * width..][..width];
            for (k, (value, weight)) in (first..).zip(values.iter().zip(&*weights)) {
                path.errors[k] = weight - value;
            }
            next.push(path);
        }
        std::mem::swap(paths, next);
    }
    paths
}

/// The error of an entry at columns from `first` on.
fn unit_cost(
    values: &[f32],
    first: usize,
    target: &[f32],
    weights: &[f32],
    weighing: Option<&Weighing>,
) -> f32 {
    let Some(weighing) = weighing else {
        return target.iter().zip(values).map(|(t, v)| (t - v) * (t - v)).sum();
    };
    let mut cost = 0.0;
    for k in 0..values.len() {
        let carry = &weighing.carry[first + k][first..first + k];
        let errors = carry.iter().zip(weights).zip(values).map(|((u, w), v)| u * (w - v));
        let missed = target[k] - values[k] + errors.sum::<f32>();
        cost += weighing.importance[first + k] * missed * missed;
    }
    cost
}

/// Keeps the best `beam`, and of those that end in one state the best.
fn select(found: &mut Vec<Found>, beam: usize, seen: Option<&mut Seen>) {
    if let Some(seen) = seen {
        found.sort_unstable_by(|a, b| a.cost.total_cmp(&b.cost));
        let mut kept = 0;
        seen.round += 1;
        found.retain(|one| {
            let keep = kept < beam && seen.first(one.step.state);
            kept += usize::from(keep);
            keep
        });
    } else if found.len() > beam {
        found.select_nth_unstable_by(beam - 1, |a, b| a.cost.total_cmp(&b.cost));
        found.truncate(beam);
    }
}

/// States that have been met in a round.
#[derive(Default)]
struct Seen {
    round: u64,
    last: Vec<u64>,
}

impl Seen {
    fn first(&mut self, state: u32) -> bool {
        let at = state as usize;
        if self.last.len() <= at {
            self.last.resize(at + 1, 0);
        }
        std::mem::replace(&mut self.last[at], self.round) != self.round
    }
}
