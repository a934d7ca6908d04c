//! The decoder: embedding, layers of attention and feed-forward around a residual stream, final norm and
//! output head.

use std::collections::HashMap;
use std::sync::Arc;

use super::attention::{Mla, Query};
use super::moe::{FeedForward, Mlp};
use super::observer::{Observer, Watch};
use super::rope::Rope;
use super::router::Router;
use super::{Config, LayerId, TensorSpec, Weights, WeightsError};
use crate::blocks::Matrix;
use crate::experts::{ExpertStore, Resident, Visit};
use crate::kernels::vector::{AddScaled, rms_norm};
use crate::kernels::{Activations, Tier, matmul};
use crate::session::cache::LatentCache;
use crate::threads::Pool;

/// What a forward pass computes with.
#[derive(Clone, Copy, Debug)]
pub struct Compute<'a> {
    /// The instruction set.
    pub tier: Tier,
    /// The threads.
    pub pool: &'a Pool,
    /// Who sees the inputs of the matrices, if anybody.
    pub(crate) watch: Option<Watch<'a>>,
}

impl<'a> Compute<'a> {
    /// With nobody watching.
    pub fn new(tier: Tier, pool: &'a Pool) -> Self {
        Self { tier, pool, watch: None }
    }

    /// With someone who sees the inputs of the matrices.
    pub fn watched_by(self, observer: &'a dyn Observer) -> Self {
        Self { watch: Some(Watch { observer, layer: None }), ..self }
    }

    fn in_layer(&self, layer: LayerId) -> Self {
        let watch = self.watch.map(|watch| Watch { layer: Some(layer), ..watch });
        Self { watch, ..*self }
    }

    /// Tells who watches what goes into some matrices.
    pub(crate) fn observe(&self, names: &[&str], heads: usize, x: &Activations) {
        if let Some(watch) = &self.watch {
            watch.matrices(names, heads, x);
        }
    }
}

/// Which tokens' logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// The last token's.
    Last,
    /// Every token's.
    All,
}

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Weights could not be had.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A token is not of this vocabulary.
    #[error("token {found} is not in the vocabulary of {vocab_size} tokens")]
    Token {
        /// The token.
        found: u32,
        /// Tokens of the vocabulary.
        vocab_size: usize,
    },
}

/// One decoder layer.
#[derive(Clone, Debug)]
struct Layer {
    attention_norm: Vec<f32>,
    attention: Mla,
    ffn_norm: Vec<f32>,
    ffn: FeedForward,
}

/// A model that can run. It has no state of its own: sequences live in a [`LatentCache`].
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
    /// Loads a model with all experts at hand.
    pub fn load(weights: Arc<dyn Weights>) -> Result<Self, ModelError> {
        let experts = Arc::new(Resident::new(weights.clone()));
        Self::with_experts(&*weights, experts)
    }

    /// Loads a model that gets its routed experts from a store, and all else from `weights`.
    pub fn with_experts(
        weights: &dyn Weights,
        experts: Arc<dyn ExpertStore>,
    ) -> Result<Self, ModelError> {
        let loader = Loader::new(weights);
        let config = weights.config().clone();
        let layers =
            (0..config.num_hidden_layers).map(|i| loader.layer(i)).collect::<Result<_, _>>()?;
        let embedding = loader.matrix("token_embd.weight")?;
        let output = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => loader.matrix("output.weight")?,
        };
        let norm = loader.vector("output_norm.weight")?;
        let rope = Rope::new(&config.rope, config.attention.qk_rope_head_dim);
        Ok(Self { config, embedding, layers, norm, output, rope, experts })
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where routed experts come from.
    pub fn experts(&self) -> &Arc<dyn ExpertStore> {
        &self.experts
    }

    /// Runs `tokens`, which follow the positions in `cache`, and gives logits, `[wanted tokens,
    /// vocab_size]`. The cache is unchanged where it fails.
    pub fn forward(
        &self,
        ctx: &Compute,
        tokens: &[u32],
        cache: &mut LatentCache,
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
        cache: &mut LatentCache,
        wanted: Logits,
    ) -> Result<Vec<f32>, ModelError> {
        let width = self.config.hidden_size;
        let eps = self.config.rms_norm_eps;
        let mut x = self.embed(tokens)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let ctx = &ctx.in_layer(LayerId(i));
            let normed = rms_norm(ctx.tier, &x, &layer.attention_norm, eps);
            let normed = Activations::new(ctx.tier, &normed, width);
            let y = layer.attention.forward(ctx, &self.config, &self.rope, &normed, cache.layer(i));
            ctx.tier.run(AddScaled { out: &mut x, factor: 1.0, x: &y });

            if tokens.len() == 1 {
                self.guess(ctx, i + 1, &x);
            }
            let normed = rms_norm(ctx.tier, &x, &layer.ffn_norm, eps);
            let normed = Activations::new(ctx.tier, &normed, width);
            let y = layer.ffn.forward(ctx, &self.config, LayerId(i), &*self.experts, &normed)?;
            ctx.tier.run(AddScaled { out: &mut x, factor: 1.0, x: &y });
        }
        let from = match wanted {
            Logits::Last => x.len().saturating_sub(width),
            Logits::All => 0,
        };
        let normed = rms_norm(ctx.tier, &x[from..], &self.norm, eps);
        let normed = Activations::new(ctx.tier, &normed, width);
        ctx.observe(&["output"], 1, &normed);
        let mut logits = vec![0.0; normed.tokens() * self.config.vocab_size];
        matmul(ctx.tier, ctx.pool, &self.output, &normed, &mut logits);
        Ok(logits)
    }

    /// Tells the store what a layer is likely to need, going by `x`, the state before it.
    fn guess(&self, ctx: &Compute, layer: usize, x: &[f32]) {
        let Some(Layer { ffn_norm, ffn: FeedForward::Moe { router, .. }, .. }) =
            self.layers.get(layer)
        else {
            return;
        };
        if self.experts.wants_guess(LayerId(layer)) {
            let normed = rms_norm(ctx.tier, x, ffn_norm, self.config.rms_norm_eps);
            let normed = Activations::new(ctx.tier, &normed, self.config.hidden_size);
            let slots = router.route(ctx.tier, ctx.pool, &self.config.moe, &normed, None);
            let per_token = self.config.moe.num_experts_per_tok;
            self.experts.guess(&Visit { layer: LayerId(layer), slots: &slots, per_token });
        }
    }

    fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let (vocab_size, width) = (self.config.vocab_size, self.config.hidden_size);
        if let Some(&found) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(ModelError::Token { found, vocab_size });
        }
        let mut x = vec![0.0; tokens.len() * width];
        for (token, x) in tokens.iter().zip(x.chunks_exact_mut(width)) {
            self.embedding.decode_row(*token as usize, x);
        }
        Ok(x)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Finds a model's tensors by their names in GGUF.
