//! `config.json` as transformers would complete it: canonical key names, with the family's defaults
//! for absent keys, and without keys that the family does not have. `make_defaults.py` extracts all
//! three from transformers' configuration classes.

use std::sync::LazyLock;

use serde_json::{Map, Value as Json};

use super::ConfigError;

/// By `model_type`: `defaults`, `aliases` from alternative to canonical key names, and `keys`.
static CLASSES: LazyLock<Json> = LazyLock::new(|| {
    serde_json::from_str(include_str!("defaults.json")).expect("defaults.json is in this folder")
});

/// Model types that use the configuration class of another.
const SAME: [(&str, &str); 3] =
    [("kimi_k2", "deepseek_v3"), ("qwen3_5", "qwen3_5_text"), ("qwen3_5_moe", "qwen3_5_moe_text")];

/// Key names in checkpoints that are older than transformers' support for their family.
const OLDER: [(&str, &str, &str); 2] =
    [("lfm2_moe", "tie_embedding", "tie_word_embeddings"), ("lfm2_moe", "theta", "rope_theta")];

/// Keys that are read in all families: transformers reads them beside the classes, published
/// checkpoints have them, or they are only compared with what a family computes.
const COMMON: [&str; 30] = [
    "attention_bias",
    "attn_output_gate",
    "bos_token_id",
    "clip_qkv",
    "conv_bias",
    "decoder_sparse_step",
    "eos_token_id",
    "gated_attention_proj_granularity_type",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "mla_use_nope",
    "mlp_bias",
    "model_type",
    "moe_layer_freq",
    "moe_router_activation_func",
    "mtp_num_hidden_layers",
    "no_kda_lora",
    "num_nextn_predict_layers",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "score_function",
    "scoring_func",
    "tie_word_embeddings",
    "topk_method",
    "use_bidirectional_attention",
    "use_qkv_bias",
];

/// Keys of published checkpoints that are older than a class and that it does not have.
const PUBLISHED: [(&str, &[&str]); 3] = [
    (
        "bailing_hybrid",
        &[
            "architectures",
            "expert_swiglu_limit_list",
            "linear_conv_kernel_dim",
            "linear_head_dim",
            "linear_num_heads",
            "share_expert_swiglu_limit_list",
        ],
    ),
    ("gemma4_text", &["per_layer_config"]),
    ("lfm2_moe", &["full_attn_idxs"]),
];

/// Keys that change the results of other families' networks, with their neutral values besides
/// null. A checkpoint that sets one to another value would produce wrong results here.
const FOREIGN: [(&str, &[f64]); 19] = [
    ("attention_chunk_size", &[]),
    ("attention_multiplier", &[1.0]),
    ("attn_logit_softcapping", &[0.0]),
    ("dim_model_base", &[]),
    ("embedding_multiplier", &[1.0]),
    ("final_logit_softcapping", &[0.0]),
    ("index_topk", &[0.0]),
    ("lm_head_multiplier", &[1.0]),
    ("logit_scale", &[1.0]),
    ("logits_scaling", &[1.0]),
    ("no_rope_layer_interval", &[0.0]),
    ("nope_layer_interval", &[0.0]),
    ("query_pre_attn_scalar", &[]),
    ("residual_multiplier", &[1.0]),
    ("rotary_pct", &[1.0]),
    ("scale_depth", &[]),
    ("scale_emb", &[1.0]),
    ("attention_out_multiplier", &[1.0]),
    ("attention_in_multiplier", &[1.0]),
];

/// Keys that change the results of other families' networks, but with which these compute.
const OWN: [(&str, &str); 3] = [
    ("gemma3_text", "query_pre_attn_scalar"),
    ("gemma4_text", "final_logit_softcapping"),
    ("smollm3", "no_rope_layer_interval"),
];

/// Granite's multipliers.
const MULTIPLIERS: [&str; 4] =
    ["attention_multiplier", "embedding_multiplier", "logits_scaling", "residual_multiplier"];

/// Switches of other families' networks, which must be off.
const FOREIGN_SWITCHES: [&str; 6] =
    ["alibi", "parallel_attn", "qk_layernorm", "use_alibi", "use_parallel_residual", "use_bias"];

