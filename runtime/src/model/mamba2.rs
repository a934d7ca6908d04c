//! Mamba-2 (arXiv 2405.21060) as in Granite 4: a short convolution over the inputs and the
//! projections `B` and `C`, and a state per head that each token decays and adds to.
//!
//! ```text
//! z, xBC, dt = W_in u                  x, B, C = silu(conv(xBC))
//! dt = softplus(dt + dt_bias)          a = exp(A dt)
//! S = a S + B (dt x)^T                 y = S^T C + D x
//! out = W_out norm(y * silu(z))
//! ```

use super::Compute;
use super::cache::StateShape;
use super::linear::Linear;
use super::part::Part;
use crate::checkpoint::config::{Config, Mamba2Config};
use crate::kernels::Activations;
use crate::kernels::ssd::StateSpace;
use crate::kernels::vector::{CausalConv, RmsNorm, SwiGlu, softplus};

/// The mixer of one layer.
#[derive(Clone, Debug)]
pub struct Mamba2 {
    /// Dimensions.
    pub shape: Mamba2Config,
    /// `z`, inputs of the convolution and `dt`: `[inner_dim + conv_dim + num_heads, hidden_size]`.
    pub input: Linear,
    /// Factors of each position in the window, oldest first: `[conv_kernel_dim]` of `[conv_dim]`.
    pub taps: Vec<Vec<f32>>,
    /// `[conv_dim]`
    pub conv_bias: Option<Vec<f32>>,
    /// `-exp(A_log)`, `[num_heads]`
    pub a: Vec<f32>,
    /// `D`, `[num_heads]`
    pub skip: Vec<f32>,
    /// `[num_heads]`
    pub dt_bias: Vec<f32>,
    /// `[inner_dim]`
    pub norm: Vec<f32>,
    /// `[hidden_size, inner_dim]`
    pub output: Linear,
}

impl Mamba2 {
    /// Mixes each token of `x`, `[tokens, hidden_size]`, with the state of the sequence of its part.
    pub fn forward(
        &self,
        ctx: &Compute,
        config: &Config,
        x: &Activations,
        parts: &mut [Part],
    ) -> Vec<f32> {
        let inner = self.shape.inner_dim();
        let (mut gate, rows) = self.rows(ctx, x);
        let mut out = vec![0.0; gate.len()];
        for part in parts {
            let start = part.rows.start;
            let rows = part.of(&rows, self.shape.row());
            part.cache.state().advance(rows, &mut |state, rows, first| {
                let tokens = self.recur(ctx, state, rows);
                if let Some(first) = first {
                    let at = (start + first) * inner;
                    out[at..at + tokens.len()].copy_from_slice(&tokens);
                }
            });
        }
        for (gate, up) in gate.chunks_exact_mut(inner).zip(out.chunks_exact(inner)) {
            ctx.tier.run(SwiGlu { gate, up });
        }
        // Each group is normalized by itself.
        let group = inner / self.shape.num_groups;
        let weights = self.norm.chunks_exact(group).cycle();
        for ((x, weight), out) in
            gate.chunks_exact(group).zip(weights).zip(out.chunks_exact_mut(group))
        {
            ctx.tier.run(RmsNorm { x, weight, eps: config.rms_norm_eps, out });
        }
        let out = Activations::new(ctx.tier, &out, inner);
        self.output.forward(ctx, &out)
    }

    /// The gate on the output, and what the state needs of each token: inputs of the convolution,
    /// and `dt`.
    fn rows(&self, ctx: &Compute, x: &Activations) -> (Vec<f32>, Vec<f32>) {
        let (inner, conv) = (self.shape.inner_dim(), self.shape.conv_dim());
        let projected = self.input.forward(ctx, x);
        let mut gate = Vec::with_capacity(x.tokens() * inner);
        let mut rows = Vec::with_capacity(x.tokens() * self.shape.row());
        for token in projected.chunks_exact(inner + self.shape.row()) {
            let (z, row) = token.split_at(inner);
            let (inputs, dt) = row.split_at(conv);
            gate.extend_from_slice(z);
            rows.extend_from_slice(inputs);
            rows.extend(dt.iter().zip(&self.dt_bias).map(|(dt, bias)| softplus(dt + bias)));
        }
        (gate, rows)
    }

    /// Updates the state by every row after the window, and returns the outputs, `[tokens,
    /// inner_dim]`.
    fn recur(&self, ctx: &Compute, state: &mut [f32], rows: &[f32]) -> Vec<f32> {
        let Mamba2Config { num_heads, conv_kernel_dim: taps, .. } = self.shape;
        let (row, conv) = (self.shape.row(), self.shape.conv_dim());
        let tokens = rows.len() / row + 1 - taps;

        let mut inputs = vec![0.0; tokens * conv];
        ctx.pool.run_chunks(&mut inputs, conv, &|token, out| {
            let window = rows[token * row..].chunks_exact(row).take(taps);
            let window: Vec<&[f32]> = window.map(|row| &row[..conv]).collect();
            let bias = self.conv_bias.as_deref();
            ctx.tier.run(CausalConv { inputs: &window, taps: &self.taps, bias, out });
        });
        let of_tokens = rows[(taps - 1) * row..].chunks_exact(row);
        let step: Vec<f32> = of_tokens.flat_map(|row| &row[conv..]).copied().collect();
        let decay = step.iter().zip(self.a.iter().cycle());
        let decay: Vec<f32> = decay.map(|(dt, a)| libm::expf(a * dt)).collect();
        let mut out = vec![0.0; tokens * self.shape.inner_dim()];
        StateSpace {
            heads: num_heads,
            groups: self.shape.num_groups,
            head_width: self.shape.head_dim,
            state_width: self.shape.state_dim,
            inputs: &inputs,
            step: &step,
            decay: &decay,
            skip: &self.skip,
        }
        .run(ctx.tier, ctx.pool, state, &mut out);
        out
    }
}

impl Mamba2Config {
    /// Numbers of a token's row: inputs of the convolution, and `dt`.
    fn row(&self) -> usize {
        self.conv_dim() + self.num_heads
    }

    /// Sizes of the state.
    pub(super) fn state_shape(&self) -> StateShape {
        StateShape {
            state: self.inner_dim() * self.state_dim,
            row: self.row(),
            window: self.conv_kernel_dim - 1,
        }
    }
}
