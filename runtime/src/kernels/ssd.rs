//! The recurrence of Mamba-2 (arXiv 2405.21060, section 3): a state space whose decay is one number
//! per head. Per head and token, with a state of `[state_width, head_width]`:
//!
//! ```text
//! S = a S + B (dt x)^T
//! y = S^T C + D x
//! ```
//!
//! Tokens are processed one after the other and sums run over the state's rows in order, each in
//! the lane of its channel, so that the bits do not depend on how a sequence is divided into chunks,
//! or heads among threads.

use super::disjoint::Disjoint;
use super::vector::{lanes, lanes_mut};
use crate::isa::{Isa, Kernel, Tier};
use crate::threads::Pool;

/// Vectors of channels that are computed side by side: enough to hide the latency of sums.
const SIDE_BY_SIDE: usize = 4;

/// Inputs of the recurrence for some tokens of one sequence. A group of heads shares `B` and `C`.
#[derive(Clone, Copy, Debug)]
pub struct StateSpace<'a> {
    /// Number of heads, each with its state.
    pub heads: usize,
    /// Number of groups of heads.
    pub groups: usize,
    /// Channels of a head, a multiple of 8.
    pub head_width: usize,
    /// Rows of a head's state.
    pub state_width: usize,
    /// `x`, `B` and `C`: `[tokens, heads * head_width + 2 * groups * state_width]`.
    pub inputs: &'a [f32],
    /// `dt`, `[tokens, heads]`.
    pub step: &'a [f32],
    /// `a`, `[tokens, heads]`.
    pub decay: &'a [f32],
    /// `D`, `[heads]`.
    pub skip: &'a [f32],
}

impl StateSpace<'_> {
    /// Updates `state`, `[heads, state_width, head_width]`, by all tokens, and writes the outputs,
    /// `[tokens, heads, head_width]`.
    pub fn run(&self, tier: Tier, pool: &Pool, state: &mut [f32], out: &mut [f32]) {
        let Self { heads, groups, head_width: width, state_width, .. } = *self;
        let tokens = self.step.len() / heads;
        assert_eq!(state.len(), heads * state_width * width);
        assert_eq!(out.len(), tokens * heads * width);
        let row = heads * width + 2 * groups * state_width;
        let out = Disjoint::new(out);
        pool.run_chunks(state, state_width * width, &|head, state| {
            let b = heads * width + head / (heads / groups) * state_width;
            let c = b + groups * state_width;
            for token in 0..tokens {
                let inputs = &self.inputs[token * row..][..row];
                let at = token * heads + head;
                // SAFETY: each task writes only the outputs of its own head.
                let out = unsafe { out.slice(at * width, width) };
                tier.run(Step {
                    state,
                    x: &inputs[head * width..][..width],
                    b: &inputs[b..][..state_width],
                    c: &inputs[c..][..state_width],
                    step: self.step[at],
                    decay: self.decay[at],
                    skip: self.skip[head],
                    out,
                });
            }
        });
    }
}

/// One token of one head.
struct Step<'a> {
    /// `[state_width, head_width]`
    state: &'a mut [f32],
    x: &'a [f32],
    b: &'a [f32],
    c: &'a [f32],
    step: f32,
    decay: f32,
    skip: f32,
    out: &'a mut [f32],
}

impl Kernel for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let width = self.x.len();
        let block = 8 * SIDE_BY_SIDE;
        let whole = width - width % block;
        for at in (0..whole).step_by(block) {
            columns::<I, SIDE_BY_SIDE>(isa, &mut self, at);
        }
        for at in (whole..width).step_by(8) {
            columns::<I, 1>(isa, &mut self, at);
        }
    }
}

/// The recurrence for `N` vectors of channels, which begin at channel `at`.
#[inline(always)]
fn columns<I: Isa, const N: usize>(isa: I, step: &mut Step, at: usize) {
    let (decay, dt) = (isa.splat(step.decay), isa.splat(step.step));
    let x: &[_; N] = lanes(&step.x[at..]);
    let mut input = [dt; N];
    for (input, x) in input.iter_mut().zip(x) {
        *input = isa.mul(dt, isa.load(x));
    }
    let mut sums = [isa.splat(0.0); N];
    let rows = step.state.chunks_exact_mut(step.x.len()).zip(step.b.iter().zip(step.c));
    for (row, (b, c)) in rows {
        let (b, c) = (isa.splat(*b), isa.splat(*c));
        let row: &mut [_; N] = lanes_mut(&mut row[at..]);
        for ((sum, input), to) in sums.iter_mut().zip(input).zip(row) {
            let s = isa.fma(b, input, isa.mul(decay, isa.load(to)));
            isa.store(s, to);
            *sum = isa.fma(s, c, *sum);
        }
    }
    let skip = isa.splat(step.skip);
    let out: &mut [_; N] = lanes_mut(&mut step.out[at..]);
    for ((sum, x), out) in sums.into_iter().zip(x).zip(out) {
        isa.store(isa.fma(skip, isa.load(x), sum), out);
    }
}
