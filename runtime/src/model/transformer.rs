//! The decoder: embedding, layers of a mixer and a feed-forward around a residual stream, final
//! norm and output head.

use std::sync::Arc;

use super::cache::KvCache;
use super::layer::{Half, Layer};
use super::loader::Loader;
use super::mtp::Mtp;
use super::pass_limit::PassLimit;
use super::per_layer::PerLayer;
use super::rope::{Angles, Rope};
use super::step::{Chunk, Step};
use super::store::{ExpertStore, Purpose, Visit};
use super::{Compute, ModelError, Resident};
use crate::blocks::Matrix;
use crate::checkpoint::{Config, LayerId, Weights, WeightsError};
use crate::kernels::scan::all_finite;
use crate::kernels::vector::{SoftCap, rms_norm};
use crate::kernels::{Activations, matmul};

/// Logits per task of their limit.
const LOGITS_PER_TASK: usize = 1 << 14;

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
    pub(super) embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    pub(super) output: Matrix,
    pub(super) rope: Rope,
    per_layer: Option<PerLayer>,
    experts: Arc<dyn ExpertStore>,
    pub(super) mtp: Option<Mtp>,
    pass_limit: Arc<PassLimit>,
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
        let per_layer = PerLayer::load(&loader, &config)?;
        let (mtp, pass_limit) = (None, Arc::default());
        Ok(Self {
            config,
            embedding,
            layers,
            norm,
            output,
            rope,
            per_layer,
            experts,
            mtp,
            pass_limit,
        })
    }

    /// Bounds the passes of sessions and engines by a limit that is shared with the caller.
    pub fn limit_passes(&mut self, limit: Arc<PassLimit>) {
        self.pass_limit = limit;
    }

    /// The number of tokens of a prompt to compute together, where `planned` were planned.
    pub fn tokens_of_pass(&self, planned: usize) -> usize {
        planned.min(self.pass_limit.tokens()).max(1)
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
        self.forward_chunk(ctx, Chunk::new(tokens, cache, wanted))
    }

    /// The same for a chunk with other options.
    pub fn forward_chunk(&self, ctx: &Compute, chunk: Chunk) -> Result<Vec<f32>, ModelError> {
        let mut results = self.forward_batch(ctx, &mut [chunk])?;
        results.pop().unwrap_or(Err(ModelError::Cancelled))
    }

    /// Runs chunks of several sequences side by side, and returns the logits of each, which have
    /// the bits that they have alone: attention and short convolutions see one sequence each,
    /// everything else sees all tokens, and each expert is fetched once.
    ///
    /// A chunk with an invalid token, with its cancellation flag set, or with numbers that are not
    /// finite has an error as its result, and leaves the others as they would be without it.
    ///
    /// # Errors
    /// If the store cannot provide an expert, or the pass is cancelled. A chunk that has no result
    /// has its cache unchanged.
    pub fn forward_batch(
        &self,
        ctx: &Compute,
        chunks: &mut [Chunk],
    ) -> Result<Vec<Result<Vec<f32>, ModelError>>, ModelError> {
        self.experts.check()?;
        let mut step = Step::new(&self.config, &self.embedding, chunks);
        if let Some(per_layer) = self.per_layer.as_ref().filter(|_| !step.is_done()) {
            step.inputs = per_layer.inputs(ctx, &self.config, &step.tokens(), &step.x);
        }
        match self.run(ctx, &mut step) {
            Ok(()) => {
                let logits = self.logits(ctx, &mut step);
                Ok(step.finish(logits, check_logits, self.config.vocab_size))
            }
            Err(error) => {
                step.roll_back();
                Err(error)
            }
        }
    }

    /// Runs all layers, or as many as there are chunks for.
    fn run(&self, ctx: &Compute, step: &mut Step) -> Result<(), ModelError> {
        let (config, mut angles) = (&self.config, Angles::default());
        for (i, layer) in self.layers.iter().enumerate() {
            ctx.check_cancelled()?;
            step.drop_cancelled();
            if step.is_done() {
                break;
            }
            let (x, mut parts) = step.parts(config.cache_layer(i));
            angles.move_to(&self.rope, &parts);
            layer.mix(ctx, config, &angles, x, &mut parts);
            step.check(|_, x| layer.check(x, Half::Mixer));
            if step.is_done() {
                break;
            }
            if Purpose::all_decode(&step.purposes) {
                self.prefetch(ctx, i + 1, step);
            }
            let Step { x, purposes, inputs, .. } = step;
            layer.feed_forward(ctx, config, &*self.experts, purposes, inputs, x)?;
            step.check(|_, x| layer.check(x, Half::FeedForward));
        }
        Ok(())
    }

    /// The wanted logits of the chunks that still run, one after the other.
    fn logits(&self, ctx: &Compute, step: &mut Step) -> Vec<f32> {
        if step.is_done() {
            return Vec::new();
        }
        let config = &self.config;
        step.show_states(|x| rms_norm(ctx.tier, x, &self.norm, config.rms_norm_eps));
        let normed = rms_norm(ctx.tier, &step.wanted(), &self.norm, config.rms_norm_eps);
        let normed = Activations::new(ctx.tier, &normed, config.hidden_size);
        ctx.observe("output", 1, &normed);
        let mut logits = vec![0.0; normed.tokens() * config.vocab_size];
        matmul(ctx.tier, ctx.pool, &self.output, &normed, &mut logits);
        if config.scales.logits != 1.0 {
            logits.iter_mut().for_each(|logit| *logit /= config.scales.logits);
        }
        if let Some(cap) = config.scales.logit_cap {
            let cap = &|_, x: &mut [f32]| ctx.tier.run(SoftCap { x, cap });
            ctx.pool.run_chunks(&mut logits, LOGITS_PER_TASK, cap);
        }
        logits
    }

    /// Predicts the visit of `layer` from the hidden states before the current one, and passes the
    /// prediction to the store.
    fn prefetch(&self, ctx: &Compute, layer: usize, step: &Step) {
        let (config, Some(next)) = (&self.config, self.layers.get(layer)) else { return };
        if self.experts.wants_prefetch(LayerId(layer)) {
            let inputs = next.ffn.router(ctx, config, &next.ffn_norm, &step.x);
            let Some((router, inputs)) = inputs else { return };
            let inputs = Activations::new(ctx.tier, &inputs, config.hidden_size);
            let slots = router.route(ctx, &config.moe, &inputs, None);
            let per_token = config.moe.num_experts_per_tok;
            let (layer, purposes) = (LayerId(layer), &*step.purposes);
            self.experts.prefetch(&Visit { layer, slots: &slots, per_token, purposes });
        }
    }
}

/// Rejects logits, `[vocab_size]`, that are NaN or infinite, or all equal.
fn check_logits(logits: &[f32]) -> Result<(), ModelError> {
    if !all_finite(logits) {
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
    if config.scales.embedding != 1.0 {
        x.iter_mut().for_each(|x| *x *= config.scales.embedding);
    }
    Ok(x)
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("config", &self.config).finish_non_exhaustive()
    }
}
