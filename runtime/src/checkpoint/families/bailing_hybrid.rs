//! Ling 3: Kimi Delta Attention with bounded decays, MLA with a gate for each head in the last
//! layer of every group, and DeepSeek-V3's experts.

use serde_json::Value as Json;

use super::keys::{ConfigReader, MetadataReader, limits};
use super::kimi_delta::{self, KimiDelta, TAPS};
use super::mla_moe::{self, DEEPSEEK_NAMES, Layout, Names};
use super::{ConfigError, Family, mla_tensors};
use crate::checkpoint::config::{
    Config, DecayGate, KimiDeltaConfig, LayerType, Scoring, TopkMethod,
};
use crate::checkpoint::spec::{ExpertId, ExpertSpec, Function, LayerId, TensorSpec};
use crate::gguf::Metadata;

const LAYOUT: Layout = Layout {
    architecture: "bailingmoe3",
    rotates: true,
    output_gate: true,
    gguf_norm: false,
    delta: Some(KimiDelta { low_rank: false, rates: Function::Exp }),
    names: Names {
        embedding: "model.word_embeddings.weight",
        mixer: "attention",
        output: "dense",
        correction: "gate.expert_bias",
        mtp_norm: ["layer_output_norm", "final_layernorm"],
        ..DEEPSEEK_NAMES
    },
};

/// Limits of activations, one for each layer, with which this version does not compute.
const CLAMPS: [&str; 2] = ["expert_swiglu_limit_list", "share_expert_swiglu_limit_list"];

/// The architecture of Ling 2.5, which has the same `model_type` and another network: lightning
/// attention.
const LING_2_5: &str = "BailingMoeV2_5ForCausalLM";

/// The family of Ling-3.0-tiny and Ling-3.0-flash.
#[derive(Debug)]
pub struct BailingHybrid;

impl Family for BailingHybrid {
    fn name(&self) -> &'static str {
        "Ling 3"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["bailing_hybrid"]
    }

    fn architecture(&self) -> &'static str {
        LAYOUT.architecture
    }

    fn matches_gguf(&self, _: &Metadata, _: bool) -> bool {
        true
    }

    fn config_from_hf(&'static self, json: &Json) -> Result<Config, ConfigError> {
        let r = ConfigReader(json);
        let architectures = r.get("architectures").and_then(Json::as_array);
        if architectures.is_some_and(|names| names.iter().any(|name| name == LING_2_5)) {
            let allowed = "that of Ling 3: this version does not compute lightning attention";
            return Err(ConfigError::value("architectures", LING_2_5, allowed));
        }
        for key in ["score_function", "scoring_func"] {
            r.expect(key, "sigmoid")?;
        }
        for (key, allowed) in [
            ("kda_safe_gate", true),
            ("no_kda_lora", true),
            ("rope_interleave", true),
            ("use_qkv_bias", false),
        ] {
            r.expect_bool(key, allowed)?;
        }
        r.expect("gated_attention_proj_granularity_type", "head_wise")?;
        for key in CLAMPS {
            let limits = |value: &&Json| match value.as_array() {
                Some(limits) => limits.iter().any(|limit| !is_none(limit)),
                None => true,
            };
            if let Some(found) = r.get(key).filter(limits) {
                let allowed = "no limit: this version does not compute with it";
                return Err(ConfigError::value(key, found, allowed));
            }
        }
        let (scoring, method) = (Scoring::Sigmoid, TopkMethod::NoauxTc);
        let rotary = without_shares(json);
        let config = mla_moe::config_from_hf(self, &LAYOUT, &rotary, scoring, method)?;
        let bound = r.number("kda_lower_bound")?;
        let heads = config.attention.num_attention_heads();
        let delta = KimiDeltaConfig {
            num_heads: r.size_or("linear_num_heads", heads, [1, limits::HEADS])?,
            head_dim: match r.get("linear_head_dim") {
                None => r.size("head_dim", [1, limits::WIDTH])?,
                Some(_) => r.size("linear_head_dim", [1, limits::WIDTH])?,
            },
            conv_kernel_dim: match r.get("linear_conv_kernel_dim") {
                None => r.size("short_conv_kernel_size", [1, TAPS])?,
                Some(_) => r.size("linear_conv_kernel_dim", [1, TAPS])?,
            },
            decay_gate: bounded("kda_lower_bound", bound)?,
        };
        let types = match r.strings("layer_types")? {
            Some(names) => kimi_delta::layer_types(&names)?,
            None => grouped_types(&r, config.num_hidden_layers)?,
        };
        kimi_delta::with_layers(config, delta, types)
    }

    fn config_from_gguf(&'static self, metadata: &Metadata) -> Result<Config, ConfigError> {
        let k = MetadataReader { metadata, architecture: LAYOUT.architecture };
        for name in ["rope.dimension_sections", "swiglu_clamp_exp", "swiglu_clamp_shexp"] {
            let key = k.key(name);
            if metadata.get(&key).is_some() && !is_zero(metadata, &key) {
                let allowed = "none: this version does not compute with it";
                return Err(ConfigError::value(&key, "present", allowed));
            }
        }
        if metadata.bool(&k.key("kda.safe_gate"))? == Some(false) {
            return Err(ConfigError::value(&k.key("kda.safe_gate"), false, true));
        }
        let (scoring, method) = (Scoring::Sigmoid, TopkMethod::NoauxTc);
        let config = mla_moe::config_from_gguf(self, &LAYOUT, metadata, scoring, method)?;
        let name = "kda.gate_lower_bound";
        let gate = bounded(&k.key(name), k.number(name)?)?;
        kimi_delta::with_layers_from_gguf(config, &k, gate)
    }

    fn write_metadata(&self, config: &Config, metadata: &mut Metadata) {
        mla_moe::write_metadata(&LAYOUT, config, metadata);
        kimi_delta::write_metadata(LAYOUT.architecture, config, metadata);
    }

    fn tensors(&self, config: &Config) -> Vec<TensorSpec> {
        mla_tensors::tensors(&LAYOUT, config)
    }

    fn expert(&self, config: &Config, layer: LayerId, expert: ExpertId) -> ExpertSpec {
        mla_tensors::expert(&LAYOUT, config, layer, expert)
    }
}

