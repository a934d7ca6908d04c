//! Kimi Delta Attention (arXiv 2510.26692) as in Kimi-Linear and Ling 3: Gated DeltaNet with a decay
//! for each key channel, and a sigmoid as the gate on its output.
//!
//! ```text
//! q, k, v = silu(conv(W_q x)), silu(conv(W_k x)), silu(conv(W_v x))
//! q = norm(q) / sqrt(d)                 k = norm(k)
//! beta = sigmoid(W_b x)                 g = decay(W_f x + dt), per channel
//! S = diag(g) S + k (beta (v - (diag(g) S)^T k))^T        o = S^T q
//! out = W_o (norm(o) * sigmoid(W_g x))
//! ```

use super::Compute;
use super::delta_state::DeltaState;
use super::gqa::sigmoids;
use super::linear::Linear;
use super::part::Part;
use crate::checkpoint::config::{Config, DecayGate, KimiDeltaConfig};
use crate::kernels::Activations;
use crate::kernels::decay::ChannelDecay;
use crate::kernels::vector::{Multiply, rms_norm};

/// The mixer of one layer.
#[derive(Clone, Debug)]
pub struct KimiDeltaAttention {
    /// Dimensions.
    pub shape: KimiDeltaConfig,
    /// Queries, keys and values, each `[inner_dim, hidden_size]`.
    pub qkv: [Linear; 3],
    /// Strengths of the updates, `[num_heads, hidden_size]`.
    pub beta: Linear,
    /// Inputs of the decays, to `[inner_dim]`.
    pub decay: Gate,
    /// Gate on the output, to `[inner_dim]`.
    pub gate: Gate,
    /// Factors of each position in the window, oldest first: `[conv_kernel_dim]` of
    /// `[3 * inner_dim]`.
    pub taps: Vec<Vec<f32>>,
    /// Rates of the decays, as their kernel takes them, `[num_heads]`.
    pub rates: Vec<f32>,
    /// Added to the inputs of the decays, `[inner_dim]`.
    pub dt_bias: Vec<f32>,
    /// `[head_dim]`
    pub norm: Vec<f32>,
    /// `[hidden_size, inner_dim]`
    pub output: Linear,
}

/// Projection to the inputs of a gate.
#[derive(Clone, Debug)]
pub enum Gate {
    /// Full rank (Ling 3).
    Full(Linear),
    /// Low rank (Kimi-Linear): down, then up.
    LowRank(Linear, Linear),
}

impl Gate {
    /// The projection of the residual stream.
    fn first(&self) -> &Linear {
        match self {
            Self::Full(projection) | Self::LowRank(projection, _) => projection,
        }
    }

    /// The gate's inputs from the outputs of the first projection.
    fn finish(&self, ctx: &Compute, x: Vec<f32>) -> Vec<f32> {
        match self {
            Self::Full(_) => x,
            Self::LowRank(down, up) => {
                up.forward(ctx, &Activations::new(ctx.tier, &x, down.weight.rows()))
            }
        }
    }
}

impl KimiDeltaAttention {
    /// Mixes each token of `x`, `[tokens, hidden_size]`, with the state of the sequence of its part.
    pub fn forward(
        &self,
        ctx: &Compute,
        config: &Config,
        x: &Activations,
        parts: &mut [Part],
    ) -> Vec<f32> {
        let (rows, mut gate) = self.rows(ctx, x);
        let out = DeltaState::from(&self.shape).run(ctx, &self.taps, &rows, parts);
        sigmoids(ctx, &mut gate);
        let mut normed = rms_norm(ctx.tier, &out, &self.norm, config.rms_norm_eps);
        ctx.tier.run(Multiply { out: &mut normed, x: &gate });
        let out = Activations::new(ctx.tier, &normed, self.shape.inner_dim());
        self.output.forward(ctx, &out)
    }

    /// Rows of the recurrence (inputs of the convolutions, strengths and decays of each token), and
    /// the inputs of the gate on the output.
    fn rows(&self, ctx: &Compute, x: &Activations) -> (Vec<f32>, Vec<f32>) {
        let (heads, inner) = (self.shape.num_heads, self.shape.inner_dim());
        let [query, key, value] = &self.qkv;
        let projections = [query, key, value, &self.beta, self.decay.first(), self.gate.first()];
        let [q, k, v, mut beta, decay, gate] = Linear::forward_all(projections, ctx, x);
        sigmoids(ctx, &mut beta);
        let decay = self.decays(ctx, self.decay.finish(ctx, decay));
        let mut rows = Vec::with_capacity(4 * q.len() + beta.len());
        for (token, beta) in beta.chunks_exact(heads).enumerate() {
            let of_token = token * inner..(token + 1) * inner;
            for x in [&q, &k, &v] {
                rows.extend_from_slice(&x[of_token.clone()]);
            }
            rows.extend_from_slice(beta);
            rows.extend_from_slice(&decay[of_token]);
        }
        (rows, self.gate.finish(ctx, gate))
    }

    /// Decays of `x`, `[tokens, inner_dim]`.
    fn decays(&self, ctx: &Compute, mut x: Vec<f32>) -> Vec<f32> {
        let width = self.shape.head_dim;
        let bound = match self.shape.decay_gate {
            DecayGate::Softplus => None,
            DecayGate::Bounded(bound) => Some(bound),
        };
        ctx.pool.run_chunks(&mut x, self.shape.inner_dim(), &|_, x| {
            let heads = x.chunks_exact_mut(width).zip(self.dt_bias.chunks_exact(width));
            for ((x, bias), rate) in heads.zip(&self.rates) {
                ctx.tier.run(ChannelDecay { x, bias, rate: *rate, bound });
            }
        });
        x
    }
}
