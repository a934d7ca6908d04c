//! The gated delta rule (arXiv 2412.06464, equation 10), the recurrence of Gated DeltaNet and, with
//! a decay for each key channel, of Kimi Delta Attention (arXiv 2510.26692, equation 1). Per head
//! and token, with a state of `[key_width, value_width]`:
//!
//! ```text
//! S = diag(g) S
//! d = beta (v - S^T k)
//! S = S + k d^T
//! o = S^T q
//! ```
//!
//! Tokens are processed one after the other and sums run over the key channels in order, each in
//! the lane of its value channel, so that the bits do not depend on how a sequence is divided into
//! chunks, or heads among threads.

use super::disjoint::Disjoint;
use super::vector::{lanes, lanes_mut};
use crate::isa::{Isa, Kernel, Tier};
use crate::threads::Pool;

/// Vectors of value channels that are computed side by side: enough to hide the latency of sums.
const SIDE_BY_SIDE: usize = 4;

/// Inputs of the rule for some tokens of one sequence. A key head serves several value heads.
#[derive(Clone, Copy, Debug)]
pub struct DeltaRule<'a> {
    /// Number of value heads, each with its state.
    pub heads: usize,
    /// Number of key heads.
    pub key_heads: usize,
    /// Whether value head `i` belongs to key head `i % key_heads`, instead of `i / (heads /
    /// key_heads)`.
    pub tiled: bool,
    /// Width of a key.
    pub key_width: usize,
    /// Width of a value, a multiple of 8.
    pub value_width: usize,
    /// `[tokens, key_heads, key_width]`
    pub queries: &'a [f32],
    /// `[tokens, key_heads, key_width]`
    pub keys: &'a [f32],
    /// `[tokens, heads, value_width]`
    pub values: &'a [f32],
    /// Factors on the state, `[tokens, heads]` or `[tokens, heads, key_width]`.
    pub decay: &'a [f32],
    /// Strength of the update, `[tokens, heads]`.
    pub beta: &'a [f32],
}

impl DeltaRule<'_> {
    /// Updates `state`, `[heads, key_width, value_width]`, by all tokens, and writes the outputs,
    /// `[tokens, heads, value_width]`.
    pub fn run(&self, tier: Tier, pool: &Pool, state: &mut [f32], out: &mut [f32]) {
        let Self { heads, key_heads, key_width, value_width, .. } = *self;
        let tokens = self.beta.len() / heads;
        assert_eq!(state.len(), heads * key_width * value_width);
        assert_eq!(out.len(), tokens * heads * value_width);
        let decays = self.decay.len() / (tokens * heads).max(1);
        let out = Disjoint::new(out);
        pool.run_chunks(state, key_width * value_width, &|head, state| {
            let key_head = match self.tiled {
                true => head % key_heads,
                false => head / (heads / key_heads),
            };
            for token in 0..tokens {
                let (key_at, at) = (token * key_heads + key_head, token * heads + head);
                // SAFETY: each task writes only the outputs of its own head.
                let out = unsafe { out.slice(at * value_width, value_width) };
                tier.run(Step {
                    state,
                    query: &self.queries[key_at * key_width..][..key_width],
                    key: &self.keys[key_at * key_width..][..key_width],
                    value: &self.values[at * value_width..][..value_width],
                    decay: &self.decay[at * decays..][..decays],
                    beta: self.beta[at],
                    out,
                });
            }
        });
    }
}

/// One token of one head.
struct Step<'a> {
    /// `[key_width, value_width]`
    state: &'a mut [f32],
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    /// One factor, or one for each key channel.
    decay: &'a [f32],
    beta: f32,
    out: &'a mut [f32],
}

impl Kernel for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let width = self.value.len();
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

/// The rule for `N` vectors of value channels, which begin at channel `at`.
#[inline(always)]
fn columns<I: Isa, const N: usize>(isa: I, step: &mut Step, at: usize) {
    let width = step.value.len();
    let per_channel = usize::from(step.decay.len() > 1);
    // S^T k
    let mut recalled = [isa.splat(0.0); N];
    for (i, key) in step.key.iter().enumerate() {
        let (decay, key) = (isa.splat(step.decay[i * per_channel]), isa.splat(*key));
        let row: &[_; N] = lanes(&step.state[i * width + at..]);
        for (sum, s) in recalled.iter_mut().zip(row) {
            *sum = isa.fma(isa.mul(decay, isa.load(s)), key, *sum);
        }
    }
    // beta (v - S^T k)
    let beta = isa.splat(step.beta);
    let value: &[_; N] = lanes(&step.value[at..]);
    let mut delta = recalled;
    for (delta, value) in delta.iter_mut().zip(value) {
        *delta = isa.mul(beta, isa.sub(isa.load(value), *delta));
    }
    // S + k d^T, and S^T q
    let mut sums = [isa.splat(0.0); N];
    for (i, (key, query)) in step.key.iter().zip(step.query).enumerate() {
        let decay = isa.splat(step.decay[i * per_channel]);
        let (key, query) = (isa.splat(*key), isa.splat(*query));
        let row: &mut [_; N] = lanes_mut(&mut step.state[i * width + at..]);
        for ((sum, delta), to) in sums.iter_mut().zip(delta).zip(row) {
            let s = isa.fma(key, delta, isa.mul(decay, isa.load(to)));
            isa.store(s, to);
            *sum = isa.fma(s, query, *sum);
        }
    }
    let out: &mut [_; N] = lanes_mut(&mut step.out[at..]);
    for (sum, out) in sums.into_iter().zip(out) {
        isa.store(sum, out);
    }
}