/// Returns the configuration with all keys that transformers would have filled in.
pub(super) fn complete(json: &Json, model_type: &str) -> Result<Json, ConfigError> {
    refuse_foreign(json, model_type)?;
    let class = SAME.iter().find(|(name, _)| *name == model_type).map_or(model_type, |same| same.1);
    let class = &CLASSES[class];
    let mut completed = class["defaults"].as_object().cloned().unwrap_or_default();
    let mut given = json.as_object().cloned().unwrap_or_default();
    // Where Python asks whether a switch is on, null is off.
    for (key, default) in &completed {
        let stated = given.get_mut(key.as_str()).filter(|value| value.is_null());
        if let (Some(stated), true) = (stated, default.is_boolean()) {
            *stated = Json::Bool(false);
        }
    }
    // The older form replaces the default, too.
    let states = |key: &str| given.get(key).is_some_and(|value| !value.is_null());
    if states("rope_scaling") || states("rope_parameters") {
        completed.remove("rope_parameters");
    }
    rename(&mut completed, given, |key| {
        let older = OLDER.iter().find(|(ty, name, _)| *ty == model_type && *name == key);
        older.map(|(_, _, name)| *name).or_else(|| class["aliases"][key].as_str())
    })?;
    let of_class = |key: &str| {
        let keys = class["keys"].as_array();
        keys.is_some_and(|keys| keys.iter().any(|own| own == key))
    };
    if !of_class("layer_types") {
        refuse_layer_types(&completed)?;
    }
    let published = PUBLISHED.iter().find(|(ty, _)| *ty == model_type).map_or(&[][..], |(_, k)| k);
    completed.retain(|key, _| {
        let key = key.as_str();
        of_class(key) || COMMON.contains(&key) || published.contains(&key)
    });
    Ok(Json::Object(completed))
}

/// Refuses layers of other types than the only one of a family.
fn refuse_layer_types(config: &Map<String, Json>) -> Result<(), ConfigError> {
    const FULL: &str = "full_attention";
    let types = config.get("layer_types").and_then(Json::as_array);
    match types.into_iter().flatten().find(|ty| *ty != FULL) {
        Some(other) => {
            let allowed = format!("{FULL}: this family has no other layers");
            Err(ConfigError::value("layer_types", other, allowed))
        }
        None => Ok(()),
    }
}

/// Adds keys under their canonical names. A key given under both names must have one value.
fn rename<'a>(
    completed: &mut Map<String, Json>,
    given: Map<String, Json>,
    own_name: impl Fn(&str) -> Option<&'a str>,
) -> Result<(), ConfigError> {
    let (aliased, own): (Vec<_>, Vec<_>) =
        given.into_iter().partition(|(key, _)| own_name(key).is_some());
    completed.extend(own.iter().cloned());
    for (key, value) in aliased.into_iter().filter(|(_, value)| !value.is_null()) {
        let name = own_name(&key).unwrap_or_default();
        let other = own.iter().find(|(own, other)| own == name && !other.is_null());
        if let Some((_, other)) = other.filter(|(_, other)| *other != value) {
            let allowed = format!("the value of {name}, {other}");
            return Err(ConfigError::value(&key, value, allowed));
        }
        completed.insert(name.into(), value);
    }
    Ok(())
}

fn refuse_foreign(json: &Json, model_type: &str) -> Result<(), ConfigError> {
    // Layers that differ in any of their keys, in any family of transformers.
    let differs = |value: &&Json| value.as_object().is_none_or(|layers| !layers.is_empty());
    let key = "per_layer_config";
    let found = json.get(key).filter(|value| !value.is_null()).filter(differs);
    if let Some(found) = found.filter(|_| model_type != "gemma4_text") {
        let allowed = "none: this version computes all layers of this family by the same keys";
        return Err(ConfigError::value(key, found, allowed));
    }
    let is_own = |key: &str| {
        let multiplies = model_type.starts_with("granite") && MULTIPLIERS.contains(&key);
        multiplies || OWN.contains(&(model_type, key))
    };
    for (key, neutral) in FOREIGN.into_iter().filter(|(key, _)| !is_own(key)) {
        let Some(found) = json.get(key).filter(|value| !value.is_null()) else { continue };
        if !found.as_f64().is_some_and(|found| neutral.contains(&found)) {
            let allowed = match neutral {
                [] => "none: this version does not compute with it".into(),
                [neutral, ..] => format!("{neutral}: this version does not compute with it"),
            };
            return Err(ConfigError::value(key, found, allowed));
        }
    }
    for key in FOREIGN_SWITCHES {
        if json.get(key).is_some_and(|value| *value != Json::Bool(false) && !value.is_null()) {
            let allowed = "false: this version does not compute with it";
            return Err(ConfigError::value(key, &json[key], allowed));
        }
    }
    Ok(())
}
