//! What the families of MLA and DeepSeekMoE have in common: config keys, GGUF keys, tensor names.

use serde_json::Value as Json;

use super::{ConfigError, Family};
use crate::gguf::Metadata;
use crate::model::config::{
    Config, MlaConfig, MoeConfig, RopeConfig, Scoring, TopkMethod, YarnConfig,
};
use crate::model::spec::{ExpertId, ExpertSpec, HfTensor, LayerId, Role, TensorSpec};

/// `general.architecture` of all of them.
pub const ARCHITECTURE: &str = "deepseek2";

/// llama.cpp's number for sigmoid scores.
const GATING_SIGMOID: u32 = 2;
const GATING_SOFTMAX: u32 = 1;

/// Ceilings: what no real model comes near, and what no hostile file may exceed.
mod limits {
    pub const LAYERS: usize = 1024;
    pub const WIDTH: usize = 1 << 20;
    pub const HEADS: usize = 4096;
    pub const EXPERTS: usize = 65536;
    pub const VOCABULARY: usize = 1 << 24;
    pub const CONTEXT: usize = 1 << 30;
}

/// Reads `config.json`.
pub struct Reader<'a>(pub &'a Json);

impl Reader<'_> {
    fn get(&self, key: &str) -> Option<&Json> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| ConfigError::value(key, value, "a string"))
    }

    /// Refuses a key with another value than the one that runs.
    pub fn expect(&self, key: &str, allowed: &str) -> Result<(), ConfigError> {
        match self.str(key)? {
            Some(found) if found != allowed => Err(ConfigError::value(key, found, allowed)),
            _ => Ok(()),
        }
    }

    fn size_or(&self, key: &str, default: usize, range: [usize; 2]) -> Result<usize, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        in_range(key, size, value, range)
    }

    fn size(&self, key: &str, range: [usize; 2]) -> Result<usize, ConfigError> {
        self.get(key).ok_or(ConfigError::Missing { key: key.into() })?;
        self.size_or(key, 0, range)
    }

    fn number(&self, key: &str) -> Result<Option<f32>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        number.map(Some).ok_or_else(|| ConfigError::value(key, value, "a finite number"))
    }

    fn bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| ConfigError::value(key, value, "true or false"))
    }

    fn tokens(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let one = std::slice::from_ref(value);
        let ids = value.as_array().map_or(one, |ids| &ids[..]);
        let id = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let bad = || ConfigError::value(key, value, "a token or a list of tokens");
        ids.iter().map(|value| id(value).ok_or_else(bad)).collect()
    }
}

fn in_range(
    key: &str,
    size: Option<usize>,
    found: impl ToString,
    [low, high]: [usize; 2],
) -> Result<usize, ConfigError> {
    size.filter(|size| (low..=high).contains(size))
        .ok_or_else(|| ConfigError::value(key, found, format!("{low} to {high}")))
}

