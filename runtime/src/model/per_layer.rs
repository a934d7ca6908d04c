//! Per-layer embeddings (Gemma 3n, Gemma 4): beside its embedding, each token has a small one for
//! every layer, which the layer adds to the residual stream behind a gate.
//!
//! ```text
//! e_l = (norm(W_model x_0 / sqrt(h)) + E_l[token] sqrt(w)) / sqrt(2)
//! x  += norm(W_proj (gelu(W_gate x) * e_l))
//! ```
//!
//! The table is most of such a model. Its rows are decoded where the file is mapped, and the pages
//! are given back: what they take is page cache, not memory of the process.

use super::Compute;
use super::linear::Linear;
use super::loader::Loader;
use crate::blocks::Matrix;
use crate::checkpoint::{Config, WeightsError};
use crate::kernels::Activations;
use crate::kernels::vector::{AddScaled, GeGlu, rms_norm};

/// Weights that all layers share: the table, and the projection of the embedding.
#[derive(Clone, Debug)]
pub(super) struct PerLayer {
    /// `[vocab_size, layers * width]`
    table: Matrix,
    /// `W_model`: `[layers * width, hidden_size]`
    projection: Linear,
    /// `[width]`
    norm: Vec<f32>,
}

impl PerLayer {
    /// Loads the table of a model that has one.
    pub fn load(loader: &Loader, config: &Config) -> Result<Option<Self>, WeightsError> {
        if config.per_layer_width == 0 {
            return Ok(None);
        }
        let name = "per_layer_model_proj";
        let weight = loader.matrix(&format!("{name}.weight"))?;
        Ok(Some(Self {
            table: loader.matrix("per_layer_token_embd.weight")?,
            projection: Linear { name, weight, bias: None },
            norm: loader.vector("per_layer_proj_norm.weight")?,
        }))
    }

    /// `e` of each token, `[tokens, layers * width]`, from their embeddings, `[tokens,
    /// hidden_size]`.
    pub fn inputs(&self, ctx: &Compute, config: &Config, tokens: &[u32], x: &[f32]) -> Vec<f32> {
        let width = self.norm.len();
        let embedded = Activations::new(ctx.tier, x, config.hidden_size);
        let mut projected = self.projection.forward(ctx, &embedded);
        let scale = 1.0 / (config.hidden_size as f32).sqrt();
        projected.iter_mut().for_each(|x| *x *= scale);
        let mut inputs = rms_norm(ctx.tier, &projected, &self.norm, config.rms_norm_eps);
        let (of_table, scale) = ((width as f32).sqrt(), std::f32::consts::FRAC_1_SQRT_2);
        ctx.pool.run_chunks(&mut inputs, self.table.cols(), &|token, inputs| {
            let mut row = vec![0.0; inputs.len()];
            self.table.decode_row(tokens[token] as usize, &mut row);
            ctx.tier.run(AddScaled { out: inputs, factor: of_table, x: &row });
            inputs.iter_mut().for_each(|x| *x *= scale);
        });
        self.table.release();
        inputs
    }
}

/// Weights by which one layer adds its embedding to the residual stream.
#[derive(Clone, Debug)]
pub(super) struct LayerEmbedding {
    /// `W_gate`: `[width, hidden_size]`
    pub gate: Linear,
    /// `W_proj`: `[hidden_size, width]`
    pub projection: Linear,
    /// `[hidden_size]`
    pub norm: Vec<f32>,
}

impl LayerEmbedding {
    /// Adds to `x`, `[tokens, hidden_size]`, what `inputs`, `[tokens, layers * width]`, say for the
    /// layer.
    pub fn add(&self, ctx: &Compute, config: &Config, layer: usize, inputs: &[f32], x: &mut [f32]) {
        let width = self.gate.weight.rows();
        let mut gates = self.gate.forward(ctx, &Activations::new(ctx.tier, x, config.hidden_size));
        let rows = inputs.chunks_exact(config.num_hidden_layers * width);
        for (gate, row) in gates.chunks_exact_mut(width).zip(rows) {
            ctx.tier.run(GeGlu { gate, up: &row[layer * width..][..width] });
        }
        let y = self.projection.forward(ctx, &Activations::new(ctx.tier, &gates, width));
        let y = rms_norm(ctx.tier, &y, &self.norm, config.rms_norm_eps);
        ctx.tier.run(AddScaled { out: x, factor: 1.0, x: &y });
    }
}
