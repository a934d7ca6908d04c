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
use super::cache::StateShape;
use super::gqa::sigmoids;
use super::linear::Linear;
use super::part::Part;
use crate::checkpoint::config::{Config, GatedDeltaConfig, Recurrence};
use crate::kernels::Activations;
use crate::kernels::delta::DeltaRule;
use crate::kernels::vector::{CausalConv, L2Norm, SwiGlu, rms_norm, softplus};

/// Added to the sum of squares of queries and keys.
const L2_EPS: f32 = 1e-6;

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
        let mut out = vec![0.0; gate.len()];
        for part in parts {
            let start = part.rows.start;
            let rows = part.of(&rows, self.shape.row());
            part.cache.state().advance(rows, &mut |state, rows, first| {
                let tokens = self.recur(ctx, state, rows);
                if let Some(first) = first {
                    let at = (start + first) * value_dim;
                    out[at..at + tokens.len()].copy_from_slice(&tokens);
                }
            });
        }
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

    /// Updates the state by every row after the window, and returns the outputs, `[tokens,
    /// value_dim]`.
    fn recur(&self, ctx: &Compute, state: &mut [f32], rows: &[f32]) -> Vec<f32> {
        let GatedDeltaConfig { num_key_heads, num_value_heads: heads, .. } = self.shape;
        let GatedDeltaConfig { key_head_dim, value_head_dim, conv_kernel_dim, .. } = self.shape;
        let (key_dim, conv_dim) = (self.shape.key_dim(), self.shape.conv_dim());
        let row = self.shape.row();
        let tokens = rows.len() / row + 1 - conv_kernel_dim;

        let mut mixed = vec![0.0; tokens * conv_dim];
        ctx.pool.run_chunks(&mut mixed, conv_dim, &|token, out| {
            let inputs: Vec<&[f32]> = (token..token + conv_kernel_dim)
                .map(|position| &rows[position * row..][..conv_dim])
                .collect();
            ctx.tier.run(CausalConv { inputs: &inputs, taps: &self.taps, bias: None, out });
            let (queries, rest) = out.split_at_mut(key_dim);
            for (part, factor) in
                [(queries, 1.0 / (key_head_dim as f32).sqrt()), (&mut rest[..key_dim], 1.0)]
            {
                for x in part.chunks_exact_mut(key_head_dim) {
                    ctx.tier.run(L2Norm { x, factor, eps: L2_EPS });
                }
            }
        });
        let column = |from: &[f32], stride: usize, at: usize, width: usize| -> Vec<f32> {
            from.chunks_exact(stride).flat_map(|token| &token[at..at + width]).copied().collect()
        };
        let of_tokens = &rows[(conv_kernel_dim - 1) * row..];
        let mut out = vec![0.0; tokens * self.shape.value_dim()];
        DeltaRule {
            heads,
            key_heads: num_key_heads,
            tiled: self.shape.tiled,
            key_width: key_head_dim,
            value_width: value_head_dim,
            queries: &column(&mixed, conv_dim, 0, key_dim),
            keys: &column(&mixed, conv_dim, key_dim, key_dim),
            values: &column(&mixed, conv_dim, 2 * key_dim, self.shape.value_dim()),
            decay: &column(of_tokens, row, conv_dim + heads, heads),
            beta: &column(of_tokens, row, conv_dim, heads),
        }
        .run(ctx.tier, ctx.pool, state, &mut out);
        out
    }
}

impl GatedDeltaConfig {
    /// Numbers of a token's row: inputs of the convolution, `beta` and `g`.
    fn row(&self) -> usize {
        self.conv_dim() + 2 * self.num_value_heads
    }
}

impl Recurrence {
    /// Sizes of the state.
    pub fn state_shape(&self) -> StateShape {
        match self {
            Self::GatedDelta(delta) => StateShape {
                state: delta.value_dim() * delta.key_head_dim,
                row: delta.row(),
                window: delta.conv_kernel_dim - 1,
            },
            Self::Mamba2(mamba) => mamba.state_shape(),
        }
    }
}
