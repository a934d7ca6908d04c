//! Multi-token prediction (DeepSeek-V3, section 2.2): a further layer that predicts the token after
//! the next one, from the state of the main model and the next token.
//!
//! ```text
//! h'_i = M [norm(Emb(t_{i+1})); norm(h_i)]      h_i^1 = TRM(h'_i)      P(t_{i+2}) = Head(norm(h_i^1))
//! ```
//!
//! States of both are those after the norm before the head. A chain of predictions passes `h_i^1` on
//! in place of `h_{i+1}`, and the prediction in place of `t_{i+2}`.

use std::ops::Range;

use super::cache::{CacheType, LayerCache};
use super::layer::{Half, Layer};
use super::linear::Linear;
use super::loader::Loader;
use super::part::Part;
use super::rope::Angles;
use super::store::Purpose;
use super::transformer::{Model, embed};
use super::{Compute, ModelError};
use crate::blocks::Matrix;
use crate::checkpoint::{Config, LayerId, Weights, WeightsError};
use crate::kernels::vector::rms_norm;
use crate::kernels::{Activations, matmul};

/// A multi-token-prediction layer.
pub(super) struct Mtp {
    /// `enorm`, `[hidden_size]`
    token_norm: Vec<f32>,
    /// `hnorm`, `[hidden_size]`
    state_norm: Vec<f32>,
    /// `M`: `[hidden_size, 2 * hidden_size]`
    projection: Linear,
    layer: Layer,
    /// Norm before the head, `[hidden_size]`.
    norm: Vec<f32>,
    /// Embedding and head, where they are not the main model's.
    embedding: Option<Matrix>,
    output: Option<Matrix>,
}

impl Mtp {
    /// Loads the first such layer of a model; `None` if there is none.
    fn load(weights: &dyn Weights) -> Result<Option<Self>, WeightsError> {
        let (config, loader) = (weights.config(), Loader::new(weights));
        let layer = config.num_hidden_layers;
        if config.num_nextn_predict_layers == 0 {
            return Ok(None);
        }
        let name = |name: &str| format!("blk.{layer}.nextn.{name}.weight");
        Ok(Some(Self {
            token_norm: loader.vector(&name("enorm"))?,
            state_norm: loader.vector(&name("hnorm"))?,
            projection: Linear {
                name: "nextn.eh_proj",
                weight: loader.matrix(&name("eh_proj"))?,
                bias: None,
            },
            layer: loader.layer(LayerId(layer))?,
            // Ling names it after the layer.
            norm: match loader.find_vector(&format!("blk.{layer}.layer_output_norm.weight"))? {
                Some(norm) => norm,
                None => loader.vector(&name("shared_head_norm"))?,
            },
            embedding: loader.find(&name("embed_tokens"))?,
            output: loader.find(&name("shared_head_head"))?,
        }))
    }
}

/// Tokens of one sequence for the multi-token-prediction layer.
#[derive(Debug)]
pub struct MtpChunk<'a> {
    /// State of the main model at each position ([`Chunk::states`](super::Chunk::states)), or of
    /// this layer at the position before, `[tokens, hidden_size]`.
    pub states: &'a [f32],
    /// The token that follows each state.
    pub tokens: &'a [u32],
    /// Entries of earlier positions. It may begin anywhere in the sequence and have gaps: then the
    /// predictions are less good.
    pub cache: &'a mut LayerCache,
}

impl Model {
    /// Loads the multi-token-prediction layer, for [`Model::predict`]. Returns whether the model
    /// has one.
    pub fn load_mtp(&mut self, weights: &dyn Weights) -> Result<bool, ModelError> {
        self.mtp = Mtp::load(weights)?;
        Ok(self.mtp.is_some())
    }

    /// Whether a multi-token-prediction layer is loaded.
    pub fn has_mtp(&self) -> bool {
        self.mtp.is_some()
    }

    /// An empty cache for the multi-token-prediction layer.
    pub fn mtp_cache(&self, ty: CacheType) -> LayerCache {
        LayerCache::new(self.config(), self.config().num_hidden_layers, ty)
    }

