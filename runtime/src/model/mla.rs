//! Multi-head latent attention (DeepSeek-V2, section 2.1), absorbed: the key half of `kv_b_proj` is
//! applied to the query and the value half to the result, so that attention runs over the compressed
//! latents themselves and a cached position costs `kv_lora_rank + qk_rope_head_dim` numbers.

use super::Compute;
use super::cache::LayerCache;
use super::linear::project;
use super::rope::Rope;
use crate::blocks::Matrix;
use crate::checkpoint::config::{Config, MlaConfig};
use crate::kernels::attention::{CausalAttention, EntryLayout};
use crate::kernels::vector::rms_norm;
use crate::kernels::{Activations, matmul_per_head};

/// The attention of one layer.
#[derive(Clone, Debug)]
pub struct Mla {
    /// Its shape.
    pub shape: MlaConfig,
    /// The way to the queries.
    pub query: Query,
    /// `kv_a_proj_with_mqa`: `[kv_lora_rank + qk_rope_head_dim, hidden_size]`
    pub kv_a: Matrix,
    /// `[kv_lora_rank]`
    pub kv_a_norm: Vec<f32>,
    /// Key half of `kv_b_proj`, per head `[kv_lora_rank, qk_nope_head_dim]`.
    pub k_b: Matrix,
    /// Value half, per head `[v_head_dim, kv_lora_rank]`.
    pub v_b: Matrix,
    /// `[hidden_size, heads * v_head_dim]`
    pub output: Matrix,
}

/// From the residual stream to `heads * (qk_nope_head_dim + qk_rope_head_dim)` query numbers.
#[derive(Clone, Debug)]
pub enum Query {
    /// At once (V2-Lite, Moonlight).
    Full(Matrix),
    /// Through a low rank.
    LowRank {
        /// `[q_lora_rank, hidden_size]`
        a: Matrix,
        /// `[q_lora_rank]`
        norm: Vec<f32>,
        /// `[heads * head dim, q_lora_rank]`
        b: Matrix,
    },
}

impl Mla {
    /// Attends from `x`, `[tokens, hidden_size]`, which follows the positions in `cache`; the tokens'
    /// entries are added to it.
    pub fn forward(
        &self,
        ctx: &Compute,
        config: &Config,
        rope: &Rope,
        x: &Activations,
        cache: &mut LayerCache,
    ) -> Vec<f32> {
        let mla = &self.shape;
        let (tokens, past) = (x.tokens(), cache.len());
        let width = mla.kv_lora_rank + mla.qk_rope_head_dim;

        // c_kv = norm(W_dkv x), k_pe = rope(W_kr x)
        let (name, query) = match &self.query {
            Query::Full(w) => ("attn_q", w),
            Query::LowRank { a, .. } => ("attn_q_a", a),
        };
        ctx.observe(&["attn_kv_a_mqa", name], 1, x);
        let [mut entries, query] = project(ctx, [&self.kv_a, query], x);
        for (t, entry) in entries.chunks_exact_mut(width).enumerate() {
            let (latent, key) = entry.split_at_mut(mla.kv_lora_rank);
            latent.copy_from_slice(&rms_norm(
                ctx.tier,
                latent,
                &self.kv_a_norm,
                config.rms_norm_eps,
            ));
            rope.rotate(key, past + t);
        }
        cache.push(&entries);

        let queries = self.absorbed_queries(ctx, config, rope, query, past);
        let mut latents = vec![0.0; tokens * mla.num_attention_heads * mla.kv_lora_rank];
        CausalAttention {
            queries: &queries,
            entries: cache.entries(),
            past,
            heads: mla.num_attention_heads,
            layout: EntryLayout {
                width,
                key_value_heads: 1,
                key_width: width,
                values_at: 0,
                value_width: mla.kv_lora_rank,
            },
            scale: self.score_scale(config),
            window: None,
            sinks: None,
        }
        .run(ctx.tier, ctx.pool, &mut latents);

        // o = W_o (W_uv latent)
        let heads = mla.num_attention_heads;
        let latents = Activations::new(ctx.tier, &latents, heads * mla.kv_lora_rank);
        ctx.observe(&["attn_v_b"], heads, &latents);
        let mut values = vec![0.0; tokens * heads * mla.v_head_dim];
        matmul_per_head(ctx.tier, ctx.pool, &self.v_b, heads, &latents, &mut values);
        let values = Activations::new(ctx.tier, &values, heads * mla.v_head_dim);
        ctx.observe(&["attn_output"], 1, &values);
        let [out] = project(ctx, [&self.output], &values);
        out
    }

    /// Per token and head: the query in latent space, then its rotary part. `q` is the query, or what its low rank leaves.
    fn absorbed_queries(
        &self,
        ctx: &Compute,
        config: &Config,
        rope: &Rope,
        mut q: Vec<f32>,
        past: usize,
    ) -> Vec<f32> {
        let MlaConfig { num_attention_heads: heads, kv_lora_rank: rank, .. } = self.shape;
        let MlaConfig { qk_nope_head_dim: nope, qk_rope_head_dim: pe, .. } = self.shape;
        if let Query::LowRank { norm, b, .. } = &self.query {
            let low = rms_norm(ctx.tier, &q, norm, config.rms_norm_eps);
            let low = Activations::new(ctx.tier, &low, norm.len());
            ctx.observe(&["attn_q_b"], 1, &low);
            [q] = project(ctx, [b], &low);
        }
        let tokens = q.len() / (heads * (nope + pe));
        let mut q_nope = Vec::with_capacity(tokens * heads * nope);
        q.chunks_exact(nope + pe).for_each(|q| q_nope.extend_from_slice(&q[..nope]));
        let q_nope = Activations::new(ctx.tier, &q_nope, heads * nope);
        ctx.observe(&["attn_k_b"], heads, &q_nope);
        let mut q_latent = vec![0.0; tokens * heads * rank];
        matmul_per_head(ctx.tier, ctx.pool, &self.k_b, heads, &q_nope, &mut q_latent);

        let mut queries = Vec::with_capacity(tokens * heads * (rank + pe));
        for (i, (latent, q)) in
            q_latent.chunks_exact(rank).zip(q.chunks_exact_mut(nope + pe)).enumerate()
        {
            rope.rotate(&mut q[nope..], past + i / heads);
            queries.extend_from_slice(latent);
            queries.extend_from_slice(&q[nope..]);
        }
        queries
    }

    /// `1 / sqrt(head dim)`, with YaRN's temperature.
    fn score_scale(&self, config: &Config) -> f32 {
        let head_dim = self.shape.qk_nope_head_dim + self.shape.qk_rope_head_dim;
        config.rope.score_scale() / (head_dim as f32).sqrt()
    }
}
