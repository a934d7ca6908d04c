//! Shape and constants of a model, under the names that checkpoints use.

mod grouped;
mod moe;
mod recurrence;
mod rope;

pub use grouped::{GroupedConfig, HeadShape, KeysAsValues, OutputGate, QkNorm};
pub use moe::{MoeConfig, Scoring, TopkMethod};
pub use recurrence::{DecayGate, GatedDeltaConfig, KimiDeltaConfig, Mamba2Config, Recurrence};
pub use rope::{Llama3Config, RopeConfig, RopeScaling, YarnConfig};

use super::families::Family;

/// Everything that the network needs besides its weights.
#[derive(Clone, Debug)]
pub struct Config {
    /// The family that reads, names and builds this model.
    pub family: &'static dyn Family,
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of decoder layers, without MTP layers.
    pub num_hidden_layers: usize,
    /// Longest sequence that the model was trained for.
    pub max_position_embeddings: usize,
    /// Epsilon of RMSNorm, added to the mean square.
    pub rms_norm_eps: f32,
    /// Constant factors on the residual stream and the logits.
    pub scales: Scales,
    /// Whether the outputs of mixer and feed-forward are normalized, too (Gemma).
    pub post_norms: bool,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Begin-of-sentence token, if the checkpoint names one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// Attention.
    pub attention: AttentionConfig,
    /// Mixer of recurrent layers, if there are any.
    pub recurrence: Option<Recurrence>,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// Rotary embedding of sliding layers, if it differs (Laguna, Gemma 3).
    pub sliding_rope: Option<RopeConfig>,
    /// Width of the feed-forward of layers without experts.
    pub intermediate_size: usize,
    /// Whether that is twice as wide in layers that share keys and values (Gemma 4).
    pub double_wide_shared: bool,
    /// Width of a layer's part of the per-layer embeddings; 0 if there are none (Gemma 4).
    pub per_layer_width: usize,
    /// Biases of the feed-forward of layers without experts.
    pub mlp_bias: Bias,
    /// Activation between gate, up and down.
    pub activation: Activation,
    /// The mixture of experts.
    pub moe: MoeConfig,
    /// Multi-token-prediction layers after the last decoder layer.
    pub num_nextn_predict_layers: usize,
}

/// Constant factors on the residual stream and the logits; all 1 in most models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// Factor on the embeddings (Gemma, Granite).
    pub embedding: f32,
    /// Factor on what mixer and feed-forward add to the residual stream (Granite).
    pub residual: f32,
    /// Divisor of the logits (Granite).
    pub logits: f32,
    /// Limit that the logits approach by a hyperbolic tangent (Gemma 4).
    pub logit_cap: Option<f32>,
}

impl Scales {
    /// No factors.
    pub const NONE: Self = Self { embedding: 1.0, residual: 1.0, logits: 1.0, logit_cap: None };
}

/// Kind of attention.
#[derive(Clone, Debug, PartialEq)]
pub enum AttentionConfig {
    /// Multi-head latent attention.
    Mla(MlaConfig),
    /// Grouped-query attention, in some or all of the layers.
    Grouped(GroupedConfig),
}

/// Whether matrices have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// No biases.
    None,
    /// Every matrix has a bias.
    Required,
    /// The configuration does not say: a matrix has a bias if its tensor is stored.
    IfStored,
}

/// Token mixer of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerType {
    /// Attention to all positions.
    Full,
    /// Attention to the last positions.
    Sliding,
    /// A gated short convolution (LFM2).
    Conv,
    /// A recurrent mixer: [`Recurrence`].
    Recurrent,
}

impl LayerType {
    /// All types, with the names that checkpoints use.
    pub const NAMES: [(Self, &str); 4] = [
        (Self::Full, "full_attention"),
        (Self::Sliding, "sliding_attention"),
        (Self::Conv, "conv"),
        (Self::Recurrent, "linear_attention"),
    ];

    /// Name in checkpoints.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(ty, _)| *ty == self).map_or("", |(_, name)| name)
    }

    /// The type with that name in checkpoints.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(ty, _)| *ty)
    }
}

