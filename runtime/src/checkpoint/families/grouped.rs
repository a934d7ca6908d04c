//! The common part of the families with grouped-query attention. A family is a description: its
//! biases and norms, the names of its tensors, and the selection of its experts.

use super::gated_delta::DeltaLayout;
use crate::checkpoint::config::{Activation, Bias, LayerType, QkNorm, Scoring, TopkMethod};

/// A family with grouped-query attention.
#[derive(Debug)]
pub struct Grouped {
    /// Common name of the family.
    pub name: &'static str,
    /// `model_type` in `config.json`.
    pub model_types: &'static [&'static str],
    /// `general.architecture` in GGUF.
    pub architecture: &'static str,
    /// Experts; `None` in a dense family.
    pub moe: Option<Experts>,
    /// Biases of queries, keys and values.
    pub qkv_bias: BiasKey,
    /// Bias of the output projection.
    pub output_bias: BiasKey,
    /// Biases of the feed-forward of layers without experts.
    pub mlp_bias: BiasKey,
    /// Layers that `sliding_window` applies to if `layer_types` is absent; `None` if the family has
    /// no windows or its own pattern.
    pub window: Option<Window>,
    /// Key of the bound to which queries, keys and values are clamped, in `config.json` and GGUF.
    pub clip_qkv: Option<[&'static str; 2]>,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Whether heads have sinks.
    pub sinks: bool,
    /// Gate on the output of attention.
    pub output_gate: Gate,
    /// Which elements of a head are rotated together.
    pub pairs: Pairs,
    /// Whether a part of each head may be left unrotated.
    pub partial_rotary: bool,
    /// Whether sliding layers may have a rotary embedding of their own.
    pub sliding_rope: bool,
    /// Base of that embedding in GGUF files that do not state it.
    pub gguf_sliding_theta: Option<f32>,
    /// Layers that a sliding window applies to in GGUF files with a window, if the family has
    /// windows in periods.
    pub sliding_period: Option<SlidingPeriod>,
    /// Every such layer is not rotated, unless `no_rope_layers` lists them.
    pub no_rope_interval: Option<usize>,
    /// Form of the Gated DeltaNet layers, if the family has any.
    pub delta: Option<DeltaLayout>,
    /// Whether checkpoints store the weights of norms minus one.
    pub zero_centred: bool,
    /// Whether embeddings are scaled by the root of their width.
    pub scaled_embedding: bool,
    /// Whether llama.cpp requires the interval of layers that have experts, which is 1.
    pub expert_interval: bool,
    /// Whether the outputs of mixer and feed-forward are normalized, too.
    pub post_norms: bool,
    /// Factor on the scores.
    pub score_scale: ScoreScale,
    /// Whether embeddings, residuals and logits have the factors of Granite.
    pub multipliers: bool,
    /// Whether queries and keys are rotated only where `position_embedding_type` is `rope`.
    pub optional_rope: bool,
    /// Whether recurrent layers are Mamba-2.
    pub mamba: bool,
    /// Whether attention, experts and embeddings may have the features of Gemma 4 (`gemma4.rs`).
    pub gemma4: bool,
    /// Where checkpoints have multi-token-prediction layers.
    pub mtp: Mtp,
    /// Whether the bounds of YaRN's ramp are rounded to whole dimensions, unless GGUF states it.
    pub truncated_yarn: bool,
    /// Token mixer by layer, if neither `config.json` nor GGUF states it; `None` if all layers have
    /// the same.
    pub layer_type: Option<fn(usize) -> LayerType>,
    /// Activation between gate, up and down.
    pub activation: Activation,
    /// Tensor names in checkpoints.
    pub names: Names,
}

/// Gate on the output of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// No gate.
    None,
    /// A softplus, for each head or element as `gating` states.
    Softplus,
    /// A sigmoid for each element, computed by the query projection.
    SigmoidInQuery,
}

/// Factor on the scores of attention.
#[derive(Clone, Copy, Debug)]
pub enum ScoreScale {
    /// One over the root of the width of a head.
    OfHead,
    /// One over the root of `query_pre_attn_scalar`, which GGUF does not state: there a function of
    /// the number of layers, the width of the residual stream per head and the width of a head.
    QueryScalar(fn(usize, usize, usize) -> f32),
    /// `attention_multiplier`, or GGUF's `attention.scale`.
    Stated,
    /// No factor.
    One,
}

