//! Grouped-query attention (arXiv 2305.13245): several query heads share a key and a value.
//! Families add biases, norms of queries and keys, a sliding window, and sinks.

use super::Compute;
use super::linear::Linear;
use super::part::Part;
use super::rope::Angles;
use crate::checkpoint::config::{Config, GroupedConfig, HeadShape, LayerType, OutputGate, QkNorm};
use crate::kernels::Activations;
use crate::kernels::attention::{CausalAttention, EntryLayout, attend_all};
use crate::kernels::vector::{Sigmoid, rms_norm, softplus};

/// The attention of one layer.
#[derive(Clone, Debug)]
pub struct Gqa {
    /// Dimensions.
    pub shape: GroupedConfig,
    /// Number of query heads of this layer.
    pub heads: usize,
    /// Full or sliding.
    pub ty: LayerType,
    /// Whether queries and keys are rotated.
    pub rotates: bool,
    /// `[heads * head_dim, hidden_size]`
    pub query: Linear,
    /// Projections to keys and values, unless they are those of an earlier layer.
    pub key_value: Option<KeyValue>,
    /// `[hidden_size, heads * head_dim]`
    pub output: Linear,
    /// Norm of queries, `[head_dim]` or as wide as their projection.
    pub query_norm: Option<Vec<f32>>,
    /// Attention sinks, `[heads]`.
    pub sinks: Option<Vec<f32>>,
    /// Projection of the gate on the output, `[heads * width, hidden_size]`, if it is one by
    /// itself.
    pub gate: Option<Linear>,
}

/// Projections to keys and values.
#[derive(Clone, Debug)]
pub struct KeyValue {
    /// `[key_value_heads * head_dim, hidden_size]`
    pub key: Linear,
    /// `[key_value_heads * head_dim, hidden_size]`; without it, keys are values.
    pub value: Option<Linear>,
    /// Norm of keys, `[head_dim]` or as wide as their projection.
    pub key_norm: Option<Vec<f32>>,
    /// Norm of values, `[head_dim]`.
    pub value_norm: Option<Vec<f32>>,
}

impl Gqa {
    /// Computes attention for `x`, `[tokens, hidden_size]`, each token over the sequence of its
    /// part, and appends the tokens' keys and values to the caches, unless an earlier layer did.
    pub fn forward(
        &self,
        ctx: &Compute,
        config: &Config,
        angles: &Angles,
        x: &Activations,
        parts: &mut [Part],
    ) -> Vec<f32> {
        let HeadShape { head_dim, num_key_value_heads } = self.shape.head_shape(self.ty);
        let (tokens, heads) = (x.tokens(), self.heads);
        let (mut queries, mut keys, mut values) = match &self.key_value {
            Some(KeyValue { key, value: Some(value), .. }) => {
                Linear::forward_all([&self.query, key, value], ctx, x).into()
            }
            Some(KeyValue { key, value: None, .. }) => {
                let [queries, keys] = Linear::forward_all([&self.query, key], ctx, x);
                (queries, keys.clone(), keys)
            }
            None => (self.query.forward(ctx, x), Vec::new(), Vec::new()),
        };
        let gate = self.gate(ctx, x, &mut queries);
        let norms = self.key_value.as_ref();
        let norms = norms.map_or((None, None), |kv| (kv.key_norm.as_ref(), kv.value_norm.as_ref()));
        for (x, norm) in
            [(&mut queries, self.query_norm.as_ref()), (&mut keys, norms.0), (&mut values, norms.1)]
        {
            if let Some(norm) = norm {
                *x = rms_norm(ctx.tier, x, norm, config.rms_norm_eps);
            }
        }
        if let Some(limit) = self.shape.clip_qkv {
            for x in [&mut queries, &mut keys, &mut values] {
                x.iter_mut().for_each(|x| *x = x.clamp(-limit, limit));
            }
        }
        if self.rotates {
            let turns = angles.of(self.ty);
            turns.rotate(ctx.tier, &mut queries, head_dim, 0);
            turns.rotate(ctx.tier, &mut keys, head_dim, 0);
        }

        let scale = match self.shape.score_scale {
            Some(scale) => scale,
            None => 1.0 / (head_dim as f32).sqrt(),
        };
        let key_value = num_key_value_heads * head_dim;
        if self.key_value.is_some() {
            let pairs = keys.chunks_exact(key_value).zip(values.chunks_exact(key_value));
            let entries: Vec<f32> = pairs.flat_map(|(k, v)| k.iter().chain(v)).copied().collect();
            parts.iter_mut().for_each(|part| part.push(&entries, 2 * key_value));
        }

        let sequences = parts.iter().map(|part| CausalAttention {
            queries: part.of(&queries, heads * head_dim),
            entries: part.cache.entries(),
            past: part.past,
            heads,
            layout: EntryLayout {
                width: 2 * key_value,
                key_value_heads: num_key_value_heads,
                key_width: head_dim,
                values_at: key_value,
                value_width: head_dim,
            },
            scale,
            window: (self.ty == LayerType::Sliding).then_some(self.shape.sliding_window),
            sinks: self.sinks.as_deref(),
        });
        let sequences: Vec<_> = sequences.collect();
        let mut out = vec![0.0; tokens * heads * head_dim];
        attend_all(ctx.tier, ctx.pool, &sequences, &mut out);
        if let Some(factors) = gate {
            let per_factor = out.len() / factors.len().max(1);
            for (out, factor) in out.chunks_exact_mut(per_factor.max(1)).zip(factors) {
                out.iter_mut().for_each(|x| *x *= factor);
            }
        }

        let out = Activations::new(ctx.tier, &out, heads * head_dim);
        self.output.forward(ctx, &out)
    }
}

impl Gqa {
    /// Factors of the output gate for `x`, one per head or element. A gate that the query
    /// projection computes is taken out of `queries`.
    fn gate(&self, ctx: &Compute, x: &Activations, queries: &mut Vec<f32>) -> Option<Vec<f32>> {
        let mut factors = match (self.shape.output_gate?, &self.gate) {
            (OutputGate::SigmoidInQuery, _) => {
                let (mut only, mut gate) = (Vec::new(), Vec::new());
                for head in queries.chunks_exact(2 * self.shape.head_dim) {
                    let (query, of_head) = head.split_at(self.shape.head_dim);
                    only.extend_from_slice(query);
                    gate.extend_from_slice(of_head);
                }
                *queries = only;
                sigmoids(ctx, &mut gate);
                return Some(gate);
            }
            (_, Some(projection)) => projection.forward(ctx, x),
            (_, None) => return None,
        };
        factors.iter_mut().for_each(|x| *x = softplus(*x));
        Some(factors)
    }
}

/// Sigmoids, in place; NaN for an infinity, whose sigmoid would be a number.
pub(super) fn sigmoids(ctx: &Compute, x: &mut [f32]) {
    x.iter_mut().filter(|x| !x.is_finite()).for_each(|x| *x = f32::NAN);
    ctx.tier.run(Sigmoid(x));
}

impl GroupedConfig {
    /// Widths of the norms of queries and keys in the layers of a type.
    pub fn qk_norm_widths(&self, ty: LayerType) -> Option<[usize; 2]> {
        let head_dim = self.head_shape(ty).head_dim;
        match self.qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead | QkNorm::PerHeadIfStored => Some([head_dim; 2]),
            QkNorm::Whole => {
                Some([self.num_attention_heads, self.num_key_value_heads].map(|n| n * head_dim))
            }
        }
    }
}
