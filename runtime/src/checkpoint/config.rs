//! Shape and constants of a model, under the names that checkpoints use.

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

/// Grouped-query attention (arXiv 2305.13245), with the extensions of the families.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedConfig {
    /// Number of query heads, the largest of all layers.
    pub num_attention_heads: usize,
    /// Number of query heads of each layer, if layers differ (Laguna); otherwise empty.
    pub num_attention_heads_per_layer: Vec<usize>,
    /// Number of key and value heads, each shared by an equal number of query heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Heads of layers that attend to all positions, if they differ (Gemma 4).
    pub global: Option<HeadShape>,
    /// Layers at the end that attend to the keys and values of the last layer of their type before
    /// them (Gemma 4).
    pub num_kv_shared_layers: usize,
    /// Whether layers that attend to all positions have no projection to values but use the keys,
    /// before norm and rotation (Gemma 4).
    pub keys_as_values: KeysAsValues,
    /// Whether values are normalized, without weights (Gemma 4).
    pub value_norm: bool,
    /// Biases of the projections to queries, keys and values.
    pub qkv_bias: Bias,
    /// Bias of the output projection.
    pub output_bias: Bias,
    /// Bound to which the magnitudes of queries, keys and values are clamped (OLMo).
    pub clip_qkv: Option<f32>,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Factor on the scores, instead of one over the root of `head_dim` (Gemma, Granite).
    pub score_scale: Option<f32>,
    /// Whether each head has a sink: a logit that receives attention but has no value (arXiv
    /// 2309.17453; gpt-oss).
    pub sinks: bool,
    /// Gate on the attention's output, before the output projection.
    pub output_gate: Option<OutputGate>,
    /// Whether the queries and keys of each layer are rotated; empty if those of all layers are.
    pub rotates: Vec<bool>,
    /// Positions in the window of a sliding layer, including the current one.
    pub sliding_window: usize,
    /// Positions in the window of a convolution, including the current one.
    pub conv_l_cache: usize,
    /// Token mixer of each layer.
    pub layer_types: Vec<LayerType>,
}

/// Keys and values of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Width of a head.
    pub head_dim: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
}

/// Whether layers that attend to all positions use keys as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysAsValues {
    /// Values have a projection.
    No,
    /// Keys are values.
    Yes,
    /// The configuration does not say: keys are values if no projection is stored.
    UnlessStored,
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

/// Scope of the normalization of queries and keys, before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// No normalization.
    None,
    /// Each head separately (Qwen3, LFM2).
    PerHead,
    /// Each head separately, if the tensors are stored (GLM-4.5, where large models have them).
    PerHeadIfStored,
    /// All heads together (OLMoE).
    Whole,
}

/// Gate on the output of attention, computed from the input of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputGate {
    /// Softplus of one number per head (Laguna XS).
    SoftplusPerHead,
    /// Softplus of one number per element (Laguna M).
    SoftplusPerElement,
    /// Sigmoid of one number per element, which the query projection computes after each head's
    /// query (Qwen3-Next).
    SigmoidInQuery,
}

impl OutputGate {
    /// Outputs of the gate's projection for each head.
    pub fn width(self, head_dim: usize) -> usize {
        match self {
            Self::SoftplusPerHead => 1,
            Self::SoftplusPerElement | Self::SigmoidInQuery => head_dim,
        }
    }
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

/// Mixer of recurrent layers.
#[derive(Clone, Debug, PartialEq)]
pub enum Recurrence {
    /// Gated DeltaNet (arXiv 2412.06464).
    GatedDelta(GatedDeltaConfig),
    /// Mamba-2 (arXiv 2405.21060).
    Mamba2(Mamba2Config),
    /// Kimi Delta Attention (arXiv 2510.26692).
    KimiDelta(KimiDeltaConfig),
}

/// Mamba-2 as in Granite 4.
#[derive(Clone, Debug, PartialEq)]
pub struct Mamba2Config {
    /// Number of heads, each with a state.
    pub num_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Groups of heads that share `B` and `C`, and of channels that are normalized together.
    pub num_groups: usize,
    /// Rows of a head's state.
    pub state_dim: usize,
    /// Positions in the window of the convolution, including the current one.
    pub conv_kernel_dim: usize,
    /// Bias of the convolution.
    pub conv_bias: Bias,
}

impl Mamba2Config {
    /// Channels of all heads.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Channels of the convolution: `x`, `B` and `C`.
    pub fn conv_dim(&self) -> usize {
        self.inner_dim() + 2 * self.num_groups * self.state_dim
    }
}

/// Kimi Delta Attention: the delta rule with a decay for each key channel.
#[derive(Clone, Debug, PartialEq)]
pub struct KimiDeltaConfig {
    /// Number of heads, each with a state.
    pub num_heads: usize,
    /// Width of a head's query, key and value.
    pub head_dim: usize,
    /// Positions in the windows of the convolutions, including the current one.
    pub conv_kernel_dim: usize,
    /// Function from the gate's inputs to decays.
    pub decay_gate: DecayGate,
}

impl KimiDeltaConfig {
    /// Numbers of all heads: of the queries, the keys, or the values of a token.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }
}

/// Decay of a key channel by its input `x` and a head's parameter `A_log`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DecayGate {
    /// `exp(-exp(A_log) softplus(x))` (Kimi-Linear).
    Softplus,
    /// `exp(bound sigmoid(exp(A_log) x))` with a bound below zero (Ling 3).
    Bounded(f32),
}

