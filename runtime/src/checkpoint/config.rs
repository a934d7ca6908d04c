//! A model's shape and constants, with the names that checkpoints use.

use super::families::Family;

/// Everything the network needs to know besides its weights.
#[derive(Clone, Debug)]
pub struct Config {
    /// The family that reads, names and builds this model.
    pub family: &'static dyn Family,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Decoder layers, without MTP layers.
    pub num_hidden_layers: usize,
    /// Longest sequence the model was made for.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Begin-of-sentence token, where the checkpoint names one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// Attention.
    pub attention: AttentionConfig,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// Width of the feed-forward of layers without experts.
    pub intermediate_size: usize,
    /// What the gate of a feed-forward does to its linear half.
    pub activation: Activation,
    /// The mixture of experts.
    pub moe: MoeConfig,
    /// Multi-token-prediction layers after the last decoder layer.
    pub num_nextn_predict_layers: usize,
}

/// How tokens see each other.
#[derive(Clone, Debug, PartialEq)]
pub enum AttentionConfig {
    /// Through a latent that all heads share.
    Mla(MlaConfig),
    /// Through keys and values that groups of heads share, in some or all of the layers.
    Grouped(GroupedConfig),
}

/// Grouped-query attention (arXiv 2305.13245), and what families add to it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedConfig {
    /// Heads.
    pub num_attention_heads: usize,
    /// Heads of keys and values; each serves as many query heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has one.
    pub output_bias: bool,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Whether each head has a logit that takes attention and gives nothing (arXiv 2309.17453; gpt-oss).
    pub sinks: bool,
    /// Positions that a sliding layer sees, its own among them.
    pub sliding_window: usize,
    /// Positions that a convolution sees, its own among them.
    pub conv_l_cache: usize,
    /// What mixes the tokens of each layer.
    pub layer_types: Vec<LayerType>,
}

/// What queries and keys are normalized over before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Nothing.
    None,
    /// Each head by itself (Qwen3, LFM2).
    PerHead,
    /// All heads together (OLMoE).
    Whole,
}

/// What mixes the tokens of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerType {
    /// Attention to all positions.
    Full,
    /// Attention to the last positions.
    Sliding,
    /// A gated short convolution (LFM2).
    Conv,
}

impl LayerType {
    /// All of them, with the names that checkpoints use.
    pub const NAMES: [(Self, &str); 3] = [
        (Self::Full, "full_attention"),
        (Self::Sliding, "sliding_attention"),
        (Self::Conv, "conv"),
    ];

    /// What checkpoints call it.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(ty, _)| *ty == self).map_or("", |(_, name)| name)
    }

    /// By its name in checkpoints.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(ty, _)| *ty)
    }
}

/// From the two halves of a feed-forward to what goes into `down`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `silu(gate) * up`
    SwiGlu,
    /// gpt-oss: `g * sigmoid(alpha g) * (u + 1)` with `g = min(gate, limit)` and `u` within the limit either way.
    ClampedSwiGlu {
        /// Steepness of the gate.
        alpha: f32,
        /// Where gate and up are cut off.
        limit: f32,
    },
}

/// Multi-head latent attention (DeepSeek-V2, section 2.1).
#[derive(Clone, Debug, PartialEq)]
pub struct MlaConfig {
    /// Heads.
    pub num_attention_heads: usize,
    /// Rank of the query's down-projection; `None` where queries are projected at once.
    pub q_lora_rank: Option<usize>,
    /// Width of the compressed latent that is cached.
    pub kv_lora_rank: usize,
    /// Per head, the part of queries and keys without position.
    pub qk_nope_head_dim: usize,
    /// The part that carries the position, shared by the heads on the key's side.
    pub qk_rope_head_dim: usize,
    /// Width of a head's value.
    pub v_head_dim: usize,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f32,
    /// Pairs are neighbours (2i, 2i+1), as in DeepSeek, instead of halves (i, i + d/2).
    pub interleaved: bool,
    /// Extension beyond the length trained at.
    pub scaling: RopeScaling,
}

/// How positions beyond the length trained at are reached.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// They are not.
    None,
    /// YaRN.
    Yarn(YarnConfig),
    /// Llama 3.1's. Files carry its factors as a tensor, so the network never sees these figures.
    Llama3(Llama3Config),
}

