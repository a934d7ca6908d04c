//! The common part of the families with MLA and DeepSeekMoE: config keys and GGUF keys.

use serde_json::Value as Json;

use super::keys;
use super::keys::{ConfigReader, MetadataReader, limits};
use super::kimi_delta::KimiDelta;
use super::{ConfigError, Family, mtp};
use crate::checkpoint::config::{
    Activation, AttentionConfig, Bias, Config, LayerType, MlaConfig, MoeConfig, RopeScaling,
    Scales, Scoring, TopkMethod,
};
use crate::gguf::Metadata;

/// `general.architecture` of DeepSeek's families.
pub const ARCHITECTURE: &str = "deepseek2";

/// What is added to the variance of latents: the networks of DeepSeek and of all families here have
/// this, whatever `rms_norm_eps` is.
const LATENT_NORM_EPS: f32 = 1e-6;

/// The same in GGUF, where it is not `attention.layer_norm_rms_epsilon`, which llama.cpp takes.
const LATENT_NORM_KEY: &str = "vaquita.attention.latent_norm_eps";

/// Differences between the families: names, rotation, gates and the recurrent mixer.
#[derive(Debug)]
pub struct Layout {
    /// `general.architecture` in GGUF.
    pub architecture: &'static str,
    /// Whether the rotary parts of queries and keys are rotated.
    pub rotates: bool,
    /// Whether each head's output has a gate.
    pub output_gate: bool,
    /// Whether the weights of experts are normalized in GGUF files that do not state it; llama.cpp
    /// has this in its code.
    pub gguf_norm: bool,
    /// Layers with Kimi Delta Attention.
    pub delta: Option<KimiDelta>,
    /// Names of tensors in checkpoints.
    pub names: Names,
}

