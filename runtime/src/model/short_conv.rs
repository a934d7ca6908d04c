//! The gated short convolution of LFM2 (arXiv 2511.23404, section 2): each channel looks at the
//! last few tokens.
//!
//! ```text
//! B, C, h = W_in x                  z = B * h
//! y_t = sum over j of w_j * z_{t - L + 1 + j}
//! out = W_out (C * y)
//! ```

use std::ops::Range;

use super::Compute;
use super::linear::Linear;
use super::part::Part;
use crate::kernels::Activations;
use crate::kernels::vector::{AddProduct, Multiply};

/// The convolution of one layer.
#[derive(Clone, Debug)]
pub struct ShortConv {
    /// `[3 * hidden_size, hidden_size]`
    pub input: Linear,
    /// Factors of each position in the window, oldest first and the token itself last:
    /// `[conv_l_cache]` of `[hidden_size]`.
    pub taps: Vec<Vec<f32>>,
    /// `[hidden_size, hidden_size]`
    pub output: Linear,
}

impl ShortConv {
    /// Mixes each token of `x`, `[tokens, hidden_size]`, with the sequence of its part, and appends
    /// the tokens' positions to the caches.
    pub fn forward(&self, ctx: &Compute, x: &Activations, parts: &mut [Part]) -> Vec<f32> {
        let width = x.width;
        let mut projected = self.input.forward(ctx, x);
        let mut out = vec![0.0; x.values.len()];
        for part in parts {
            let Range { start, end } = part.rows;
            let projected = &mut projected[3 * width * start..3 * width * end];
            self.convolve(ctx, projected, part, &mut out[width * start..width * end]);
        }
        let out = Activations::new(ctx.tier, &out, width);
        self.output.forward(ctx, &out)
    }

    /// `C * y` of the tokens of one sequence, `[tokens, hidden_size]`, from their `B, C, h`.
    fn convolve(&self, ctx: &Compute, projected: &mut [f32], part: &mut Part, out: &mut [f32]) {
        let width = projected.len() / 3 / part.rows.len().max(1);
        let (width, cache) = (width.max(1), &mut *part.cache);
        for token in projected.chunks_exact_mut(3 * width) {
            let (b, h) = token.split_at_mut(2 * width);
            ctx.tier.run(Multiply { out: &mut b[..width], x: h });
            cache.push(&b[..width]);
        }
        // Cached values are rounded, so that a token sees the same values whether it is computed
        // alone or in a prompt.
        let mut z = vec![0.0; width];
        let gates = projected.chunks_exact(3 * width).map(|token| &token[width..2 * width]);
        for (t, (y, gate)) in out.chunks_exact_mut(width).zip(gates).enumerate() {
            for (back, tap) in (0..self.taps.len()).rev().zip(&self.taps) {
                if let Some(position) = (part.past + t).checked_sub(back) {
                    cache.read(position, &mut z);
                    ctx.tier.run(AddProduct { out: y, a: tap, b: &z });
                }
            }
            ctx.tier.run(Multiply { out: y, x: gate });
        }
    }
}
