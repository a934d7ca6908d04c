//! Multi-head latent attention (DeepSeek-V2, section 2.1, whose equation numbers the comments use),
//! absorbed: the key half of `kv_b_proj` is applied to the query and the value half to the result,
//! so that attention runs over the compressed latents themselves and a cached position costs
//! `kv_lora_rank + qk_rope_head_dim` numbers.

use super::Compute;
use super::gqa::sigmoids;
use super::linear::Linear;
use super::part::Part;
use super::rope::Angles;
use crate::checkpoint::config::{Config, LayerType, MlaConfig};
use crate::kernels::Activations;
use crate::kernels::attention::{CausalAttention, EntryLayout, attend_all};
use crate::kernels::vector::rms_norm;

/// The attention of one layer.
#[derive(Clone, Debug)]
pub struct Mla {
    /// Dimensions.
    pub shape: MlaConfig,
    /// Query projection.
    pub query: Query,
    /// `kv_a_proj_with_mqa`, `W_DKV` and `W_KR`: `[kv_lora_rank + qk_rope_head_dim, hidden_size]`
    pub kv_a: Linear,
    /// `[kv_lora_rank]`
    pub kv_a_norm: Vec<f32>,
    /// Key half of `kv_b_proj`, `W_UK` transposed: per head `[kv_lora_rank, qk_nope_head_dim]`.
    pub k_b: Linear,
    /// Value half, `W_UV`: per head `[v_head_dim, kv_lora_rank]`.
    pub v_b: Linear,
    /// Gate on the output, `[heads, hidden_size]`.
    pub gate: Option<Linear>,
    /// `W_O`: `[hidden_size, heads * v_head_dim]`
    pub output: Linear,
}

/// Projection from the residual stream to queries, `[heads * (qk_nope_head_dim +
/// qk_rope_head_dim)]`.
#[derive(Clone, Debug)]
pub enum Query {
    /// `W_q`, full rank (V2-Lite, Moonlight).
    Full(Linear),
    /// Low-rank query projection.
    LowRank {
        /// `W_DQ`: `[q_lora_rank, hidden_size]`
        a: Linear,
        /// `[q_lora_rank]`
        norm: Vec<f32>,
        /// `W_UQ` and `W_QR`: `[heads * head dim, q_lora_rank]`
        b: Linear,
    },
}

impl Mla {
    /// Computes attention for `x`, `[tokens, hidden_size]`, each token over the sequence of its
    /// part, and appends the tokens' entries to the caches.
    pub fn forward(
        &self,
        ctx: &Compute,
        config: &Config,
        angles: &Angles,
        x: &Activations,
        parts: &mut [Part],
    ) -> Vec<f32> {
        let (tokens, heads) = (x.tokens(), self.shape.num_attention_heads);
        let MlaConfig { kv_lora_rank: rank, qk_rope_head_dim: pe, v_head_dim, .. } = self.shape;

        // c_kv = W_DKV h and c_q = W_DQ h (9, 12), as one job
        let first = match &self.query {
            Query::Full(w) => w,
            Query::LowRank { a, .. } => a,
        };
        let [kv, q] = Linear::forward_all([&self.kv_a, first], ctx, x);
        // q_c = W_UQ norm(c_q), q_r (13, 14)
        let q = match &self.query {
            Query::Full(_) => q,
            Query::LowRank { norm, b, .. } => {
                let c_q = rms_norm(ctx.tier, &q, norm, self.shape.latent_norm_eps);
                b.forward(ctx, &Activations::new(ctx.tier, &c_q, norm.len()))
            }
        };
        // [norm(c_kv); k_r = RoPE(W_KR h)] (9, 15)
        let entries = self.entries(ctx, angles, kv);
        parts.iter_mut().for_each(|part| part.push(&entries, rank + pe));
        // [W_UK^T q_c; RoPE(q_r)] (10, 14, 16)
        let queries = self.absorbed_queries(ctx, angles, q);

        // o = softmax(q k / sqrt(d_h + d_r)) c_kv (17, 18), before W_UV
        let sequences = parts.iter().map(|part| CausalAttention {
            queries: part.of(&queries, heads * (rank + pe)),
            entries: part.cache.entries(),
            past: part.past,
            heads,
            layout: EntryLayout {
                width: rank + pe,
                key_value_heads: 1,
                key_width: rank + pe,
                values_at: 0,
                value_width: rank,
            },
            scale: self.score_scale(config),
            window: None,
            sinks: None,
        });
        let sequences: Vec<_> = sequences.collect();
        let mut latents = vec![0.0; tokens * heads * rank];
        attend_all(ctx.tier, ctx.pool, &sequences, &mut latents);

        // u = W_O (W_UV o) (11, 19)
        let latents = Activations::new(ctx.tier, &latents, heads * rank);
        let mut values = self.v_b.forward_per_head(ctx, heads, &latents);
        if let Some(gate) = &self.gate {
            let mut factors = gate.forward(ctx, x);
            sigmoids(ctx, &mut factors);
            for (values, factor) in values.chunks_exact_mut(v_head_dim).zip(factors) {
                values.iter_mut().for_each(|x| *x *= factor);
            }
        }
        self.output.forward(ctx, &Activations::new(ctx.tier, &values, heads * v_head_dim))
    }

