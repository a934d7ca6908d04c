//! The common part of the families with MLA and DeepSeekMoE: config keys, GGUF keys, tensor names.

use serde_json::Value as Json;

use super::keys;
use super::keys::{ConfigReader, MetadataReader, limits};
use super::{ConfigError, Family, mtp};
use crate::checkpoint::config::{
    Activation, AttentionConfig, Bias, Config, MlaConfig, MoeConfig, RopeScaling, Scales, Scoring,
    TopkMethod,
};
use crate::checkpoint::spec::{
    ExpertId, ExpertSpec, HfExpert, HfTensor, KvB, LayerId, Role, TensorSpec,
};
use crate::gguf::Metadata;

/// `general.architecture` of these families.
pub const ARCHITECTURE: &str = "deepseek2";

/// Reads the common keys of `config.json`.
pub fn config_from_hf(
    family: &'static dyn Family,
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
            num_attention_heads: r.size("num_attention_heads", [1, limits::HEADS])?,
            q_lora_rank: match r.size_or("q_lora_rank", 0, [0, limits::WIDTH])? {
                0 => None,
                rank => Some(rank),
            },
            kv_lora_rank: r.size("kv_lora_rank", width)?,
            qk_nope_head_dim: r.size("qk_nope_head_dim", width)?,
            qk_rope_head_dim: r.size("qk_rope_head_dim", width)?,
            v_head_dim: r.size("v_head_dim", width)?,
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

fn keys(metadata: &Metadata) -> MetadataReader<'_> {
    MetadataReader { metadata, architecture: ARCHITECTURE }
}

/// Whether experts are scored by sigmoid, as in V3. If the metadata does not state it, as in files
/// of GLM-4.7-Flash, the presence of score correction tensors decides: V2 has none.
pub fn has_sigmoid_scores(metadata: &Metadata, corrects: bool) -> bool {
    keys(metadata).has_sigmoid_scores().unwrap_or(corrects)
}

/// Number of expert groups in GGUF metadata.
pub fn groups(metadata: &Metadata) -> Result<usize, ConfigError> {
    Ok(metadata.usize(&key("expert_group_count"))?.unwrap_or(1))
}

fn key(name: &str) -> String {
    format!("{ARCHITECTURE}.{name}")
}

/// Reads llama.cpp's keys.
pub fn config_from_gguf(
    family: &'static dyn Family,
    metadata: &Metadata,
    scoring_func: Scoring,
    topk_method: TopkMethod,
) -> Result<Config, ConfigError> {
    let k = keys(metadata);
    k.refuse_foreign(&[])?;
    k.check_scoring(scoring_func, false)?;
    let width = [1, limits::WIDTH];
    let nextn = k.size_or("nextn_predict_layers", 0, [0, 16])?;
    let blocks = k.size("block_count", [1 + nextn, limits::LAYERS])?;
    let qk_rope_head_dim = k.size("rope.dimension_count", width)?;
    // Files from before llama.cpp ran MLA in its absorbed form store the widths of heads under the
    // usual keys.
    let absorbed = metadata.get(&key("attention.key_length_mla")).is_some();
    let suffix = if absorbed { "_mla" } else { "" };
    let key_length = format!("attention.key_length{suffix}");
    let head_dim = k.size(&key_length, [qk_rope_head_dim + 1, limits::WIDTH])?;
    let n_routed_experts = k.size("expert_count", [1, limits::EXPERTS])?;
    let n_shared_experts = k.size_or("expert_shared_count", 0, [0, 1024])?;
    let moe_intermediate_size = k.size("expert_feed_forward_length", width)?;
    let config = Config {
        family,
        vocab_size: k.vocabulary()?,
        hidden_size: k.size("embedding_length", width)?,
        num_hidden_layers: blocks - nextn,
        max_position_embeddings: k.size("context_length", [1, limits::CONTEXT])?,
        rms_norm_eps: k.required_number("attention.layer_norm_rms_epsilon")?,
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
            n_group: k.size_or("expert_group_count", 1, [1, n_routed_experts])?,
            topk_group: k.size_or("expert_group_used_count", 1, [1, n_routed_experts])?,
            norm_topk_prob: metadata
                .bool(&key("expert_weights_norm"))?
                .unwrap_or(scoring_func == Scoring::Sigmoid),
            routed_scaling_factor: k.number("expert_weights_scale")?.unwrap_or(1.0),
            ..MoeConfig::DENSE
        },
        num_nextn_predict_layers: nextn,
    };
    check(config)
}

