//! `config.json` as transformers would complete it: canonical key names, with the family's defaults
//! for absent keys. `make_defaults.py` extracts both from transformers' configuration classes.

use std::sync::LazyLock;

use serde_json::{Map, Value as Json};

use super::ConfigError;

/// By `model_type`: `defaults`, and `aliases` from alternative to canonical key names.
static CLASSES: LazyLock<Json> = LazyLock::new(|| {
    serde_json::from_str(include_str!("defaults.json")).expect("defaults.json is in this folder")
});

/// Model types that use the configuration class of another.
const SAME: [(&str, &str); 3] =
    [("kimi_k2", "deepseek_v3"), ("qwen3_5", "qwen3_5_text"), ("qwen3_5_moe", "qwen3_5_moe_text")];

/// Key names in checkpoints that are older than transformers' support for their family.
const OLDER: [(&str, &str, &str); 2] =
    [("lfm2_moe", "tie_embedding", "tie_word_embeddings"), ("lfm2_moe", "theta", "rope_theta")];

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
const OWN: [(&str, &str); 7] = [
    ("gemma3_text", "query_pre_attn_scalar"),
    ("gemma4_text", "final_logit_softcapping"),
    ("granitemoehybrid", "attention_multiplier"),
    ("granitemoehybrid", "embedding_multiplier"),
    ("granitemoehybrid", "logits_scaling"),
    ("granitemoehybrid", "residual_multiplier"),
    ("smollm3", "no_rope_layer_interval"),
];

/// Switches of other families' networks, which must be off.
const FOREIGN_SWITCHES: [&str; 6] =
    ["alibi", "parallel_attn", "qk_layernorm", "use_alibi", "use_parallel_residual", "use_bias"];

/// Returns the configuration with all keys that transformers would have filled in.
pub(super) fn complete(json: &Json, model_type: &str) -> Result<Json, ConfigError> {
    refuse_foreign(json, model_type)?;
    let class = SAME.iter().find(|(name, _)| *name == model_type).map_or(model_type, |same| same.1);
    let class = &CLASSES[class];
    let mut completed = class["defaults"].as_object().cloned().unwrap_or_default();
    let given = json.as_object().cloned().unwrap_or_default();
    // The older form replaces the default, too.
    let states = |key: &str| given.get(key).is_some_and(|value| !value.is_null());
    if states("rope_scaling") || states("rope_parameters") {
        completed.remove("rope_parameters");
    }
    rename(&mut completed, given, |key| {
        let older = OLDER.iter().find(|(ty, name, _)| *ty == model_type && *name == key);
        older.map(|(_, _, name)| *name).or_else(|| class["aliases"][key].as_str())
    })?;
    Ok(Json::Object(completed))
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
    for (key, neutral) in FOREIGN.into_iter().filter(|(key, _)| !OWN.contains(&(model_type, *key)))
    {
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