/// Activation: from gate and up to the input of `down`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `silu(gate) * up`
    SwiGlu,
    /// `gelu(gate) * up`, with the approximation of gelu by a hyperbolic tangent (Gemma).
    GeGlu,
    /// gpt-oss: `g * sigmoid(alpha g) * (u + 1)` with `g = min(gate, limit)` and `u` clamped to
    /// `[-limit, limit]`.
    ClampedSwiGlu {
        /// Steepness of the gate.
        alpha: f32,
        /// Limit at which gate and up are clamped.
        limit: f32,
    },
}

/// Multi-head latent attention (DeepSeek-V2, section 2.1).
#[derive(Clone, Debug, PartialEq)]
pub struct MlaConfig {
    /// Number of heads.
    pub num_attention_heads: usize,
    /// Rank of the query's down-projection; `None` for a full-rank projection.
    pub q_lora_rank: Option<usize>,
    /// Width of the compressed latent that is cached.
    pub kv_lora_rank: usize,
    /// Width per head of the part of queries and keys without position.
    pub qk_nope_head_dim: usize,
    /// Width of the rotary part, whose key is shared by the heads.
    pub qk_rope_head_dim: usize,
    /// Width of a head's value.
    pub v_head_dim: usize,
    /// Added to the variance of the latents of queries, and of keys and values, when they are
    /// normalized.
    pub latent_norm_eps: f32,
    /// Whether the rotary part is rotated; not in Kimi-Linear, whose recurrent layers tell
    /// positions apart.
    pub rotates: bool,
    /// Whether the output of each head is scaled by a gate, the sigmoid of one number per head
    /// (Ling 3).
    pub output_gate: bool,
    /// Token mixer of each layer; empty if all layers attend.
    pub layer_types: Vec<LayerType>,
}

impl AttentionConfig {
    /// Number of query heads.
    pub fn num_attention_heads(&self) -> usize {
        match self {
            Self::Mla(mla) => mla.num_attention_heads,
            Self::Grouped(grouped) => grouped.num_attention_heads,
        }
    }
}

impl Config {
    /// Token mixer of a layer.
    pub fn layer_type(&self, layer: usize) -> LayerType {
        match &self.attention {
            AttentionConfig::Mla(mla) => mla.layer_types.get(layer),
            AttentionConfig::Grouped(grouped) => grouped.layer_types.get(layer),
        }
        .copied()
        .unwrap_or(LayerType::Full)
    }

    /// The layer in whose cache the entries of a layer are.
    pub fn cache_layer(&self, layer: usize) -> usize {
        match &self.attention {
            AttentionConfig::Grouped(grouped) => grouped.key_value_layer(layer),
            AttentionConfig::Mla(_) => layer,
        }
    }

    /// Number of layers with a cache, which are the first ones.
    pub fn num_cached_layers(&self) -> usize {
        let shared = match &self.attention {
            AttentionConfig::Grouped(grouped) => grouped.num_kv_shared_layers,
            AttentionConfig::Mla(_) => 0,
        };
        self.num_hidden_layers - shared.min(self.num_hidden_layers)
    }

    /// Whether a tensor of that name, in GGUF or in a checkpoint, belongs to the keys and values of
    /// a layer that uses those of another: trained models have them, and no network reads them.
    pub fn is_spare(&self, name: &str) -> bool {
        const SPARE: [&str; 6] =
            ["attn_k.", "attn_v.", "attn_k_norm.", "self_attn.k_", "self_attn.v_", "attn_v_norm."];
        let rest = name.strip_prefix("blk.").or_else(|| name.strip_prefix("model.layers."));
        let Some((layer, rest)) = rest.and_then(|rest| rest.split_once('.')) else { return false };
        let shares = |layer| layer < self.num_hidden_layers && self.cache_layer(layer) != layer;
        layer.parse().is_ok_and(shares) && SPARE.iter().any(|start| rest.starts_with(start))
    }

    /// Width of a layer's dense feed-forward.
    pub fn dense_width(&self, layer: usize) -> usize {
        let double = self.double_wide_shared && self.cache_layer(layer) != layer;
        self.intermediate_size * if double { 2 } else { 1 }
    }

    /// Whether a layer has experts; the MTP layer does.
    pub fn is_moe(&self, layer: usize) -> bool {
        layer >= self.moe.first_k_dense_replace && self.moe.n_routed_experts > 0
    }

    /// Number of layers with weights: decoder layers and MTP layers.
    pub fn num_layers_stored(&self) -> usize {
        self.num_hidden_layers + self.num_nextn_predict_layers
    }
}
