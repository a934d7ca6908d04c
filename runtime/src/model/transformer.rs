//! The decoder: embedding, layers of a mixer and a feed-forward around a residual stream, final
//! norm and output head.

use std::sync::Arc;

use super::cache::KvCache;
use super::layer::Layer;
use super::loader::Loader;
use super::moe::FeedForward;
use super::rope::Rope;
use super::store::{ExpertStore, Visit};
use super::{Compute, ModelError, Resident};
use crate::blocks::Matrix;
use crate::checkpoint::{Config, LayerId, Weights, WeightsError};
use crate::kernels::vector::rms_norm;
use crate::kernels::{Activations, matmul};

/// Tokens whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// Logits of the last token.
    Last,
    /// Logits of every token.
    All,
}

/// A model that can run. It has no state of its own: sequences live in a [`KvCache`].
pub struct Model {
    config: Config,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    output: Matrix,
    rope: Rope,
    experts: Arc<dyn ExpertStore>,
}

impl Model {
    /// Loads a model whose experts are all resident.
    pub fn load(weights: Arc<dyn Weights>) -> Result<Self, ModelError> {
        let experts = Arc::new(Resident::new(weights.clone()));
        Self::with_experts(&*weights, experts)
    }

    /// Loads a model that gets its routed experts from a store and everything else from `weights`.
    pub fn with_experts(
        weights: &dyn Weights,
        experts: Arc<dyn ExpertStore>,
    ) -> Result<Self, ModelError> {
        let loader = Loader::new(weights);
        let config = weights.config().clone();
        let layers = (0..config.num_hidden_layers)
            .map(|i| loader.layer(LayerId(i)))
            .collect::<Result<_, _>>()?;
        let embedding = loader.matrix("token_embd.weight")?;
        let output = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => loader.matrix("output.weight")?,
        };
        let norm = loader.output_norm()?;
        let factors = loader.rope_factors()?;
        let rope = Rope::new(&config, factors.as_deref());
        Ok(Self { config, embedding, layers, norm, output, rope, experts })
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Store of the routed experts.
    pub fn experts(&self) -> &Arc<dyn ExpertStore> {
        &self.experts
    }

    /// Runs `tokens`, which follow the positions in `cache`, and returns logits, `[wanted tokens,
    /// vocab_size]`. On an error the cache is unchanged.
    pub fn forward(
        &self,
        ctx: &Compute,
        tokens: &[u32],
        cache: &mut KvCache,
        wanted: Logits,
    ) -> Result<Vec<f32>, ModelError> {
        let past = cache.len();
        let result = self.run(ctx, tokens, cache, wanted);
        if result.is_err() {
            cache.truncate(past);
        }
        result
    }

    fn run(
        &self,
        ctx: &Compute,
        tokens: &[u32],
        cache: &mut KvCache,
        wanted: Logits,
    ) -> Result<Vec<f32>, ModelError> {
        let width = self.config.hidden_size;
        let mut x = embed(&self.config, &self.embedding, tokens)?;
        for (i, layer) in self.layers.iter().enumerate() {
            ctx.check_cancelled()?;
            layer.mix(ctx, &self.config, &self.rope, &mut x, cache.layer(i))?;
            if tokens.len() == 1 {
                self.prefetch(ctx, i + 1, &x);
            }
            layer.feed_forward(ctx, &self.config, &*self.experts, &mut x)?;
        }
        let from = match wanted {
            Logits::Last => x.len().saturating_sub(width),
            Logits::All => 0,
        };
        let normed = rms_norm(ctx.tier, &x[from..], &self.norm, self.config.rms_norm_eps);
        let normed = Activations::new(ctx.tier, &normed, width);
        ctx.observe("output", 1, &normed);
        let mut logits = vec![0.0; normed.tokens() * self.config.vocab_size];
        matmul(ctx.tier, ctx.pool, &self.output, &normed, &mut logits);
        logits.chunks_exact(self.config.vocab_size).try_for_each(check_logits)?;
        Ok(logits)
    }

    /// Predicts the visit of `layer` from `x`, the hidden state before the current one, and passes
    /// the prediction to the store.
    fn prefetch(&self, ctx: &Compute, layer: usize, x: &[f32]) {
        let Some(Layer { ffn_norm, ffn: FeedForward::Moe(moe), .. }) = self.layers.get(layer)
        else {
            return;
        };
        if self.experts.wants_prefetch(LayerId(layer)) {
            let normed = rms_norm(ctx.tier, x, ffn_norm, self.config.rms_norm_eps);
            let normed = Activations::new(ctx.tier, &normed, self.config.hidden_size);
            let slots = moe.router.route(ctx, &self.config.moe, &normed, None);
            let per_token = self.config.moe.num_experts_per_tok;
            self.experts.prefetch(&Visit { layer: LayerId(layer), slots: &slots, per_token });
        }
    }
}

/// Rejects logits, `[vocab_size]`, that are NaN or infinite, or all equal.
fn check_logits(logits: &[f32]) -> Result<(), ModelError> {
    if !logits.iter().all(|logit| logit.is_finite()) {
        return Err(WeightsError::NotFinite { name: "the output head".into() }.into());
    }
    match logits {
        [first, rest @ ..] if !rest.is_empty() && rest.iter().all(|logit| logit == first) => {
            Err(ModelError::NoPrediction)
        }
        _ => Ok(()),
    }
}

/// Hidden states before the first layer, `[tokens, hidden_size]`.
pub(super) fn embed(
    config: &Config,
    embedding: &Matrix,
    tokens: &[u32],
) -> Result<Vec<f32>, ModelError> {
    let (vocab_size, width) = (config.vocab_size, config.hidden_size);
    if let Some(&found) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
        return Err(ModelError::Token { found, vocab_size });
    }
    let mut x = vec![0.0; tokens.len() * width];
    for (token, x) in tokens.iter().zip(x.chunks_exact_mut(width)) {
        embedding.decode_row(*token as usize, x);
    }
    Ok(x)
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("config", &self.config).finish_non_exhaustive()
    }
}