/// Writes llama.cpp's keys, and vaquita's own where llama.cpp has none.
pub fn write_metadata(config: &Config, metadata: &mut Metadata) {
    let Config { moe, .. } = config;
    let AttentionConfig::Mla(mla) = &config.attention else { return };
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
    size("leading_dense_block_count", moe.first_k_dense_replace);
    size("expert_count", moe.n_routed_experts);
    size("expert_used_count", moe.num_experts_per_tok);
    size("expert_shared_count", moe.n_shared_experts);
    size("expert_feed_forward_length", moe.moe_intermediate_size);
    size("expert_group_count", moe.n_group);
    size("expert_group_used_count", moe.topk_group);
    size("nextn_predict_layers", config.num_nextn_predict_layers);
    keys::write_common(ARCHITECTURE, config, metadata);
}

fn check(config: Config) -> Result<Config, ConfigError> {
    if let AttentionConfig::Mla(mla) = &config.attention {
        keys::multiple("qk_rope_head_dim", mla.qk_rope_head_dim, 8)?;
        keys::multiple("kv_lora_rank", mla.kv_lora_rank, 8)?;
        keys::multiple("v_head_dim", mla.v_head_dim, 8)?;
        if config.rope.dim != mla.qk_rope_head_dim {
            let found = config.rope.dim as f32 / mla.qk_rope_head_dim as f32;
            return Err(ConfigError::value("partial_rotary_factor", found, 1));
        }
        if matches!(config.rope.scaling, RopeScaling::Llama3(_)) {
            return Err(ConfigError::value("rope_type", "llama3", "default, yarn"));
        }
    }
    keys::check(config)
}

/// All tensors except routed experts, in file order.
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
    let Config { moe, .. } = config;
    let AttentionConfig::Mla(mla) = &config.attention else { return };
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
            mlp(
                "_shexp",
                moe.shared_expert_intermediate_size,
                Role::SharedExpert,
                "mlp.shared_experts",
            );
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
    let shape =
        KvB { heads, nope: mla.qk_nope_head_dim, v: mla.v_head_dim, rank: mla.kv_lora_rank };
    let (key, value) = (HfTensor::KvBKey(kv_b.clone(), shape), HfTensor::KvBValue(kv_b, shape));
    let k_b = [heads * mla.kv_lora_rank, mla.qk_nope_head_dim];
    specs.add(&format!("blk.{layer}.attn_k_b.weight"), k_b, Role::Attention, key);
    let v_b = [heads * mla.v_head_dim, mla.kv_lora_rank];
    specs.add(&format!("blk.{layer}.attn_v_b.weight"), v_b, Role::Attention, value);
    if layer >= config.num_hidden_layers {
        specs.0.extend(mtp::tensors(config, layer));
    }
}

/// A routed expert.
pub fn expert(config: &Config, layer: LayerId, expert: ExpertId) -> ExpertSpec {
    let hf = |projection: &str| {
        format!("model.layers.{}.mlp.experts.{}.{projection}_proj.weight", layer.0, expert.0)
    };
    ExpertSpec {
        layer,
        expert,
        hidden_size: config.hidden_size,
        intermediate_size: config.moe.moe_intermediate_size,
        hf: HfExpert::Separate(["gate", "up", "down"].map(hf)),
    }
}