/// Reads the common keys of `config.json`.
pub fn config_from_hf(
    family: &'static dyn Family,
    json: &Json,
    scoring_func: Scoring,
    topk_method: TopkMethod,
) -> Result<Config, ConfigError> {
    let r = Reader(json);
    r.expect("hidden_act", "silu")?;
    if r.bool("attention_bias")? == Some(true) {
        return Err(ConfigError::value("attention_bias", true, false));
    }
    r.size_or("moe_layer_freq", 1, [1, 1])?;
    let num_hidden_layers = r.size("num_hidden_layers", [1, limits::LAYERS])?;
    let max_position_embeddings =
        r.size_or("max_position_embeddings", 4096, [1, limits::CONTEXT])?;
    let width = [1, limits::WIDTH];
    let n_routed_experts = r.size("n_routed_experts", [1, limits::EXPERTS])?;
    let config = Config {
        family,
        vocab_size: r.size("vocab_size", [1, limits::VOCABULARY])?,
        hidden_size: r.size("hidden_size", width)?,
        num_hidden_layers,
        max_position_embeddings,
        rms_norm_eps: r.number("rms_norm_eps")?.unwrap_or(1e-6),
        tie_word_embeddings: r.bool("tie_word_embeddings")?.unwrap_or(false),
        bos_token_id: r.tokens("bos_token_id")?.first().copied(),
        eos_token_ids: r.tokens("eos_token_id")?,
        attention: MlaConfig {
            num_attention_heads: r.size("num_attention_heads", [1, limits::HEADS])?,
            q_lora_rank: match r.size_or("q_lora_rank", 0, [0, limits::WIDTH])? {
                0 => None,
                rank => Some(rank),
            },
            kv_lora_rank: r.size("kv_lora_rank", width)?,
            qk_nope_head_dim: r.size("qk_nope_head_dim", width)?,
            qk_rope_head_dim: r.size("qk_rope_head_dim", width)?,
            v_head_dim: r.size("v_head_dim", width)?,
        },
        rope: rope_from_hf(&r, max_position_embeddings)?,
        intermediate_size: r.size("intermediate_size", width)?,
        moe: MoeConfig {
            n_routed_experts,
            n_shared_experts: r.size_or("n_shared_experts", 0, [0, 1024])?,
            num_experts_per_tok: r.size("num_experts_per_tok", [1, n_routed_experts])?,
            moe_intermediate_size: r.size("moe_intermediate_size", width)?,
            first_k_dense_replace: r.size_or("first_k_dense_replace", 0, [0, limits::LAYERS])?,
            scoring_func,
            topk_method,
            n_group: r.size_or("n_group", 1, [1, n_routed_experts])?,
            topk_group: r.size_or("topk_group", 1, [1, n_routed_experts])?,
            norm_topk_prob: r.bool("norm_topk_prob")?.unwrap_or(scoring_func == Scoring::Sigmoid),
            routed_scaling_factor: r.number("routed_scaling_factor")?.unwrap_or(1.0),
        },
        num_nextn_predict_layers: r.size_or("num_nextn_predict_layers", 0, [0, 16])?,
    };
    check(config)
}

/// Both styles: `rope_theta` and `rope_scaling` at the top, or all in `rope_parameters`.
fn rope_from_hf(r: &Reader, max_positions: usize) -> Result<RopeConfig, ConfigError> {
    let top_theta = r.number("rope_theta")?;
    let scaling = r.get("rope_parameters").or_else(|| r.get("rope_scaling"));
    let empty = Json::Object(Default::default());
    let s = Reader(scaling.unwrap_or(&empty));
    let theta = s.number("rope_theta")?.or(top_theta).unwrap_or(10000.0);
    let kind = match s.str("rope_type")? {
        Some(kind) => kind,
        None => s.str("type")?.unwrap_or("default"),
    };
    let yarn = match kind {
        "default" => None,
        "yarn" => {
            let original = s.size("original_max_position_embeddings", [1, limits::CONTEXT])?;
            let factor = s.number("factor")?.unwrap_or(max_positions as f32 / original as f32);
            Some(YarnConfig {
                factor,
                original_max_position_embeddings: original,
                beta_fast: s.number("beta_fast")?.unwrap_or(32.0),
                beta_slow: s.number("beta_slow")?.unwrap_or(1.0),
                mscale: s.number("mscale")?.unwrap_or(0.0),
                mscale_all_dim: s.number("mscale_all_dim")?.unwrap_or(0.0),
            })
        }
        other => return Err(ConfigError::value("rope_type", other, "default, yarn")),
    };
    Ok(RopeConfig { theta, interleaved: r.bool("rope_interleave")?.unwrap_or(true), yarn })
}

/// Whether GGUF metadata says that experts are scored by sigmoid, as V3 does.
pub fn has_sigmoid_scores(metadata: &Metadata) -> bool {
    matches!(metadata.u32(&key("expert_gating_func")), Ok(Some(GATING_SIGMOID)))
}

/// Expert groups in GGUF metadata.
pub fn groups(metadata: &Metadata) -> Result<usize, ConfigError> {
    Ok(metadata.usize(&key("expert_group_count"))?.unwrap_or(1))
}

fn key(name: &str) -> String {
    format!("{ARCHITECTURE}.{name}")
}

/// Reads GGUF metadata.
struct Keys<'a>(&'a Metadata);