/// Gated DeltaNet as in Qwen3-Next.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedDeltaConfig {
    /// Number of heads of queries and keys.
    pub num_key_heads: usize,
    /// Number of heads of values, each with a state.
    pub num_value_heads: usize,
    /// Width of a key.
    pub key_head_dim: usize,
    /// Width of a value.
    pub value_head_dim: usize,
    /// Positions in the window of the convolution, including the current one.
    pub conv_kernel_dim: usize,
    /// Whether value head `i` belongs to key head `i % num_key_heads`, as GGUF files of Qwen3.5
    /// have it, instead of to the heads in order.
    pub tiled: bool,
}

impl GatedDeltaConfig {
    /// Numbers of all keys of a token.
    pub fn key_dim(&self) -> usize {
        self.num_key_heads * self.key_head_dim
    }

    /// Numbers of all values of a token.
    pub fn value_dim(&self) -> usize {
        self.num_value_heads * self.value_head_dim
    }

    /// Channels of the convolution: queries, keys and values.
    pub fn conv_dim(&self) -> usize {
        2 * self.key_dim() + self.value_dim()
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

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Number of rotated elements of a head.
    pub dim: usize,
    /// Base of the frequencies.
    pub theta: f32,
    /// Whether pairs are neighbours (2i, 2i+1), as in DeepSeek, instead of halves (i, i + d/2).
    pub interleaved: bool,
    /// Context extension method.
    pub scaling: RopeScaling,
}

/// Context extension method: how positions beyond the trained length are reached.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// All frequencies are divided by a factor (position interpolation, arXiv 2306.15595).
    Linear {
        /// Ratio of the extended to the trained context.
        factor: f32,
    },
    /// YaRN.
    Yarn(YarnConfig),
    /// The first pairs of a head are rotated, with the wavelengths of a head that is rotated whole
    /// (Gemma 4). Files contain the factors on the wavelengths as a tensor, so the network never
    /// uses this value.
    Proportional {
        /// Number of pairs that are rotated.
        pairs: usize,
    },
    /// Llama 3.1's method. Files contain its factors as a tensor, so the network never uses these
    /// values.
    Llama3(Llama3Config),
}

/// Llama 3.1's scaling of frequencies.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama3Config {
    /// Ratio of the extended to the trained context.
    pub factor: f32,
    /// Rotations within the trained context below which a frequency is interpolated.
    pub low_freq_factor: f32,
    /// Rotations above which a frequency is kept.
    pub high_freq_factor: f32,
    /// Length of the trained context.
    pub original_max_position_embeddings: usize,
}

/// YaRN (arXiv 2309.00071) as DeepSeek uses it.
#[derive(Clone, Debug, PartialEq)]
pub struct YarnConfig {
    /// Ratio of the extended to the trained context.
    pub factor: f32,
    /// Length of the trained context.
    pub original_max_position_embeddings: usize,
    /// Rotations above which a frequency is kept.
    pub beta_fast: f32,
    /// Rotations below which a frequency is interpolated.
    pub beta_slow: f32,
    /// Scale of the rotation's magnitude.
    pub mscale: f32,
    /// Scale of the attention's temperature.
    pub mscale_all_dim: f32,
    /// Factor on the rotated vectors, if a checkpoint states it instead of deriving it from
    /// `mscale`.
    pub attention_factor: Option<f32>,
    /// Whether the bounds of the ramp between kept and interpolated frequencies are rounded to
    /// whole dimensions.
    pub truncate: bool,
}