/// Where checkpoints have multi-token-prediction layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mtp {
    /// There are none.
    None,
    /// After the last layer, as in DeepSeek-V3.
    Layers,
    /// Below `mtp.`.
    Module,
}

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Those half the rotated elements apart.
    Halves,
    /// Neighbours.
    Neighbours,
    /// Halves in checkpoints. GGUF has the rows of queries and keys in an order in which they are
    /// neighbours.
    NeighboursInGguf,
}

/// Location of the information whether matrices have biases.
#[derive(Clone, Copy, Debug)]
pub enum BiasKey {
    /// Fixed by the definition of the family.
    Fixed(Bias),
    /// Stated under a key of `config.json`.
    Stated {
        /// The key.
        key: &'static str,
        /// Value if the key is absent, and in GGUF.
        otherwise: Bias,
    },
}

/// Layers that a sliding window applies to.
#[derive(Clone, Copy, Debug)]
pub enum Window {
    /// All layers.
    All,
    /// Layers from `max_window_layers` on.
    FromMaxWindowLayers,
    /// Every second layer before `max_window_layers`, including the first.
    AlternateBeforeMaxWindowLayers,
    /// All but every sixth layer, or those that `sliding_window_pattern` says.
    AllButEverySixth,
}

/// Periods of layers of which one attends to all positions and the others have a sliding window.
#[derive(Clone, Copy, Debug)]
pub struct SlidingPeriod {
    /// Layers of a period.
    pub layers: usize,
    /// Whether the first layer of a period attends to all positions, instead of the last.
    pub full_first: bool,
}

impl SlidingPeriod {
    /// Type of a layer.
    pub fn layer_type(self, layer: usize) -> LayerType {
        let full = if self.full_first { 0 } else { self.layers - 1 };
        match layer % self.layers == full {
            true => LayerType::Full,
            false => LayerType::Sliding,
        }
    }

    /// The period of that kind that describes all layers, if there is one.
    pub fn of(self, types: &[LayerType]) -> Option<Self> {
        let fits = |period: &Self| {
            types.iter().enumerate().all(|(layer, ty)| period.layer_type(layer) == *ty)
        };
        (2..=types.len()).map(|layers| Self { layers, ..self }).find(fits)
    }
}

/// Expert selection of a family.
#[derive(Debug)]
pub struct Experts {
    /// Function from logits to scores.
    pub scoring: Scoring,
    /// Selection of the experts from scores.
    pub topk_method: TopkMethod,
    /// Whether weights are normalized to sum to 1, unless `norm_topk_prob` states it.
    pub norm_topk_prob: bool,
    /// Whether they are in GGUF files that do not state it; llama.cpp has this in its code.
    pub gguf_norm: bool,
    /// Whether the width of an expert, if GGUF does not state it, is the dense width divided by the
    /// number of experts per token, instead of the dense width itself.
    pub divided_width: bool,
    /// Shared experts, if there are any.
    pub shared: Option<SharedExperts>,
    /// Whether router and experts have biases.
    pub bias: bool,
    /// Whether a checkpoint may have none, and the shared experts alone.
    pub optional: bool,
    /// How checkpoints store them.
    pub layout: ExpertLayout,
}