/// Llama 3.1's scaling of frequencies.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama3Config {
    /// How much longer the context became.
    pub factor: f32,
    /// Rotations within the trained context below which a frequency is interpolated.
    pub low_freq_factor: f32,
    /// Rotations above which it is kept.
    pub high_freq_factor: f32,
    /// The context trained at.
    pub original_max_position_embeddings: usize,
}

/// YaRN (arXiv 2309.00071) as DeepSeek uses it.
#[derive(Clone, Debug, PartialEq)]
pub struct YarnConfig {
    /// How much longer the context became.
    pub factor: f32,
    /// The context trained at.
    pub original_max_position_embeddings: usize,
    /// Rotations above which a frequency is kept.
    pub beta_fast: f32,
    /// Rotations below which it is interpolated.
    pub beta_slow: f32,
    /// Scale of the rotation's magnitude.
    pub mscale: f32,
    /// Scale of the attention's temperature.
    pub mscale_all_dim: f32,
    /// Whether the ramp between kept and interpolated frequencies begins and ends at whole dimensions.
    pub truncate: bool,
}

/// DeepSeekMoE (V2, section 2.2; V3, section 2.1.2), of which the other mixtures are cases.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    /// Routed experts per layer; 0 in a dense model.
    pub n_routed_experts: usize,
    /// Experts that every token visits, stored as one.
    pub n_shared_experts: usize,
    /// Width of that one; 0 where there are none.
    pub shared_expert_intermediate_size: usize,
    /// Whether a gate of its own scales the shared experts' output (Qwen2-MoE).
    pub shared_expert_gate: bool,
    /// Whether router and experts have biases (gpt-oss).
    pub bias: bool,
    /// Experts that a token is routed to.
    pub num_experts_per_tok: usize,
    /// Width of one routed expert.
    pub moe_intermediate_size: usize,
    /// Layers at the start that have a dense feed-forward.
    pub first_k_dense_replace: usize,
    /// From logits to scores.
    pub scoring_func: Scoring,
    /// From scores to a choice.
    pub topk_method: TopkMethod,
    /// Groups the experts are divided into.
    pub n_group: usize,
    /// Groups a token may choose from.
    pub topk_group: usize,
    /// Whether the chosen weights are scaled to add up to one.
    pub norm_topk_prob: bool,
    /// Factor on the routed experts' weights.
    pub routed_scaling_factor: f32,
}

/// From router logits to scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Over all experts (V2).
    Softmax,
    /// Each for itself (V3).
    Sigmoid,
}

/// How the experts of a token are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopkMethod {
    /// The best scores (V2-Lite).
    Greedy,
    /// The best scores within the groups with the best single expert (V2).
    GroupLimitedGreedy,
    /// The best scores plus `e_score_correction_bias`, within the groups whose two best add up to the
    /// most (V3): balanced without an auxiliary loss.
    NoauxTc,
}

impl MoeConfig {
    /// No experts.
    pub const DENSE: Self = Self {
        n_routed_experts: 0,
        n_shared_experts: 0,
        shared_expert_intermediate_size: 0,
        shared_expert_gate: false,
        bias: false,
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
    /// Heads of queries.
    pub fn num_attention_heads(&self) -> usize {
        match self {
            Self::Mla(mla) => mla.num_attention_heads,
            Self::Grouped(grouped) => grouped.num_attention_heads,
        }
    }

    /// Numbers of a head that are rotated.
    pub fn rope_dim(&self) -> usize {
        match self {
            Self::Mla(mla) => mla.qk_rope_head_dim,
            Self::Grouped(grouped) => grouped.head_dim,
        }
    }
}

impl Config {
    /// What mixes the tokens of a layer.
    pub fn layer_type(&self, layer: usize) -> LayerType {
        match &self.attention {
            AttentionConfig::Mla(_) => LayerType::Full,
            AttentionConfig::Grouped(grouped) => {
                grouped.layer_types.get(layer).copied().unwrap_or(LayerType::Full)
            }
        }
    }

    /// Whether a layer has experts; the MTP layer does.
    pub fn is_moe(&self, layer: usize) -> bool {
        layer >= self.moe.first_k_dense_replace && self.moe.n_routed_experts > 0
    }

    /// Layers with weights: decoder layers and MTP layers.
    pub fn num_layers_stored(&self) -> usize {
        self.num_hidden_layers + self.num_nextn_predict_layers
    }
}
