//! The recurrence that Gated DeltaNet and Kimi Delta Attention share: a short convolution over
//! queries, keys and values, their norms, and the delta rule over the state of a sequence.

use super::Compute;
use super::cache::StateShape;
use super::part::Part;
use crate::checkpoint::config::{GatedDeltaConfig, KimiDeltaConfig, Recurrence};
use crate::kernels::delta::DeltaRule;
use crate::kernels::vector::{CausalConv, L2Norm};

/// Added to the sum of squares of queries and keys.
const L2_EPS: f32 = 1e-6;

/// Dimensions of the recurrence. A token's row has the inputs of the convolution, the strengths
/// `[heads]` and the decays `[heads, decays]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeltaState {
    key_heads: usize,
    heads: usize,
    /// Whether value head `i` belongs to key head `i % key_heads`.
    tiled: bool,
    key_width: usize,
    value_width: usize,
    /// Decays of each head: one, or one for each key channel.
    decays: usize,
    /// Positions in the window of the convolution.
    window: usize,
}

impl From<&GatedDeltaConfig> for DeltaState {
    fn from(config: &GatedDeltaConfig) -> Self {
        Self {
            key_heads: config.num_key_heads,
            heads: config.num_value_heads,
            tiled: config.tiled,
            key_width: config.key_head_dim,
            value_width: config.value_head_dim,
            decays: 1,
            window: config.conv_kernel_dim,
        }
    }
}

impl From<&KimiDeltaConfig> for DeltaState {
    fn from(config: &KimiDeltaConfig) -> Self {
        Self {
            key_heads: config.num_heads,
            heads: config.num_heads,
            tiled: false,
            key_width: config.head_dim,
            value_width: config.head_dim,
            decays: config.head_dim,
            window: config.conv_kernel_dim,
        }
    }
}

impl DeltaState {
    fn key_dim(&self) -> usize {
        self.key_heads * self.key_width
    }

    fn value_dim(&self) -> usize {
        self.heads * self.value_width
    }

    /// Channels of the convolution.
    fn conv_dim(&self) -> usize {
        2 * self.key_dim() + self.value_dim()
    }

    /// Numbers of a token's row.
    pub fn row(&self) -> usize {
        self.conv_dim() + self.heads * (1 + self.decays)
    }

    /// Updates the state of each part's sequence by its rows of `rows`, `[tokens, row]`, and
    /// returns the outputs, `[tokens, value_dim]`. `taps` are the factors of each position in the
    /// window, oldest first, `[conv_dim]` each.
    pub fn run(
        &self,
        ctx: &Compute,
        taps: &[Vec<f32>],
        rows: &[f32],
        parts: &mut [Part],
    ) -> Vec<f32> {
        let value_dim = self.value_dim();
        let mut out = vec![0.0; rows.len() / self.row() * value_dim];
        for part in parts {
            let start = part.rows.start;
            let rows = part.of(rows, self.row());
            part.cache.state().advance(rows, &mut |state, rows, first| {
                let tokens = self.recur(ctx, taps, state, rows);
                if let Some(first) = first {
                    let at = (start + first) * value_dim;
                    out[at..at + tokens.len()].copy_from_slice(&tokens);
                }
            });
        }
        out
    }

    /// Updates the state by every row after the window, and returns the outputs, `[tokens,
    /// value_dim]`.
    fn recur(&self, ctx: &Compute, taps: &[Vec<f32>], state: &mut [f32], rows: &[f32]) -> Vec<f32> {
        let Self { key_heads, heads, key_width, value_width, window, .. } = *self;
        let (key_dim, conv_dim, row) = (self.key_dim(), self.conv_dim(), self.row());
        let tokens = rows.len() / row + 1 - window;

        let mut mixed = vec![0.0; tokens * conv_dim];
        ctx.pool.run_chunks(&mut mixed, conv_dim, &|token, out| {
            let inputs: Vec<&[f32]> = (token..token + window)
                .map(|position| &rows[position * row..][..conv_dim])
                .collect();
            ctx.tier.run(CausalConv { inputs: &inputs, taps, bias: None, out });
            let (queries, rest) = out.split_at_mut(key_dim);
            for (part, factor) in
                [(queries, 1.0 / (key_width as f32).sqrt()), (&mut rest[..key_dim], 1.0)]
            {
                for x in part.chunks_exact_mut(key_width) {
                    ctx.tier.run(L2Norm { x, factor, eps: L2_EPS });
                }
            }
        });
        let column = |from: &[f32], stride: usize, at: usize, width: usize| -> Vec<f32> {
            from.chunks_exact(stride).flat_map(|token| &token[at..at + width]).copied().collect()
        };
        let of_tokens = &rows[(window - 1) * row..];
        let mut out = vec![0.0; tokens * self.value_dim()];
        DeltaRule {
            heads,
            key_heads,
            tiled: self.tiled,
            key_width,
            value_width,
            queries: &column(&mixed, conv_dim, 0, key_dim),
            keys: &column(&mixed, conv_dim, key_dim, key_dim),
            values: &column(&mixed, conv_dim, 2 * key_dim, self.value_dim()),
            decay: &column(of_tokens, row, conv_dim + heads, heads * self.decays),
            beta: &column(of_tokens, row, conv_dim, heads),
        }
        .run(ctx.tier, ctx.pool, state, &mut out);
        out
    }
}

impl Recurrence {
    /// Sizes of the state.
    pub fn state_shape(&self) -> StateShape {
        let state = match self {
            Self::GatedDelta(config) => DeltaState::from(config),
            Self::KimiDelta(config) => DeltaState::from(config),
            Self::Mamba2(mamba) => return mamba.state_shape(),
        };
        StateShape {
            state: state.value_dim() * state.key_width,
            row: state.row(),
            window: state.window - 1,
        }
    }
}