/// The configuration without shares of heads that are rotated, which those of Ling 2 are: MLA
/// rotates `qk_rope_head_dim` numbers of a head.
fn without_shares(json: &Json) -> Json {
    let mut json = json.clone();
    let remove = |object: &mut Json| {
        if let Some(object) = object.as_object_mut() {
            object.retain(|key, _| !SHARES.contains(&key.as_str()));
        }
    };
    remove(&mut json);
    for key in ["rope_parameters", "rope_scaling"] {
        json.get_mut(key).into_iter().for_each(remove);
    }
    json
}

const SHARES: [&str; 2] = ["partial_rotary_factor", "rotary_dim"];

/// Whether a limit is absent or zero.
fn is_none(limit: &Json) -> bool {
    limit.is_null() || limit.as_f64() == Some(0.0)
}

/// Whether a list of limits has none.
fn is_zero(metadata: &Metadata, key: &str) -> bool {
    let limits = metadata.f32s(key).ok().flatten();
    limits.is_some_and(|limits| limits.iter().all(|limit| *limit == 0.0))
}

fn bounded(key: &str, bound: Option<f32>) -> Result<DecayGate, ConfigError> {
    let bound = bound.ok_or(ConfigError::Missing { key: key.into() })?;
    // A state that grows with every token is none.
    match bound < 0.0 {
        true => Ok(DecayGate::Bounded(bound)),
        false => Err(ConfigError::value(key, bound, "below 0")),
    }
}

/// Types by the size of groups. What the layers after the last whole group are, transformers and
/// the published code do not agree on.
fn grouped_types(r: &ConfigReader, layers: usize) -> Result<Vec<LayerType>, ConfigError> {
    let group = r.size("layer_group_size", [1, limits::LAYERS])?;
    if !layers.is_multiple_of(group) {
        let allowed = format!("a divisor of num_hidden_layers, {layers}, without layer_types");
        return Err(ConfigError::value("layer_group_size", group, allowed));
    }
    let ty = |layer: usize| match (layer + 1).is_multiple_of(group) {
        true => LayerType::Full,
        false => LayerType::Recurrent,
    };
    Ok((0..layers).map(ty).collect())
}
