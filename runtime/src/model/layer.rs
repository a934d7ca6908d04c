//! One decoder layer: a mixer and a feed-forward, each around the residual stream.

use super::Compute;
use super::ExpertStore;
use super::mixer::Mixer;
use super::moe::FeedForward;
use super::part::Part;
use super::per_layer::LayerEmbedding;
use super::rope::Angles;
use super::store::Purpose;
use crate::checkpoint::{Config, LayerId, WeightsError};
use crate::kernels::Activations;
use crate::kernels::scan::all_finite;
use crate::kernels::vector::{AddScaled, rms_norm};

/// A decoder layer.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub id: LayerId,
    pub mixer_norm: Vec<f32>,
    pub mixer: Mixer,
    /// Norm of the mixer's output (Gemma).
    pub mixer_post_norm: Option<Vec<f32>>,
    pub ffn_norm: Vec<f32>,
    pub ffn: FeedForward,
    /// Norm of the feed-forward's output (Gemma).
    pub ffn_post_norm: Option<Vec<f32>>,
    /// Embedding of the tokens for this layer (Gemma 4).
    pub embedding: Option<LayerEmbedding>,
    /// Factor on the residual stream after the layer (Gemma 4).
    pub scale: Option<f32>,
}

/// The halves of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Half {
    /// Attention or short convolution.
    Mixer,
    /// Feed-forward.
    FeedForward,
}

impl Layer {
    /// `x += scale * mixer(norm(x))`, where each token follows the sequence of its part.
    pub fn mix(
        &self,
        ctx: &Compute,
        config: &Config,
        angles: &Angles,
        x: &mut [f32],
        parts: &mut [Part],
    ) {
        let ctx = &ctx.in_layer(self.id);
        let normed = rms_norm(ctx.tier, x, &self.mixer_norm, config.rms_norm_eps);
        let normed = Activations::new(ctx.tier, &normed, config.hidden_size);
        parts.iter_mut().for_each(|part| part.cache.drop_old());
        let mut y = self.mixer.forward(ctx, config, angles, &normed, parts);
        if let Some(norm) = &self.mixer_post_norm {
            y = rms_norm(ctx.tier, &y, norm, config.rms_norm_eps);
        }
        ctx.tier.run(AddScaled { out: x, factor: config.scales.residual, x: &y });
    }

    /// `x += scale * ffn(norm(x))`; the tokens may belong to different sequences. `purposes`, `[tokens]`,
    /// says what each is for; `inputs` are their per-layer embeddings, if the model has any.
    pub fn feed_forward(
        &self,
        ctx: &Compute,
        config: &Config,
        experts: &dyn ExpertStore,
        purposes: &[Purpose],
        inputs: &[f32],
        x: &mut [f32],
    ) -> Result<(), WeightsError> {
        let ctx = &ctx.in_layer(self.id);
        let normed = rms_norm(ctx.tier, x, &self.ffn_norm, config.rms_norm_eps);
        let normed = Activations::new(ctx.tier, &normed, config.hidden_size);
        let ffn = &self.ffn;
        let mut y = ffn.forward(ctx, config, self.id, experts, purposes, x, &normed)?;
        if let Some(norm) = &self.ffn_post_norm {
            y = rms_norm(ctx.tier, &y, norm, config.rms_norm_eps);
        }
        ctx.tier.run(AddScaled { out: x, factor: config.scales.residual, x: &y });
        if let Some(embedding) = &self.embedding {
            embedding.add(ctx, config, self.id.0, inputs, x);
        }
        if let Some(scale) = self.scale {
            x.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(())
    }

    /// Rejects hidden states after one half of the layer that are NaN or infinite. Every kernel
    /// propagates both.
    pub fn check(&self, x: &[f32], half: Half) -> Result<(), WeightsError> {
        if all_finite(x) {
            return Ok(());
        }
        let half = match half {
            Half::Mixer => "attention",
            Half::FeedForward => "feed-forward",
        };
        Err(WeightsError::NotFinite { name: format!("layer {}: {half}", self.id.0) })
    }
}
