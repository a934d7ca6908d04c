//! The common part of the families with grouped-query attention. A family is a description: its
//! biases and norms, the names of its tensors, and the selection of its experts.

use serde_json::Value as Json;

use super::gated_delta::{self, DeltaLayout};
use super::gemma4;
use super::grouped_config::check;
use super::keys;
use super::keys::{ConfigReader, MULTIPLIERS, MetadataReader, limits};
use super::mamba2;
use super::{ConfigError, Family, grouped_tensors};
use crate::checkpoint::config::{
    Activation, AttentionConfig, Bias, Config, LayerType, MoeConfig, QkNorm, Recurrence, Scoring,
    TopkMethod,
};
use crate::checkpoint::spec::{ExpertId, ExpertSpec, LayerId, TensorSpec};
use crate::gguf::{Metadata, Value};

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
    fn of(self, types: &[LayerType]) -> Option<Self> {
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

/// Width of the dense feed-forward in GGUF.
const FFN: &str = "feed_forward_length";

impl Grouped {
    fn has_shared_experts(&self) -> bool {
        self.moe.as_ref().is_some_and(|moe| moe.shared.is_some())
    }
}

impl Family for Grouped {
    fn name(&self) -> &'static str {
        self.name
    }

    fn model_types(&self) -> &'static [&'static str] {
        self.model_types
    }

    fn architecture(&self) -> &'static str {
        self.architecture
    }

    fn matches_gguf(&self, metadata: &Metadata, _corrects: bool) -> bool {
        let key = format!("{}.expert_count", self.architecture);
        let experts = matches!(metadata.usize(&key), Ok(Some(count)) if count > 0);
        let optional = self.moe.as_ref().is_some_and(|moe| moe.optional);
        optional || experts == self.moe.is_some()
    }

    fn config_from_hf(&'static self, json: &Json) -> Result<Config, ConfigError> {
        let r = ConfigReader(json);
        self.check_activation(&r)?;
        match r.get("use_bidirectional_attention") {
            // Of pictures only.
            Some(Json::String(of)) if of == "vision" => {}
            _ => r.expect_bool("use_bidirectional_attention", false)?,
        }
        r.expect_bool("conv_bias", false)?;
        let width = [1, limits::WIDTH];
        let hidden_size = r.size("hidden_size", width)?;
        let num_hidden_layers = r.size("num_hidden_layers", [1, limits::LAYERS])?;
        let max_position_embeddings =
            r.size_or("max_position_embeddings", 4096, [1, limits::CONTEXT])?;
        r.expect_bool("attn_output_gate", true)?;
        let moe = self.moe_from_hf(&r)?;
        // A family of which all layers have experts may leave out the width of the others.
        let intermediate_size = match r.get("intermediate_size") {
            None if self.moe.is_some() => r.size("moe_intermediate_size", width)?,
            _ if self.has_shared_experts() && moe == MoeConfig::DENSE => {
                r.size("shared_expert_intermediate_size", width)?
            }
            _ => r.size("intermediate_size", width)?,
        };
        let rms_norm_eps = match r.number("norm_eps")? {
            Some(eps) => eps,
            None => r.number("rms_norm_eps")?.unwrap_or(1e-6),
        };
        let attention = self.attention_from_hf(&r, hidden_size)?;
        let (rope, sliding_rope) = self.ropes_from_hf(&r, max_position_embeddings, &attention)?;
        let config = Config {
            family: self,
            vocab_size: r.size("vocab_size", [1, limits::VOCABULARY])?,
            hidden_size,
            num_hidden_layers,
            max_position_embeddings,
            rms_norm_eps,
            scales: self.scales_from_hf(&r, hidden_size)?,
            post_norms: self.post_norms,
            tie_word_embeddings: r.bool("tie_word_embeddings")?.unwrap_or(false),
            bos_token_id: r.tokens("bos_token_id")?.first().copied(),
            eos_token_ids: r.tokens("eos_token_id")?,
            recurrence: match self.delta {
                Some(delta) => Some(Recurrence::GatedDelta(delta.config_from_hf(&r)?)),
                None if attention.has(LayerType::Recurrent) && self.mamba => {
                    Some(Recurrence::Mamba2(mamba2::config_from_hf(&r, hidden_size)?))
                }
                None => None,
            },
            attention: AttentionConfig::Grouped(attention),
            rope,
            sliding_rope,
            intermediate_size,
            double_wide_shared: self.gemma4 && r.bool("use_double_wide_mlp")?.unwrap_or(false),
            per_layer_width: match self.gemma4 {
                true => gemma4::per_layer_width_from_hf(&r)?,
                false => 0,
            },
            mlp_bias: self.mlp_bias.in_hf(&r)?,
            activation: self.activation_from_hf(&r)?,
            moe,
            num_nextn_predict_layers: match self.mtp {
                Mtp::Layers => r.size_or("num_nextn_predict_layers", 0, [0, 16])?,
                Mtp::Module => r.size_or("mtp_num_hidden_layers", 1, [0, 16])?,
                Mtp::None => 0,
            },
        };
        self.check_rotation(&config)?;
        check(config)
    }

    fn config_from_gguf(&'static self, metadata: &Metadata) -> Result<Config, ConfigError> {
        let k = MetadataReader { metadata, architecture: self.architecture };
        let width = [1, limits::WIDTH];
        let hidden_size = k.size("embedding_length", width)?;
        k.refuse_foreign(match (self.multipliers, self.gemma4) {
            (true, _) => &MULTIPLIERS,
            (_, true) => &[gemma4::LOGIT_CAP],
            _ => &[],
        })?;
        let (intermediate_size, double_wide_shared) = match &k.metadata.get(&k.key(FFN)) {
            None if self.moe.as_ref().is_some_and(|moe| !moe.optional) => {
                (k.size("expert_feed_forward_length", width)?, false)
            }
            Some(Value::Array(_)) if self.gemma4 => gemma4::ffn_widths(&k)?,
            _ => (k.size(FFN, width)?, false),
        };
        let tied = metadata.bool("vaquita.tie_word_embeddings")?.unwrap_or(false);
        let nextn = match self.mtp {
            Mtp::None => 0,
            Mtp::Layers | Mtp::Module => k.size_or("nextn_predict_layers", 0, [0, 16])?,
        };
        let num_hidden_layers = k.size("block_count", [1 + nextn, limits::LAYERS])? - nextn;
        let attention = self.attention_from_gguf(&k, hidden_size, num_hidden_layers)?;
        let [full, sliding] =
            [LayerType::Full, LayerType::Sliding].map(|ty| attention.head_shape(ty).head_dim);
        let rope = k.rope(full, self.interleaved(), self.truncated_yarn)?;
        let config = Config {
            family: self,
            vocab_size: k.vocabulary()?,
            hidden_size,
            num_hidden_layers,
            max_position_embeddings: k.size("context_length", [1, limits::CONTEXT])?,
            rms_norm_eps: k.required_number("attention.layer_norm_rms_epsilon")?,
            scales: self.scales_from_gguf(&k, hidden_size)?,
            post_norms: self.post_norms,
            tie_word_embeddings: tied,
            bos_token_id: metadata.token_id("tokenizer.ggml.bos_token_id")?,
            eos_token_ids: keys::ends(metadata)?,
            sliding_rope: match self.sliding_rope {
                // The factors that a file of Gemma 4 has as a tensor are those of full layers.
                true => k
                    .sliding_rope(sliding, &rope, self.gguf_sliding_theta)?
                    .filter(|sliding| self.gemma4 || *sliding != rope),
                false => None,
            },
            rope,
            recurrence: match self.delta {
                Some(delta) => Some(Recurrence::GatedDelta(delta.config_from_gguf(&k)?)),
                None if attention.has(LayerType::Recurrent) && self.mamba => {
                    Some(Recurrence::Mamba2(mamba2::config_from_gguf(&k)?))
                }
                None => None,
            },
            attention: AttentionConfig::Grouped(attention),
            intermediate_size,
            double_wide_shared,
            per_layer_width: match self.gemma4 {
                true => k.size_or(gemma4::PER_LAYER_WIDTH, 0, [0, limits::WIDTH])?,
                false => 0,
            },
            mlp_bias: self.mlp_bias.in_gguf(None),
            activation: self.activation_from_gguf(&k)?,
            moe: self.moe_from_gguf(&k, intermediate_size)?,
            num_nextn_predict_layers: nextn,
        };
        self.check_rotation(&config)?;
        check(config)
    }

    fn write_metadata(&self, config: &Config, metadata: &mut Metadata) {
        let AttentionConfig::Grouped(gqa) = &config.attention else { return };
        let moe = &config.moe;
        let key = |name: &str| format!("{}.{name}", self.architecture);
        let mut size = |name: &str, value: usize| metadata.insert(key(name), value as u32);
        size("block_count", config.num_layers_stored());
        size("context_length", config.max_position_embeddings);
        size("embedding_length", config.hidden_size);
        size("vocab_size", config.vocab_size);
        size("feed_forward_length", config.intermediate_size);
        let full = gqa.head_shape(LayerType::Full);
        size("attention.key_length", full.head_dim);
        size("attention.value_length", full.head_dim);
        if gqa.has(LayerType::Sliding) {
            size("attention.sliding_window", gqa.sliding_window);
            if let Some(period) = self.sliding_period.and_then(|kind| kind.of(&gqa.layer_types)) {
                size("attention.sliding_window_pattern", period.layers);
            }
        }
        if config.num_nextn_predict_layers > 0 {
            size("nextn_predict_layers", config.num_nextn_predict_layers);
        }
        if gqa.conv_l_cache > 0 {
            size("shortconv.l_cache", gqa.conv_l_cache);
        }
        if moe.n_routed_experts > 0 {
            size("expert_count", moe.n_routed_experts);
            size("expert_used_count", moe.num_experts_per_tok);
            size("expert_feed_forward_length", moe.moe_intermediate_size);
            size("leading_dense_block_count", moe.first_k_dense_replace);
            if self.expert_interval {
                size("interleave_moe_layer_step", 1);
            }
            if moe.shared_expert_intermediate_size > 0 {
                size("expert_shared_count", moe.n_shared_experts);
                size("expert_shared_feed_forward_length", moe.shared_expert_intermediate_size);
            }
            if moe.n_group > 1 {
                size("expert_group_count", moe.n_group);
                size("expert_group_used_count", moe.topk_group);
            }
        }
        match &gqa.num_attention_heads_per_layer[..] {
            [] => metadata.insert(key("attention.head_count"), gqa.num_attention_heads as u32),
            heads => {
                let heads: Vec<i32> = heads.iter().map(|heads| *heads as i32).collect();
                metadata.insert(key("attention.head_count"), heads);
            }
        }
        let attends = |ty: &LayerType| match ty {
            LayerType::Conv => false,
            LayerType::Recurrent => !self.mamba,
            LayerType::Full | LayerType::Sliding => true,
        };
        if !gqa.layer_types.iter().all(attends) {
            let heads = |ty| if attends(ty) { gqa.num_key_value_heads as i32 } else { 0 };
            let heads: Vec<i32> = gqa.layer_types.iter().map(heads).collect();
            metadata.insert(key("attention.head_count_kv"), heads);
        } else {
            metadata.insert(key("attention.head_count_kv"), gqa.num_key_value_heads as u32);
        }
        let types = gqa.layer_types.iter().map(|ty| ty.name().to_string());
        metadata.insert("vaquita.layer_types", types.collect::<Vec<String>>());
        self.write_switches(gqa, metadata);
        self.write_scales(config, metadata);
        if self.gemma4 {
            gemma4::write_metadata(config, gqa, metadata);
        }
        if let Some(Recurrence::Mamba2(mamba)) = &config.recurrence {
            mamba2::write_metadata(self.architecture, mamba, metadata);
        }
        if let Some(Recurrence::GatedDelta(delta)) = &config.recurrence {
            gated_delta::write_metadata(self.architecture, delta, metadata);
            self.write_interval(&gqa.layer_types, metadata);
            if delta.tiled {
                // Of Qwen3.5's multimodal embedding; the positions of a text are the same in all.
                metadata.insert(key("rope.dimension_sections"), vec![11i32, 11, 10, 0]);
            }
        }
        match gqa.qkv_bias {
            Bias::IfStored => {}
            bias => metadata.insert("vaquita.attention.qkv_bias", bias == Bias::Required),
        }
        if let (Some(clip), Some([_, name])) = (gqa.clip_qkv, self.clip_qkv) {
            metadata.insert(key(name), clip);
        }
        metadata.insert("vaquita.expert_correction", moe.topk_method == TopkMethod::NoauxTc);
        if let Activation::ClampedSwiGlu { alpha, limit } = config.activation {
            metadata.insert("vaquita.swiglu.alpha", alpha);
            metadata.insert("vaquita.swiglu.limit", limit);
        }
        keys::write_common(self.architecture, config, metadata);
    }

    fn tensors(&self, config: &Config) -> Vec<TensorSpec> {
        grouped_tensors::tensors(self, config)
    }

    fn layer_prefix(&self, config: &Config, layer: usize) -> String {
        match layer.checked_sub(config.num_hidden_layers) {
            Some(layer) if self.mtp == Mtp::Module => format!("mtp.layers.{layer}."),
            _ => format!("model.layers.{layer}."),
        }
    }

    fn expert(&self, config: &Config, layer: LayerId, expert: ExpertId) -> ExpertSpec {
        grouped_tensors::expert(self, config, layer, expert)
    }
}
