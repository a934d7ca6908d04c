//! Layer-by-layer execution with one layer at a time in memory: all tokens go through a layer
//! before the next one is loaded. The caller holds hidden states and caches. The arithmetic is
//! bit-identical to that of [`Model`](super::Model).

use std::sync::Arc;

use super::ExpertStore;
use super::cache::LayerCache;
use super::layer::{Half, Layer};
use super::loader::Loader;
use super::part::Part;
use super::per_layer::PerLayer;
use super::rope::{Angles, Rope};
use super::store::Purpose;
use super::transformer::embed;
use super::{Compute, ModelError};
use crate::blocks::Matrix;
use crate::checkpoint::{Config, LayerId, Weights, WeightsError};
use crate::kernels::Activations;
use crate::kernels::vector::rms_norm;

/// A model without its layers.
pub struct Layerwise {
    weights: Arc<dyn Weights>,
    experts: Arc<dyn ExpertStore>,
    rope: Rope,
    per_layer: Option<PerLayer>,
}

/// One layer of the model. Mapped weights are released when it is dropped.
pub struct LoadedLayer<'a> {
    model: &'a Layerwise,
    layer: Layer,
    lent: Vec<Matrix>,
}

impl Layerwise {
    /// Creates a model from `weights` that gets its routed experts from a store.
    pub fn new(
        weights: Arc<dyn Weights>,
        experts: Arc<dyn ExpertStore>,
    ) -> Result<Self, WeightsError> {
        let config = weights.config();
        let loader = Loader::new(&*weights);
        let factors = loader.rope_factors()?;
        let rope = Rope::new(config, factors.as_deref());
        let per_layer = PerLayer::load(&loader, config)?;
        drop(loader);
        Ok(Self { weights, experts, rope, per_layer })
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        self.weights.config()
    }

    /// The hidden states before the first layer, `[tokens, hidden_size]`.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let embedding = Loader::new(&*self.weights).matrix("token_embd.weight")?;
        let x = embed(self.config(), &embedding, tokens);
        embedding.release();
        x
    }

    /// Per-layer embeddings of tokens, `[tokens, layers * width]`; empty if the model has none.
    pub fn inputs(&self, ctx: &Compute, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let Some(per_layer) = &self.per_layer else { return Ok(Vec::new()) };
        Ok(per_layer.inputs(ctx, self.config(), tokens, &self.embed(tokens)?))
    }

    /// Loads a layer.
    pub fn layer(&self, layer: LayerId) -> Result<LoadedLayer<'_>, WeightsError> {
        let loader = Loader::new(&*self.weights);
        let layer = loader.layer(layer)?;
        Ok(LoadedLayer { model: self, layer, lent: loader.into_lent() })
    }

    /// Shows the observer of `ctx` the input of the output head, computed from the hidden states
    /// after the last layer.
    pub fn show_output(&self, ctx: &Compute, x: &[f32]) -> Result<(), WeightsError> {
        let norm = Loader::new(&*self.weights).output_norm()?;
        let normed = rms_norm(ctx.tier, x, &norm, self.config().rms_norm_eps);
        let normed = Activations::new(ctx.tier, &normed, self.config().hidden_size);
        ctx.observe("output", 1, &normed);
        Ok(())
    }
}

impl LoadedLayer<'_> {
    /// Applies the mixer, the first half of the layer, to tokens of one sequence, which follow
    /// `past` positions. `cache` is that of the layer whose keys and values this one uses
    /// ([`Config::cache_layer`]). `x`, `[tokens, hidden_size]`, is changed in place.
    pub fn mix(
        &self,
        ctx: &Compute,
        x: &mut [f32],
        cache: &mut LayerCache,
        past: usize,
    ) -> Result<(), WeightsError> {
        let config = self.model.config();
        let mut parts = [Part { rows: 0..x.len() / config.hidden_size, cache, past }];
        let mut angles = Angles::default();
        angles.move_to(&self.model.rope, &parts);
        self.layer.mix(ctx, config, &angles, x, &mut parts);
        self.layer.check(x, Half::Mixer)
    }

    /// Applies the feed-forward, the second half of the layer. The tokens may belong to different
    /// sequences; the more tokens, the fewer times an expert is fetched. `inputs` are their
    /// per-layer embeddings ([`Layerwise::inputs`]).
    pub fn feed_forward(
        &self,
        ctx: &Compute,
        inputs: &[f32],
        x: &mut [f32],
    ) -> Result<(), WeightsError> {
        let config = self.model.config();
        let purposes = vec![Purpose::Prompt; x.len() / config.hidden_size];
        self.layer.feed_forward(ctx, config, &*self.model.experts, &purposes, inputs, x)?;
        self.layer.check(x, Half::FeedForward)
    }
}

impl Drop for LoadedLayer<'_> {
    fn drop(&mut self) {
        self.lent.iter().for_each(Matrix::release);
    }
}