/// Names of tensors in checkpoints.
#[derive(Debug)]
pub struct Names {
    /// The embedding.
    pub embedding: &'static str,
    /// Prefix of the mixer, below the layer.
    pub mixer: &'static str,
    /// Output projection of attention, below the mixer.
    pub output: &'static str,
    /// Prefix of router and experts, below the layer.
    pub moe: &'static str,
    /// Correction of the router's scores, below the prefix of router and experts.
    pub correction: &'static str,
    /// Gate, up and down of a routed expert.
    pub experts: [&'static str; 3],
    /// Norm before the output head of MTP layers, in GGUF and in checkpoints, both below the layer.
    pub mtp_norm: [&'static str; 2],
}

/// DeepSeek's names, which most families use.
pub const DEEPSEEK_NAMES: Names = Names {
    embedding: "model.embed_tokens.weight",
    mixer: "self_attn",
    output: "o_proj",
    moe: "mlp",
    correction: "gate.e_score_correction_bias",
    experts: ["gate_proj", "up_proj", "down_proj"],
    mtp_norm: mtp::NORM,
};

/// The layout of V2 and V3.
pub const DEEPSEEK: Layout = Layout {
    architecture: ARCHITECTURE,
    rotates: true,
    output_gate: false,
    gguf_norm: false,
    delta: None,
    names: DEEPSEEK_NAMES,
};

/// Reads the common keys of `config.json`.
pub fn config_from_hf(
    family: &'static dyn Family,
    layout: &Layout,
    json: &Json,
    scoring_func: Scoring,
    topk_method: TopkMethod,
) -> Result<Config, ConfigError> {
    let r = ConfigReader(json);
    r.expect("hidden_act", "silu")?;
    r.expect_bool("attention_bias", false)?;
    r.expect_bool("mlp_bias", false)?;
    r.size_or("moe_layer_freq", 1, [1, 1])?;
    let num_hidden_layers = r.size("num_hidden_layers", [1, limits::LAYERS])?;
    let max_position_embeddings =
        r.size_or("max_position_embeddings", 4096, [1, limits::CONTEXT])?;
    let width = [1, limits::WIDTH];
    let n_routed_experts = r.size("n_routed_experts", [1, limits::EXPERTS])?;
    let n_shared_experts = r.size_or("n_shared_experts", 0, [0, 1024])?;
    let moe_intermediate_size = r.size("moe_intermediate_size", width)?;
    let num_attention_heads = r.size("num_attention_heads", [1, limits::HEADS])?;
    let key = "num_key_value_heads";
    let key_value_heads = r.size_or(key, num_attention_heads, [1, limits::HEADS])?;
    if key_value_heads != num_attention_heads {
        let allowed = format!("{num_attention_heads}, as many as num_attention_heads");
        return Err(ConfigError::value(key, key_value_heads, allowed));
    }
    r.refuse_ropes_of_layers()?;
    let config = Config {
        family,
        vocab_size: r.size("vocab_size", [1, limits::VOCABULARY])?,
        hidden_size: r.size("hidden_size", width)?,
        num_hidden_layers,
        max_position_embeddings,
        rms_norm_eps: r.number("rms_norm_eps")?.unwrap_or(1e-6),
        scales: Scales::NONE,
        post_norms: false,
        tie_word_embeddings: r.bool("tie_word_embeddings")?.unwrap_or(false),
        bos_token_id: r.tokens("bos_token_id")?.first().copied(),
        eos_token_ids: r.tokens("eos_token_id")?,
        attention: AttentionConfig::Mla(MlaConfig {
            num_attention_heads,
            q_lora_rank: match r.size_or("q_lora_rank", 0, [0, limits::WIDTH])? {
                0 => None,
                rank => Some(rank),
            },
            kv_lora_rank: r.size("kv_lora_rank", width)?,
            qk_nope_head_dim: r.size("qk_nope_head_dim", width)?,
            qk_rope_head_dim: r.size("qk_rope_head_dim", width)?,
            v_head_dim: r.size("v_head_dim", width)?,
            latent_norm_eps: LATENT_NORM_EPS,
            rotates: layout.rotates,
            output_gate: layout.output_gate,
            layer_types: Vec::new(),
        }),
        recurrence: None,
        rope: r.rope(
            max_position_embeddings,
            r.size("qk_rope_head_dim", width)?,
            r.bool("rope_interleave")?.unwrap_or(true),
        )?,
        sliding_rope: None,
        intermediate_size: r.size("intermediate_size", width)?,
        double_wide_shared: false,
        per_layer_width: 0,
        mlp_bias: Bias::None,
        activation: Activation::SwiGlu,
        moe: MoeConfig {
            n_routed_experts,
            n_shared_experts,
            shared_expert_intermediate_size: n_shared_experts * moe_intermediate_size,
            num_experts_per_tok: r.size("num_experts_per_tok", [1, n_routed_experts])?,
            moe_intermediate_size,
            first_k_dense_replace: r.dense_layers("first_k_dense_replace")?,
            scoring_func,
            topk_method,
            n_group: r.size_or("n_group", 1, [1, n_routed_experts])?,
            topk_group: r.size_or("topk_group", 1, [1, n_routed_experts])?,
            norm_topk_prob: r.bool("norm_topk_prob")?.unwrap_or(scoring_func == Scoring::Sigmoid),
            routed_scaling_factor: r.number("routed_scaling_factor")?.unwrap_or(1.0),
            ..MoeConfig::DENSE
        },
        num_nextn_predict_layers: r.size_or("num_nextn_predict_layers", 0, [0, 16])?,
    };
    check(config)
}

/// Whether experts are scored by sigmoid, as in V3. If the metadata does not state it, as in files
/// of GLM-4.7-Flash, the presence of score correction tensors decides: V2 has none.
pub fn has_sigmoid_scores(metadata: &Metadata, corrects: bool) -> bool {
    let keys = MetadataReader { metadata, architecture: ARCHITECTURE };
    keys.has_sigmoid_scores().unwrap_or(corrects)
}

/// Number of expert groups in GGUF metadata.
pub fn groups(metadata: &Metadata) -> Result<usize, ConfigError> {
    Ok(metadata.usize(&format!("{ARCHITECTURE}.expert_group_count"))?.unwrap_or(1))
}

/// Reads llama.cpp's keys.
pub fn config_from_gguf(
    family: &'static dyn Family,
    layout: &Layout,
    metadata: &Metadata,
    scoring_func: Scoring,
    topk_method: TopkMethod,
) -> Result<Config, ConfigError> {
    let k = MetadataReader { metadata, architecture: layout.architecture };
    k.refuse_foreign(&[])?;
    k.check_scoring(scoring_func, false)?;
    let width = [1, limits::WIDTH];
    let nextn = k.size_or("nextn_predict_layers", 0, [0, 16])?;
    let blocks = k.size("block_count", [1 + nextn, limits::LAYERS])?;
    let qk_rope_head_dim = k.size("rope.dimension_count", width)?;
    // Files from before llama.cpp ran MLA in its absorbed form store the widths of heads under the
    // usual keys.
    let absorbed = metadata.get(&k.key("attention.key_length_mla")).is_some();
    let suffix = if absorbed { "_mla" } else { "" };
    let key_length = format!("attention.key_length{suffix}");
    let head_dim = k.size(&key_length, [qk_rope_head_dim + 1, limits::WIDTH])?;
    let n_routed_experts = k.size("expert_count", [1, limits::EXPERTS])?;
    let n_shared_experts = k.size_or("expert_shared_count", 0, [0, 1024])?;
    let moe_intermediate_size = k.size("expert_feed_forward_length", width)?;
    let rms_norm_eps = k.required_number("attention.layer_norm_rms_epsilon")?;
    let [n_group, topk_group] = k.groups(n_routed_experts)?;
    let config = Config {
        family,
        vocab_size: k.vocabulary()?,
        hidden_size: k.size("embedding_length", width)?,
        num_hidden_layers: blocks - nextn,
        max_position_embeddings: k.size("context_length", [1, limits::CONTEXT])?,
        rms_norm_eps,
        scales: Scales::NONE,
        post_norms: false,
        tie_word_embeddings: metadata.bool("vaquita.tie_word_embeddings")?.unwrap_or(false),
        bos_token_id: metadata.token_id("tokenizer.ggml.bos_token_id")?,
        eos_token_ids: keys::ends(metadata)?,
        attention: AttentionConfig::Mla(MlaConfig {
            num_attention_heads: k.size("attention.head_count", [1, limits::HEADS])?,
            q_lora_rank: match k.size_or("attention.q_lora_rank", 0, [0, limits::WIDTH])? {
                0 => None,
                rank => Some(rank),
            },
            kv_lora_rank: k.size("attention.kv_lora_rank", width)?,
            qk_nope_head_dim: head_dim - qk_rope_head_dim,
            qk_rope_head_dim,
            v_head_dim: k.size(&format!("attention.value_length{suffix}"), width)?,
            latent_norm_eps: metadata.f32(LATENT_NORM_KEY)?.unwrap_or(rms_norm_eps),
            rotates: layout.rotates,
            output_gate: layout.output_gate,
            layer_types: Vec::new(),
        }),
        recurrence: None,
        rope: k.rope(qk_rope_head_dim, true, true)?,
        sliding_rope: None,
        intermediate_size: k.size("feed_forward_length", width)?,
        double_wide_shared: false,
        per_layer_width: 0,
        mlp_bias: Bias::None,
        activation: Activation::SwiGlu,
        moe: MoeConfig {
            n_routed_experts,
            n_shared_experts,
            shared_expert_intermediate_size: n_shared_experts * moe_intermediate_size,
            num_experts_per_tok: k.size("expert_used_count", [1, n_routed_experts])?,
            moe_intermediate_size,
            first_k_dense_replace: k.size_or(
                "leading_dense_block_count",
                0,
                [0, limits::LAYERS],
            )?,
            scoring_func,
            topk_method,
            n_group,
            topk_group,
            norm_topk_prob: metadata
                .bool(&k.key("expert_weights_norm"))?
                .unwrap_or(layout.gguf_norm),
            routed_scaling_factor: k.number("expert_weights_scale")?.unwrap_or(1.0),
            ..MoeConfig::DENSE
        },
        num_nextn_predict_layers: nextn,
    };
    check(config)
}

/// Writes llama.cpp's keys, and vaquita's own where llama.cpp has none.
pub fn write_metadata(layout: &Layout, config: &Config, metadata: &mut Metadata) {
    let Config { moe, .. } = config;
    let AttentionConfig::Mla(mla) = &config.attention else { return };
    let key = |name: &str| format!("{}.{name}", layout.architecture);
    let mut size = |name: &str, value: usize| metadata.insert(key(name), value as u32);
    size("block_count", config.num_layers_stored());
    size("context_length", config.max_position_embeddings);
    size("embedding_length", config.hidden_size);
    size("vocab_size", config.vocab_size);
    size("feed_forward_length", config.intermediate_size);
    size("attention.head_count", mla.num_attention_heads);
    if let Some(rank) = mla.q_lora_rank {
        size("attention.q_lora_rank", rank);
    }
    size("attention.kv_lora_rank", mla.kv_lora_rank);
    size("attention.key_length", mla.kv_lora_rank + mla.qk_rope_head_dim);
    size("attention.value_length", mla.kv_lora_rank);
    size("attention.key_length_mla", mla.qk_nope_head_dim + mla.qk_rope_head_dim);
    size("attention.value_length_mla", mla.v_head_dim);
    size("leading_dense_block_count", moe.first_k_dense_replace);
    size("expert_count", moe.n_routed_experts);
    size("expert_used_count", moe.num_experts_per_tok);
    size("expert_shared_count", moe.n_shared_experts);
    size("expert_feed_forward_length", moe.moe_intermediate_size);
    size("expert_group_count", moe.n_group);
    size("expert_group_used_count", moe.topk_group);
    size("nextn_predict_layers", config.num_nextn_predict_layers);
    if mla.latent_norm_eps != config.rms_norm_eps {
        metadata.insert(LATENT_NORM_KEY, mla.latent_norm_eps);
    }
    // None in recurrent layers.
    let heads = |layer| i32::from(config.layer_type(layer) != LayerType::Recurrent);
    match &mla.layer_types[..] {
        [] => metadata.insert(key("attention.head_count_kv"), 1u32),
        _ => {
            let heads: Vec<i32> = (0..config.num_layers_stored()).map(heads).collect();
            metadata.insert(key("attention.head_count_kv"), heads);
        }
    }
    keys::write_common(layout.architecture, config, metadata);
}

fn check(config: Config) -> Result<Config, ConfigError> {
    if let AttentionConfig::Mla(mla) = &config.attention {
        keys::multiple("qk_rope_head_dim", mla.qk_rope_head_dim, 8)?;
        keys::multiple("kv_lora_rank", mla.kv_lora_rank, 8)?;
        keys::multiple("v_head_dim", mla.v_head_dim, 8)?;
        let eps = mla.latent_norm_eps;
        if !eps.is_finite() || eps < 0.0 {
            return Err(ConfigError::value(LATENT_NORM_KEY, eps, "at least 0"));
        }
        if config.rope.dim != mla.qk_rope_head_dim {
            let found = config.rope.dim as f32 / mla.qk_rope_head_dim as f32;
            return Err(ConfigError::value("partial_rotary_factor", found, 1));
        }
        let other = match &config.rope.scaling {
            RopeScaling::Llama3(_) => Some("llama3"),
            RopeScaling::Proportional { .. } => Some("proportional"),
            RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Yarn(_) => None,
        };
        if let Some(other) = other {
            return Err(ConfigError::value("rope_type", other, "default, linear, yarn"));
        }
    }
    keys::check(config)
}