impl Keys<'_> {
    fn size_or(&self, name: &str, default: usize, range: [usize; 2]) -> Result<usize, ConfigError> {
        match self.0.usize(&key(name))? {
            None => Ok(default),
            Some(size) => in_range(&key(name), Some(size), size, range),
        }
    }

    fn size(&self, name: &str, range: [usize; 2]) -> Result<usize, ConfigError> {
        let size = self.0.usize(&key(name))?.ok_or(ConfigError::Missing { key: key(name) })?;
        in_range(&key(name), Some(size), size, range)
    }

    fn number(&self, name: &str) -> Result<Option<f32>, ConfigError> {
        match self.0.f32(&key(name))? {
            Some(x) if !x.is_finite() => Err(ConfigError::value(&key(name), x, "a finite number")),
            x => Ok(x),
        }
    }
}

/// Reads llama.cpp's keys.
pub fn config_from_gguf(
    family: &'static dyn Family,
    metadata: &Metadata,
    scoring_func: Scoring,
    topk_method: TopkMethod,
) -> Result<Config, ConfigError> {
    let k = Keys(metadata);
    let width = [1, limits::WIDTH];
    let nextn = k.size_or("nextn_predict_layers", 0, [0, 16])?;
    let blocks = k.size("block_count", [1 + nextn, limits::LAYERS])?;
    let qk_rope_head_dim = k.size("rope.dimension_count", width)?;
    let head_dim = k.size("attention.key_length_mla", [qk_rope_head_dim + 1, limits::WIDTH])?;
    let n_routed_experts = k.size("expert_count", [1, limits::EXPERTS])?;
    let vocab_size = match metadata.strings("tokenizer.ggml.tokens")? {
        Some(tokens) => k.size_or("vocab_size", tokens.len(), [1, limits::VOCABULARY])?,
        None => k.size("vocab_size", [1, limits::VOCABULARY])?,
    };
    let yarn = match metadata.str(&key("rope.scaling.type"))? {
        Some("yarn") => {
            let all_dim = k.number("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0) / 0.1;
            Some(YarnConfig {
                factor: k.number("rope.scaling.factor")?.unwrap_or(1.0),
                original_max_position_embeddings: k
                    .size("rope.scaling.original_context_length", [1, limits::CONTEXT])?,
                beta_fast: k.number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: k.number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                mscale: metadata.f32("vaquita.rope.mscale")?.unwrap_or(all_dim),
                mscale_all_dim: metadata.f32("vaquita.rope.mscale_all_dim")?.unwrap_or(all_dim),
            })
        }
        Some("none") | None => None,
        Some(other) => return Err(ConfigError::value("rope.scaling.type", other, "none, yarn")),
    };
    let config = Config {
        family,
        vocab_size,
        hidden_size: k.size("embedding_length", width)?,
        num_hidden_layers: blocks - nextn,
        max_position_embeddings: k.size("context_length", [1, limits::CONTEXT])?,
        rms_norm_eps: k.number("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-6),
        tie_word_embeddings: metadata.bool("vaquita.tie_word_embeddings")?.unwrap_or(false),
        bos_token_id: metadata.u32("tokenizer.ggml.bos_token_id")?,
        eos_token_ids: metadata.u32("tokenizer.ggml.eos_token_id")?.into_iter().collect(),
        attention: MlaConfig {
            num_attention_heads: k.size("attention.head_count", [1, limits::HEADS])?,
            q_lora_rank: match k.size_or("attention.q_lora_rank", 0, [0, limits::WIDTH])? {
                0 => None,
                rank => Some(rank),
            },
            kv_lora_rank: k.size("attention.kv_lora_rank", width)?,
            qk_nope_head_dim: head_dim - qk_rope_head_dim,
            qk_rope_head_dim,
            v_head_dim: k.size("attention.value_length_mla", width)?,
        },
        rope: RopeConfig {
            theta: k.number("rope.freq_base")?.unwrap_or(10000.0),
            interleaved: metadata.bool("vaquita.rope.interleaved")?.unwrap_or(true),
            yarn,
        },
        intermediate_size: k.size("feed_forward_length", width)?,
        moe: MoeConfig {
            n_routed_experts,
            n_shared_experts: k.size_or("expert_shared_count", 0, [0, 1024])?,
            num_experts_per_tok: k.size("expert_used_count", [1, n_routed_experts])?,
            moe_intermediate_size: k.size("expert_feed_forward_length", width)?,
            first_k_dense_replace: k.size_or(
                "leading_dense_block_count",
                0,
                [0, limits::LAYERS],
            )?,
            scoring_func,
            topk_method,
            n_group: k.size_or("expert_group_count", 1, [1, n_routed_experts])?,
            topk_group: k.size_or("expert_group_used_count", 1, [1, n_routed_experts])?,
            norm_topk_prob: metadata
                .bool(&key("expert_weights_norm"))?
                .unwrap_or(scoring_func == Scoring::Sigmoid),
            routed_scaling_factor: k.number("expert_weights_scale")?.unwrap_or(1.0),
        },
        num_nextn_predict_layers: nextn,
    };
    check(config)
}

/// Writes llama.cpp's keys, and ours for what it has no key for.
pub fn write_metadata(config: &Config, metadata: &mut Metadata) {
    let Config { attention: mla, moe, rope, .. } = config;
    let mut size = |name: &str, value: usize| metadata.insert(key(name), value as u32);
    size("block_count", config.num_layers_stored());
    size("context_length", config.max_position_embeddings);
    size("embedding_length", config.hidden_size);
    size("vocab_size", config.vocab_size);
    size("feed_forward_length", config.intermediate_size);
    size("attention.head_count", mla.num_attention_heads);
    size("attention.head_count_kv", 1);
    if let Some(rank) = mla.q_lora_rank {
        size("attention.q_lora_rank", rank);
    }
    size("attention.kv_lora_rank", mla.kv_lora_rank);
    size("attention.key_length", mla.kv_lora_rank + mla.qk_rope_head_dim);
    size("attention.value_length", mla.kv_lora_rank);
    size("attention.key_length_mla", mla.qk_nope_head_dim + mla.qk_rope_head_dim);
    size("attention.value_length_mla", mla.v_head_dim);
    size("rope.dimension_count", mla.qk_rope_head_dim);
    size("leading_dense_block_count", moe.first_k_dense_replace);
    size("expert_count", moe.n_routed_experts);
    size("expert_used_count", moe.num_experts_per_tok);
    size("expert_shared_count", moe.n_shared_experts);
    size("expert_feed_forward_length", moe.moe_intermediate_size);
    size("expert_group_count", moe.n_group);
    size("expert_group_used_count", moe.topk_group);
    size("nextn_predict_layers", config.num_nextn_predict_layers);
    let gating = match moe.scoring_func {
        Scoring::Softmax => GATING_SOFTMAX,
        Scoring::Sigmoid => GATING_SIGMOID,
    };
    metadata.insert(key("expert_gating_func"), gating);
    metadata.insert(key("expert_weights_norm"), moe.norm_topk_prob);
    metadata.insert(key("expert_weights_scale"), moe.routed_scaling_factor);
    metadata.insert(key("attention.layer_norm_rms_epsilon"), config.rms_norm_eps);
    metadata.insert(key("rope.freq_base"), rope.theta);
    if let Some(yarn) = &rope.yarn {
        metadata.insert(key("rope.scaling.type"), "yarn");
        metadata.insert(key("rope.scaling.factor"), yarn.factor);
        let original = yarn.original_max_position_embeddings as u32;
        metadata.insert(key("rope.scaling.original_context_length"), original);
        metadata.insert(key("rope.scaling.yarn_log_multiplier"), 0.1 * yarn.mscale_all_dim);
        metadata.insert(key("rope.scaling.yarn_beta_fast"), yarn.beta_fast);
        metadata.insert(key("rope.scaling.yarn_beta_slow"), yarn.beta_slow);
        metadata.insert("vaquita.rope.mscale", yarn.mscale);
        metadata.insert("vaquita.rope.mscale_all_dim", yarn.mscale_all_dim);
    }
    metadata.insert("vaquita.rope.interleaved", rope.interleaved);
    metadata.insert("vaquita.tie_word_embeddings", config.tie_word_embeddings);
}

/// What the kernels and the network rely on.
fn check(config: Config) -> Result<Config, ConfigError> {
    let mla = &config.attention;
    let moe = &config.moe;
    let multiple = |key: &str, value: usize, of: usize| match value % of {
        0 => Ok(()),
        _ => Err(ConfigError::value(key, value, format!("a multiple of {of}"))),
    };
    multiple("qk_rope_head_dim", mla.qk_rope_head_dim, 8)?;
    multiple("kv_lora_rank", mla.kv_lora_rank, 8)?;
    multiple("v_head_dim", mla.v_head_dim, 8)?;
    if !moe.n_routed_experts.is_multiple_of(moe.n_group) {
        let allowed = format!("a divisor of the {} experts", moe.n_routed_experts);
        return Err(ConfigError::value("n_group", moe.n_group, allowed));
    }
    let reachable = match moe.topk_method {
        TopkMethod::Greedy => moe.n_routed_experts,
        _ => moe.n_routed_experts / moe.n_group * moe.topk_group,
    };
    if moe.topk_group > moe.n_group || moe.num_experts_per_tok > reachable {
        let allowed = format!("at most {reachable}, the experts of topk_group groups");
        return Err(ConfigError::value("num_experts_per_tok", moe.num_experts_per_tok, allowed));
    }
    if config.rms_norm_eps < 0.0 || config.rope.theta <= 1.0 {
        let found = format!("{} and {}", config.rms_norm_eps, config.rope.theta);
        return Err(ConfigError::value(
            "rms_norm_eps and rope_theta",
            found,
            "at least 0, above 1",
        ));
    }
    if let Some(yarn) = &config.rope.yarn
        && yarn.factor < 1.0
    {
        return Err(ConfigError::value("rope factor", yarn.factor, "at least 1"));
    }
    Ok(config)
}

/// Every tensor but the routed experts, in file order.
pub fn tensors(config: &Config) -> Vec<TensorSpec> {
    let hidden = config.hidden_size;
    let mut specs = Specs(Vec::new());
    let whole = |name: &str| HfTensor::Whole(name.into());
    specs.add(
        "token_embd.weight",
        [config.vocab_size, hidden],
        Role::Embedding,
        whole("model.embed_tokens.weight"),
    );
    for layer in 0..config.num_layers_stored() {
        layer_tensors(config, layer, &mut specs);
    }
    specs.add("output_norm.weight", [1, hidden], Role::Vector, whole("model.norm.weight"));
    if !config.tie_word_embeddings {
        specs.add(
            "output.weight",
            [config.vocab_size, hidden],
            Role::Output,
            whole("lm_head.weight"),
        );
    }
    specs.0
}

struct Specs(Vec<TensorSpec>);

impl Specs {
    fn add(&mut self, name: &str, [rows, cols]: [usize; 2], role: Role, hf: HfTensor) {
        self.0.push(TensorSpec { name: name.into(), rows, cols, role, hf, optional: false });
    }
}

fn layer_tensors(config: &Config, layer: usize, specs: &mut Specs) {
    let Config { attention: mla, moe, .. } = config;
    let hidden = config.hidden_size;
    let heads = mla.num_attention_heads;
    let head_dim = mla.qk_nope_head_dim + mla.qk_rope_head_dim;
    let hf = |name: &str| format!("model.layers.{layer}.{name}");
    let mut add = |name: &str, shape, role, from: &str| {
        specs.add(&format!("blk.{layer}.{name}"), shape, role, HfTensor::Whole(hf(from)));
    };

    add("attn_norm.weight", [1, hidden], Role::Vector, "input_layernorm.weight");
    match mla.q_lora_rank {
        None => add(
            "attn_q.weight",
            [heads * head_dim, hidden],
            Role::Attention,
            "self_attn.q_proj.weight",
        ),
        Some(rank) => {
            add("attn_q_a.weight", [rank, hidden], Role::Attention, "self_attn.q_a_proj.weight");
            add("attn_q_a_norm.weight", [1, rank], Role::Vector, "self_attn.q_a_layernorm.weight");
            add(
                "attn_q_b.weight",
                [heads * head_dim, rank],
                Role::Attention,
                "self_attn.q_b_proj.weight",
            );
        }
    }
    let kv_a_rows = mla.kv_lora_rank + mla.qk_rope_head_dim;
    add(
        "attn_kv_a_mqa.weight",
        [kv_a_rows, hidden],
        Role::Attention,
        "self_attn.kv_a_proj_with_mqa.weight",
    );
    add(
        "attn_kv_a_norm.weight",
        [1, mla.kv_lora_rank],
        Role::Vector,
        "self_attn.kv_a_layernorm.weight",
    );
    let output = [hidden, heads * mla.v_head_dim];
    add("attn_output.weight", output, Role::Attention, "self_attn.o_proj.weight");
    add("ffn_norm.weight", [1, hidden], Role::Vector, "post_attention_layernorm.weight");
    let mut mlp = |suffix: &str, width: usize, role, from: &str| {
        for (name, hf, shape) in [
            ("gate", "gate_proj", [width, hidden]),
            ("up", "up_proj", [width, hidden]),
            ("down", "down_proj", [hidden, width]),
        ] {
            add(&format!("ffn_{name}{suffix}.weight"), shape, role, &format!("{from}.{hf}.weight"));
        }
    };
    if config.is_moe(layer) {
        if moe.n_shared_experts > 0 {
            let width = moe.n_shared_experts * moe.moe_intermediate_size;
            mlp("_shexp", width, Role::SharedExpert, "mlp.shared_experts");
        }
        add("ffn_gate_inp.weight", [moe.n_routed_experts, hidden], Role::Router, "mlp.gate.weight");
        if moe.topk_method == TopkMethod::NoauxTc {
            let bias = "mlp.gate.e_score_correction_bias";
            add("exp_probs_b.bias", [1, moe.n_routed_experts], Role::Vector, bias);
        }
    } else {
        mlp("", config.intermediate_size, Role::DenseFfn, "mlp");
    }

    let kv_b = hf("self_attn.kv_b_proj.weight");
    let (key, value) = (HfTensor::KvBKey(kv_b.clone()), HfTensor::KvBValue(kv_b));
    let k_b = [heads * mla.kv_lora_rank, mla.qk_nope_head_dim];
    specs.add(&format!("blk.{layer}.attn_k_b.weight"), k_b, Role::Attention, key);
    let v_b = [heads * mla.v_head_dim, mla.kv_lora_rank];
    specs.add(&format!("blk.{layer}.attn_v_b.weight"), v_b, Role::Attention, value);
    if layer >= config.num_hidden_layers {
        mtp_tensors(config, layer, specs);
    }
}

/// What a multi-token-prediction layer has besides its block (V3, section 2.2). Embedding and head are the
/// main model's where a checkpoint does not repeat them.
fn mtp_tensors(config: &Config, layer: usize, specs: &mut Specs) {
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    for (name, shape, role, from, optional) in [
        ("nextn.eh_proj.weight", [hidden, 2 * hidden], Role::Mtp, "eh_proj.weight", false),
        ("nextn.enorm.weight", [1, hidden], Role::Vector, "enorm.weight", false),
        ("nextn.hnorm.weight", [1, hidden], Role::Vector, "hnorm.weight", false),
        (
            "nextn.shared_head_norm.weight",
            [1, hidden],
            Role::Vector,
            "shared_head.norm.weight",
            false,
        ),
        (
            "nextn.embed_tokens.weight",
            [vocab, hidden],
            Role::Embedding,
            "embed_tokens.weight",
            true,
        ),
        (
            "nextn.shared_head_head.weight",
            [vocab, hidden],
            Role::Output,
            "shared_head.head.weight",
            true,
        ),
    ] {
        let hf = HfTensor::Whole(format!("model.layers.{layer}.{from}"));
        let name = format!("blk.{layer}.{name}");
        specs.0.push(TensorSpec { name, rows: shape[0], cols: shape[1], role, hf, optional });
    }
}

/// One routed expert.
pub fn expert(config: &Config, layer: LayerId, expert: ExpertId) -> ExpertSpec {
    let hf = |projection: &str| {
        format!("model.layers.{}.mlp.experts.{}.{projection}_proj.weight", layer.0, expert.0)
    };
    ExpertSpec {
        layer,
        expert,
        hidden_size: config.hidden_size,
        intermediate_size: config.moe.moe_intermediate_size,
        hf: ["gate", "up", "down"].map(hf),
    }
}
