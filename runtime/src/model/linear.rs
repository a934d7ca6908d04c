//! A matrix with the bias that some families add.

use super::Compute;
use crate::blocks::Matrix;
use crate::kernels::vector::AddScaled;
use crate::kernels::{Activations, Product, matmul_all};

/// `W x + b`
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[outputs, inputs]`
    pub weight: Matrix,
    /// `[outputs]`
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// Applies it to `x`, `[tokens, inputs]`, and gives `[tokens, outputs]`.
    pub fn forward(&self, ctx: &Compute, x: &Activations) -> Vec<f32> {
        let [out] = Self::forward_all([self], ctx, x);
        out
    }

    /// Applies several to the same inputs, as one job for the threads.
    pub fn forward_all<const N: usize>(
        all: [&Self; N],
        ctx: &Compute,
        x: &Activations,
    ) -> [Vec<f32>; N] {
        let mut outs = project(ctx, all.map(|one| &one.weight), x);
        for (one, out) in all.iter().zip(&mut outs) {
            if let Some(bias) = &one.bias {
                add_bias(ctx, bias, out);
            }
        }
        outs
    }
}

/// The products of `x`, `[tokens, inputs]`, with several matrices, `[tokens, rows]` for each: one job for the threads.
pub(super) fn project<const N: usize>(
    ctx: &Compute,
    weights: [&Matrix; N],
    x: &Activations,
) -> [Vec<f32>; N] {
    let mut outs = weights.map(|weights| vec![0.0; x.tokens() * weights.rows()]);
    let products =
        weights.iter().zip(&mut outs).map(|(weights, out)| Product { weights, heads: 1, x, out });
    matmul_all(ctx.tier, ctx.pool, products);
    outs
}

/// Adds `bias`, `[width]`, to each token of `x`, `[tokens, width]`.
pub(super) fn add_bias(ctx: &Compute, bias: &[f32], x: &mut [f32]) {
    for out in x.chunks_exact_mut(bias.len()) {
        ctx.tier.run(AddScaled { out, factor: 1.0, x: bias });
    }
}
