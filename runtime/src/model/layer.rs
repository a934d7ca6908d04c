//! One decoder layer: a mixer and a feed-forward, each around the residual stream.

use super::Compute;
use super::ExpertStore;
use super::cache::LayerCache;
use super::mixer::Mixer;
use super::moe::FeedForward;
use super::rope::Rope;
use crate::checkpoint::{Config, LayerId, WeightsError};
use crate::kernels::Activations;
use crate::kernels::vector::{AddScaled, rms_norm};

/// A decoder layer.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub id: LayerId,
    pub mixer_norm: Vec<f32>,
    pub mixer: Mixer,
    pub ffn_norm: Vec<f32>,
    pub ffn: FeedForward,
}

impl Layer {
    /// `x += mixer(norm(x))`, for tokens of one sequence that follow the positions in `cache`.
    pub fn mix(
        &self,
        ctx: &Compute,
        config: &Config,
        rope: &Rope,
        x: &mut [f32],
        cache: &mut LayerCache,
    ) -> Result<(), WeightsError> {
        let ctx = &ctx.in_layer(self.id);
        let normed = rms_norm(ctx.tier, x, &self.mixer_norm, config.rms_norm_eps);
        let normed = Activations::new(ctx.tier, &normed, config.hidden_size);
        cache.drop_old();
        let y = self.mixer.forward(ctx, config, rope, &normed, cache);
        self.check(&y, "attention")?;
        ctx.tier.run(AddScaled { out: x, factor: 1.0, x: &y });
        Ok(())
    }

    /// `x += ffn(norm(x))`; the tokens may belong to different sequences.
    pub fn feed_forward(
        &self,
        ctx: &Compute,
        config: &Config,
        experts: &dyn ExpertStore,
        x: &mut [f32],
    ) -> Result<(), WeightsError> {
        let ctx = &ctx.in_layer(self.id);
        let normed = rms_norm(ctx.tier, x, &self.ffn_norm, config.rms_norm_eps);
        let normed = Activations::new(ctx.tier, &normed, config.hidden_size);
        let y = self.ffn.forward(ctx, config, self.id, experts, &normed)?;
        self.check(&y, "feed-forward")?;
        ctx.tier.run(AddScaled { out: x, factor: 1.0, x: &y });
        Ok(())
    }

    /// Rejects outputs that are NaN or infinite. Every kernel propagates both.
    fn check(&self, y: &[f32], part: &str) -> Result<(), WeightsError> {
        match y.iter().all(|y| y.is_finite()) {
            true => Ok(()),
            false => Err(WeightsError::NotFinite { name: format!("layer {}: {part}", self.id.0) }),
        }
    }
}