    /// Cache entries `[tokens, kv_lora_rank + qk_rope_head_dim]` of `kv`, the outputs of `kv_a`:
    /// the normalized latent and the rotated key that all heads share.
    fn entries(&self, ctx: &Compute, angles: &Angles, mut kv: Vec<f32>) -> Vec<f32> {
        let rank = self.shape.kv_lora_rank;
        let width = rank + self.shape.qk_rope_head_dim;
        for entry in kv.chunks_exact_mut(width) {
            let latent = &mut entry[..rank];
            let normed = rms_norm(ctx.tier, latent, &self.kv_a_norm, self.shape.latent_norm_eps);
            latent.copy_from_slice(&normed);
        }
        if self.shape.rotates {
            angles.of(LayerType::Full).rotate(ctx.tier, &mut kv, width, rank);
        }
        kv
    }

    /// Queries over cache entries, `[tokens, heads, kv_lora_rank + qk_rope_head_dim]`, of `q`,
    /// `[tokens, heads, qk_nope_head_dim + qk_rope_head_dim]`.
    fn absorbed_queries(&self, ctx: &Compute, angles: &Angles, mut q: Vec<f32>) -> Vec<f32> {
        let MlaConfig { num_attention_heads: heads, kv_lora_rank: rank, .. } = self.shape;
        let MlaConfig { qk_nope_head_dim: nope, qk_rope_head_dim: pe, .. } = self.shape;
        let per_head = q.len() / (nope + pe);
        let mut q_nope = Vec::with_capacity(per_head * nope);
        q.chunks_exact(nope + pe).for_each(|q| q_nope.extend_from_slice(&q[..nope]));
        let q_nope = Activations::new(ctx.tier, &q_nope, heads * nope);
        let q_latent = self.k_b.forward_per_head(ctx, heads, &q_nope);

        if self.shape.rotates {
            angles.of(LayerType::Full).rotate(ctx.tier, &mut q, nope + pe, nope);
        }
        let mut queries = Vec::with_capacity(per_head * (rank + pe));
        for (latent, q) in q_latent.chunks_exact(rank).zip(q.chunks_exact(nope + pe)) {
            queries.extend_from_slice(latent);
            queries.extend_from_slice(&q[nope..]);
        }
        queries
    }

    /// `1 / sqrt(d_h + d_r)` (18), with YaRN's temperature.
    fn score_scale(&self, config: &Config) -> f32 {
        let head_dim = self.shape.qk_nope_head_dim + self.shape.qk_rope_head_dim;
        config.rope.score_scale() / (head_dim as f32).sqrt()
    }
}