/// How checkpoints store routed experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertLayout {
    /// Every projection of every expert is a tensor.
    Separate,
    /// All experts of a layer are stacked as in gpt-oss.
    Stacked,
    /// All experts of a layer are stacked in two tensors, with outputs before inputs: gates and ups
    /// in one, downs in the other. Their names, below the layer.
    Joined([&'static str; 2]),
}

/// Selection by sigmoid scores with V3's correction.
pub const SIGMOID_EXPERTS: Experts =
    Experts { scoring: Scoring::Sigmoid, topk_method: TopkMethod::NoauxTc, ..SOFTMAX_EXPERTS };

/// Shared experts of a family.
#[derive(Clone, Copy, Debug)]
pub struct SharedExperts {
    /// Prefix of their tensors in checkpoints.
    pub prefix: &'static str,
    /// Whether they have a gate.
    pub gated: bool,
    /// Whether `n_shared_experts` states how many there are, each as wide as a routed one, instead
    /// of `shared_expert_intermediate_size` their common width.
    pub counted: bool,
    /// Whether a checkpoint that states no width of theirs, or 0, has none.
    pub optional: bool,
}

/// The shared expert of Qwen2-MoE and its successors, which has a gate.
pub const GATED_SHARED_EXPERT: SharedExperts =
    SharedExperts { prefix: "mlp.shared_expert", gated: true, counted: false, optional: false };

/// Tensor names of a family, in checkpoints and below `model.layers.N.` unless stated otherwise.
#[derive(Debug)]
pub struct Names {
    /// Norm before the mixer.
    pub mixer_norm: &'static str,
    /// Norm before the feed-forward.
    pub ffn_norm: &'static str,
    /// GGUF name of `ffn_norm`.
    pub gguf_ffn_norm: &'static str,
    /// Norms after mixer and feed-forward, where the family has them.
    pub post_norms: [&'static str; 2],
    /// Norm of queries; the name for keys has a `k` in place of the `q`.
    pub q_norm: &'static str,
    /// Output projection of attention.
    pub output: &'static str,
    /// Prefix of the feed-forward in layers without experts.
    pub mlp: &'static str,
    /// Router.
    pub router: &'static str,
    /// V3's correction of the scores, if there is one.
    pub correction: &'static str,
    /// Prefix of the experts.
    pub experts: &'static str,
    /// Gate, up and down. Where gate and up have one name, they are one tensor, gate first.
    pub projections: [&'static str; 3],
    /// Norm before the output head, below `model.`.
    pub output_norm: &'static str,
    /// GGUF name of `output_norm`.
    pub gguf_output_norm: &'static str,
}

/// Llama's names, which most families use.
pub const LLAMA_NAMES: Names = Names {
    mixer_norm: "input_layernorm",
    ffn_norm: "post_attention_layernorm",
    gguf_ffn_norm: "ffn_norm",
    post_norms: ["post_attention_layernorm", "post_feedforward_layernorm"],
    q_norm: "q_norm",
    output: "o_proj",
    mlp: "mlp",
    router: "mlp.gate",
    correction: "",
    experts: "mlp.experts",
    projections: ["gate_proj", "up_proj", "down_proj"],
    output_norm: "norm",
    gguf_output_norm: "output_norm",
};

/// A plain dense family with Llama's names.
pub const PLAIN: Grouped = Grouped {
    name: "",
    model_types: &[],
    architecture: "",
    moe: None,
    qkv_bias: BiasKey::Fixed(Bias::None),
    output_bias: BiasKey::Fixed(Bias::None),
    mlp_bias: BiasKey::Fixed(Bias::None),
    window: None,
    clip_qkv: None,
    qk_norm: QkNorm::None,
    sinks: false,
    output_gate: Gate::None,
    pairs: Pairs::Halves,
    partial_rotary: false,
    sliding_rope: false,
    gguf_sliding_theta: None,
    sliding_period: None,
    no_rope_interval: None,
    delta: None,
    zero_centred: false,
    scaled_embedding: false,
    expert_interval: false,
    post_norms: false,
    score_scale: ScoreScale::OfHead,
    multipliers: false,
    optional_rope: false,
    mamba: false,
    gemma4: false,
    mtp: Mtp::None,
    truncated_yarn: true,
    layer_type: None,
    activation: Activation::SwiGlu,
    names: LLAMA_NAMES,
};

/// Biases of attention under transformers' usual key. If it is absent, the stored tensors decide.
pub const ATTENTION_BIAS: BiasKey =
    BiasKey::Stated { key: "attention_bias", otherwise: Bias::IfStored };

/// Greedy selection by softmax scores, as in most families.
pub const SOFTMAX_EXPERTS: Experts = Experts {
    scoring: Scoring::Softmax,
    topk_method: TopkMethod::Greedy,
    norm_topk_prob: true,
    gguf_norm: true,
    divided_width: false,
    shared: None,
    bias: false,
    optional: false,
    layout: ExpertLayout::Separate,
};