struct Loader<'a> {
    weights: &'a dyn Weights,
    specs: HashMap<String, TensorSpec>,
}

impl<'a> Loader<'a> {
    fn new(weights: &'a dyn Weights) -> Self {
        let config = weights.config();
        let specs = config.family.tensors(config);
        Self { weights, specs: specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect() }
    }

    fn find(&self, name: &str) -> Result<Option<Matrix>, WeightsError> {
        match self.specs.get(name) {
            Some(spec) => self.weights.tensor(spec),
            None => Ok(None),
        }
    }

    fn matrix(&self, name: &str) -> Result<Matrix, WeightsError> {
        self.find(name)?
            .ok_or_else(|| WeightsError::Missing { path: "model".into(), name: name.into() })
    }

    fn vector(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        Ok(self.matrix(name)?.decode())
    }

    fn layer(&self, i: usize) -> Result<Layer, WeightsError> {
        let matrix = |name: &str| self.matrix(&format!("blk.{i}.{name}.weight"));
        let vector = |name: &str| self.vector(&format!("blk.{i}.{name}.weight"));
        let mlp = |suffix: &str| -> Result<Mlp, WeightsError> {
            Ok(Mlp {
                gate: matrix(&format!("ffn_gate{suffix}"))?,
                up: matrix(&format!("ffn_up{suffix}"))?,
                down: matrix(&format!("ffn_down{suffix}"))?,
            })
        };
        let config = self.weights.config();
        let query = match config.attention.q_lora_rank {
            None => Query::Full(matrix("attn_q")?),
            Some(_) => Query::LowRank {
                a: matrix("attn_q_a")?,
                norm: vector("attn_q_a_norm")?,
                b: matrix("attn_q_b")?,
            },
        };
        let attention = Mla {
            query,
            kv_a: matrix("attn_kv_a_mqa")?,
            kv_a_norm: vector("attn_kv_a_norm")?,
            k_b: matrix("attn_k_b")?,
            v_b: matrix("attn_v_b")?,
            output: matrix("attn_output")?,
        };
        let ffn = if config.is_moe(i) {
            let bias = self.find(&format!("blk.{i}.exp_probs_b.bias"))?;
            let router =
                Router { weight: matrix("ffn_gate_inp")?, bias: bias.map(|bias| bias.decode()) };
            let shared = if config.moe.n_shared_experts > 0 { Some(mlp("_shexp")?) } else { None };
            FeedForward::Moe { router, shared }
        } else {
            FeedForward::Dense(mlp("")?)
        };
        Ok(Layer {
            attention_norm: vector("attn_norm")?,
            attention,
            ffn_norm: vector("ffn_norm")?,
            ffn,
        })
    }
}