    /// Runs the multi-token-prediction layer over chunks of several sequences, and returns its
    /// state after the last token of each, `[chunks, hidden_size]`. On an error the caches are as
    /// they were.
    ///
    /// # Errors
    /// If the store cannot provide an expert, the pass is cancelled, or numbers are not finite.
    pub fn run_mtp(&self, ctx: &Compute, chunks: &mut [MtpChunk]) -> Result<Vec<f32>, ModelError> {
        let past: Vec<usize> = chunks.iter().map(|chunk| chunk.cache.len()).collect();
        let states = self.through_mtp(ctx, chunks);
        if states.is_err() {
            chunks.iter_mut().zip(past).for_each(|(chunk, past)| chunk.cache.truncate(past));
        }
        states
    }

    fn through_mtp(&self, ctx: &Compute, chunks: &mut [MtpChunk]) -> Result<Vec<f32>, ModelError> {
        let (config, Some(mtp)) = (self.config(), &self.mtp) else { return Ok(Vec::new()) };
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        ctx.check_cancelled()?;
        let width = config.hidden_size;
        let (mut x, mut rows) = (Vec::new(), Vec::new());
        for chunk in &*chunks {
            let first: usize = rows.last().map_or(0, |rows: &Range<usize>| rows.end);
            rows.push(first..first + chunk.tokens.len());
            x.extend(self.combine(ctx, mtp, chunk)?);
        }
        let inputs = Activations::new(ctx.tier, &x, 2 * width);
        let mut x = mtp.projection.forward(&ctx.in_layer(mtp.layer.id), &inputs);
        let parts = chunks.iter_mut().zip(&rows);
        let mut parts: Vec<Part> =
            parts.map(|(chunk, rows)| Part::new(rows.clone(), chunk.cache)).collect();
        let mut angles = Angles::default();
        angles.move_to(&self.rope, &parts);
        mtp.layer.mix(ctx, config, &angles, &mut x, &mut parts);
        mtp.layer.check(&x, Half::Mixer)?;
        let decodes = rows.iter().all(|rows| rows.len() <= MOST_TOGETHER);
        let purpose = if decodes { Purpose::Decode } else { Purpose::Prompt };
        let purposes = vec![purpose; x.len() / width];
        mtp.layer.feed_forward(ctx, config, &**self.experts(), &purposes, &[], &mut x)?;
        mtp.layer.check(&x, Half::FeedForward)?;
        let last = |rows: &Range<usize>| x[(rows.end - 1) * width..rows.end * width].iter();
        let last = rows.iter().filter(|rows| !rows.is_empty()).flat_map(last);
        let last: Vec<f32> = last.copied().collect();
        Ok(rms_norm(ctx.tier, &last, &mtp.norm, config.rms_norm_eps))
    }

    /// `[norm(Emb(t_{i+1})); norm(h_i)]`, `[tokens, 2 * hidden_size]`.
    fn combine(&self, ctx: &Compute, mtp: &Mtp, chunk: &MtpChunk) -> Result<Vec<f32>, ModelError> {
        let Config { hidden_size: width, rms_norm_eps: eps, .. } = *self.config();
        let embedding = mtp.embedding.as_ref().unwrap_or(&self.embedding);
        let tokens = embed(self.config(), embedding, chunk.tokens)?;
        let tokens = rms_norm(ctx.tier, &tokens, &mtp.token_norm, eps);
        let states = rms_norm(ctx.tier, chunk.states, &mtp.state_norm, eps);
        let pairs = tokens.chunks_exact(width).zip(states.chunks_exact(width));
        Ok(pairs.flat_map(|(token, state)| token.iter().chain(state)).copied().collect())
    }

    /// The likeliest token after each state of the multi-token-prediction layer, `[chunks,
    /// hidden_size]`.
    pub fn predict(&self, ctx: &Compute, states: &[f32]) -> Vec<u32> {
        let (config, Some(mtp)) = (self.config(), &self.mtp) else { return Vec::new() };
        let states = Activations::new(ctx.tier, states, config.hidden_size);
        let mut logits = vec![0.0; states.tokens() * config.vocab_size];
        let output = mtp.output.as_ref().unwrap_or(&self.output);
        matmul(ctx.tier, ctx.pool, output, &states, &mut logits);
        logits.chunks_exact(config.vocab_size).map(likeliest).collect()
    }
}

/// Tokens of a sequence up to which a pass is a step of an answer rather than a part of a prompt.
const MOST_TOGETHER: usize = 16;

fn likeliest(logits: &[f32]) -> u32 {
    let better = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (0..logits.len()).fold(0, better) as u32
}
