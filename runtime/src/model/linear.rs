//! A matrix with the bias that some families add.

use super::transformer::Compute;
use crate::blocks::Matrix;
use crate::kernels::vector::AddScaled;
use crate::kernels::{Activations, matmul};

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
        let mut out = vec![0.0; x.tokens() * self.weight.rows()];
        matmul(ctx.tier, ctx.pool, &self.weight, x, &mut out);
        if let Some(bias) = &self.bias {
            add_bias(ctx, bias, &mut out);
        }
        out
    }
}

/// Adds `bias`, `[width]`, to each token of `x`, `[tokens, width]`.
pub(super) fn add_bias(ctx: &Compute, bias: &[f32], x: &mut [f32]) {
    for out in x.chunks_exact_mut(bias.len()) {
        ctx.tier.run(AddScaled { out, factor: 1.0, x: bias });
    }
}
