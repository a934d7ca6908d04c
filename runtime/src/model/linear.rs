//! A named matrix with the bias that some families add.

use super::Compute;
use crate::blocks::Matrix;
use crate::kernels::vector::AddScaled;
use crate::kernels::{Activations, Product, matmul_all};

/// `W x + b`. Shows its inputs to the observer of a pass under its own name.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Name in GGUF, without layer and suffix: `attn_q`.
    pub name: &'static str,
    /// `[outputs, inputs]`
    pub weight: Matrix,
    /// `[outputs]`
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// Applies the layer to `x`, `[tokens, inputs]`, and returns `[tokens, outputs]`.
    pub fn forward(&self, ctx: &Compute, x: &Activations) -> Vec<f32> {
        let [out] = Self::forward_all([self], ctx, x);
        out
    }

    /// Applies each head's rows to its columns of `x`, `[tokens, heads * inputs]`, and returns
    /// `[tokens, outputs]`.
    pub fn forward_per_head(&self, ctx: &Compute, heads: usize, x: &Activations) -> Vec<f32> {
        let [out] = Self::run([self], ctx, heads, x);
        out
    }

    /// Applies several layers to the same inputs, as one parallel job.
    pub fn forward_all<const N: usize>(
        all: [&Self; N],
        ctx: &Compute,
        x: &Activations,
    ) -> [Vec<f32>; N] {
        Self::run(all, ctx, 1, x)
    }

    fn run<const N: usize>(
        all: [&Self; N],
        ctx: &Compute,
        heads: usize,
        x: &Activations,
    ) -> [Vec<f32>; N] {
        let mut outs = all.map(|linear| {
            linear.observe(ctx, heads, x);
            vec![0.0; x.tokens() * linear.weight.rows()]
        });
        let products = all.iter().zip(&mut outs);
        let products =
            products.map(|(linear, out)| Product { weights: &linear.weight, heads, x, out });
        matmul_all(ctx.tier, ctx.pool, products);
        for (linear, out) in all.iter().zip(&mut outs) {
            if let Some(bias) = &linear.bias {
                add_bias(ctx, bias, out);
            }
        }
        outs
    }

    /// Shows `x`, `[tokens, heads * inputs]`, to the observer of the pass.
    pub(super) fn observe(&self, ctx: &Compute, heads: usize, x: &Activations) {
        ctx.observe(self.name, heads, x);
    }
}

/// Adds `bias`, `[width]`, to each token of `x`, `[tokens, width]`.
pub(super) fn add_bias(ctx: &Compute, bias: &[f32], x: &mut [f32]) {
    for out in x.chunks_exact_mut(bias.len()) {
        ctx.tier.run(AddScaled { out, factor: 1.0, x: bias });
    }
}