/// DeepSeekMoE (V2, section 2.2; V3, section 2.1.2); other mixtures of experts are special cases.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    /// Routed experts per layer; 0 in a dense model.
    pub n_routed_experts: usize,
    /// Shared experts, which every token uses; stored as one.
    pub n_shared_experts: usize,
    /// Width of the combined shared expert; 0 if there is none.
    pub shared_expert_intermediate_size: usize,
    /// Whether a separate gate scales the shared experts' output (Qwen2-MoE).
    pub shared_expert_gate: bool,
    /// Whether router and experts have biases (gpt-oss).
    pub bias: bool,
    /// Whether a dense feed-forward runs beside the experts, and it, the experts and the router
    /// have norms of their own (Gemma 4).
    pub parallel: bool,
    /// Experts per token.
    pub num_experts_per_tok: usize,
    /// Width of one routed expert.
    pub moe_intermediate_size: usize,
    /// Number of layers at the start with a dense feed-forward.
    pub first_k_dense_replace: usize,
    /// Function from logits to scores.
    pub scoring_func: Scoring,
    /// Selection of the experts from scores.
    pub topk_method: TopkMethod,
    /// Number of groups of experts.
    pub n_group: usize,
    /// Number of groups that a token may select from.
    pub topk_group: usize,
    /// Whether the selected weights are normalized to sum to 1.
    pub norm_topk_prob: bool,
    /// Factor on the routed experts' weights.
    pub routed_scaling_factor: f32,
}

/// Function from router logits to scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts (V2).
    Softmax,
    /// Sigmoid of each logit (V3).
    Sigmoid,
}

/// Selection of a token's experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopkMethod {
    /// The highest scores (V2-Lite).
    Greedy,
    /// The highest scores within the groups that contain the highest single scores (V2).
    GroupLimitedGreedy,
    /// The highest scores plus `e_score_correction_bias`, within the groups with the largest sum of
    /// their two highest (V3); balanced without an auxiliary loss.
    NoauxTc,
}

impl MoeConfig {
    /// A model without experts.
    pub const DENSE: Self = Self {
        n_routed_experts: 0,
        n_shared_experts: 0,
        shared_expert_intermediate_size: 0,
        shared_expert_gate: false,
        bias: false,
        parallel: false,
        num_experts_per_tok: 0,
        moe_intermediate_size: 0,
        first_k_dense_replace: 0,
        scoring_func: Scoring::Softmax,
        topk_method: TopkMethod::Greedy,
        n_group: 1,
        topk_group: 1,
        norm_topk_prob: false,
        routed_scaling_factor: 1.0,
    };
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

impl GroupedConfig {
    /// Number of query heads of a layer.
    pub fn heads(&self, layer: usize) -> usize {
        let own = self.num_attention_heads_per_layer.get(layer);
        own.copied().unwrap_or(self.num_attention_heads)
    }

    /// Whether the queries and keys of a layer are rotated.
    pub fn rotates(&self, layer: usize) -> bool {
        self.rotates.get(layer).copied().unwrap_or(true)
    }

    /// Heads of the layers of a type.
    pub fn head_shape(&self, ty: LayerType) -> HeadShape {
        let Self { head_dim, num_key_value_heads, .. } = *self;
        let own = HeadShape { head_dim, num_key_value_heads };
        self.global.filter(|_| ty == LayerType::Full).unwrap_or(own)
    }

    /// The first of the layers that share keys and values.
    fn first_shared(&self) -> usize {
        self.layer_types.len().saturating_sub(self.num_kv_shared_layers)
    }

    /// The layer whose keys and values a layer attends to: itself, unless it shares them.
    pub fn key_value_layer(&self, layer: usize) -> usize {
        let first = self.first_shared();
        let Some(ty) = self.layer_types.get(layer).filter(|_| layer >= first) else {
            return layer;
        };
        self.layer_types[..first].iter().rposition(|of| of == ty).unwrap_or(layer)
    }

    /// Whether any layer is of a type.
    pub fn has(&self, ty: LayerType) -> bool {
        self.layer_types.contains(&ty)
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
