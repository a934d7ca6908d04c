//! Gated DeltaNet (arXiv 2412.06464) as in Qwen3-Next: a short convolution over queries, keys and
//! values, and a state per head that each token decays and corrects.
//!
//! ```text
//! q, k, v = silu(conv(W_qkv x))         q = norm(q) / sqrt(d_k)      k = norm(k)
//! beta = sigmoid(W_b x)                 g = exp(A softplus(W_a x + dt))
//! S = g S + k (beta (v - g S^T k))^T    o = S^T q
//! out = W_out (norm(o) * silu(W_z x))
//! ```

use super::Compute;
use super::delta_state::DeltaState;
use super::gqa::sigmoids;
use super::linear::Linear;
use super::part::Part;
use crate::checkpoint::config::{Config, GatedDeltaConfig};
use crate::kernels::Activations;
use crate::kernels::vector::{SwiGlu, rms_norm, softplus};

/// The mixer of one layer.
#[derive(Clone, Debug)]
pub struct GatedDeltaNet {
    /// Dimensions.
    pub shape: GatedDeltaConfig,
    /// Queries, keys and values of all heads, `[conv_dim, hidden_size]`.
    pub qkv: Linear,
    /// Gate on the output, `[value_dim, hidden_size]`.
    pub gate: Linear,
    /// Strengths of updates and decays.
    pub beta_alpha: BetaAlpha,
    /// Factors of each position in the window, oldest first: `[conv_kernel_dim]` of `[conv_dim]`.
    pub taps: Vec<Vec<f32>>,
    /// `-exp(A_log)`, `[num_value_heads]`
    pub a: Vec<f32>,
    /// `[num_value_heads]`
    pub dt_bias: Vec<f32>,
    /// `[value_head_dim]`
    pub norm: Vec<f32>,
    /// `[hidden_size, value_dim]`
    pub output: Linear,
}

/// Projections to the strength of the update and the decay of each head.
#[derive(Clone, Debug)]
pub enum BetaAlpha {
    /// One each, `[num_value_heads, hidden_size]`.
    Separate(Linear, Linear),
    /// One, with the strengths and then the decays of each key head's value heads.
    Joined(Linear),
}

impl GatedDeltaNet {
    /// Mixes each token of `x`, `[tokens, hidden_size]`, with the state of the sequence of its part.
    pub fn forward(
        &self,
        ctx: &Compute,
        config: &Config,
        x: &Activations,
        parts: &mut [Part],
    ) -> Vec<f32> {
        let (width, value_dim) = (self.shape.value_head_dim, self.shape.value_dim());
        let (rows, mut gate) = self.rows(ctx, x);
        let out = DeltaState::from(&self.shape).run(ctx, &self.taps, &rows, parts);
        let normed = rms_norm(ctx.tier, &out, &self.norm, config.rms_norm_eps);
        for (gate, up) in gate.chunks_exact_mut(width).zip(normed.chunks_exact(width)) {
            ctx.tier.run(SwiGlu { gate, up });
        }
        let out = Activations::new(ctx.tier, &gate, value_dim);
        self.output.forward(ctx, &out)
    }

    /// What the state needs of each token: inputs of the convolution, `beta` and `g`; and the gate
    /// on the output.
    fn rows(&self, ctx: &Compute, x: &Activations) -> (Vec<f32>, Vec<f32>) {
        let heads = self.shape.num_value_heads;
        let (qkv, gate, mut beta, alpha) = match &self.beta_alpha {
            BetaAlpha::Separate(beta, alpha) => {
                let [qkv, gate, beta, alpha] =
                    Linear::forward_all([&self.qkv, &self.gate, beta, alpha], ctx, x);
                (qkv, gate, beta, alpha)
            }
            BetaAlpha::Joined(both) => {
                let [qkv, gate, both] = Linear::forward_all([&self.qkv, &self.gate, both], ctx, x);
                let per_key = heads / self.shape.num_key_heads;
                let (mut beta, mut alpha) = (Vec::new(), Vec::new());
                for group in both.chunks_exact(2 * per_key) {
                    beta.extend_from_slice(&group[..per_key]);
                    alpha.extend_from_slice(&group[per_key..]);
                }
                (qkv, gate, beta, alpha)
            }
        };
        sigmoids(ctx, &mut beta);
        let mut rows = Vec::with_capacity(qkv.len() + 2 * beta.len());
        let tokens = qkv.chunks_exact(self.shape.conv_dim()).zip(beta.chunks_exact(heads));
        for ((qkv, beta), alpha) in tokens.zip(alpha.chunks_exact(heads)) {
            rows.extend_from_slice(qkv);
            rows.extend_from_slice(beta);
            let decays = alpha.iter().zip(&self.dt_bias).zip(&self.a);
            rows.extend(decays.map(|((alpha, dt), a)| libm::expf(a * softplus(alpha + dt))));
        }
        (rows, gate)
    }
}
