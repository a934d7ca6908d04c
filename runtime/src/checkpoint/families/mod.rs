//! Registry of model families: one file and one entry per family.

use serde_json::Value as Json;

use super::Config;
use super::spec::{ExpertId, ExpertSpec, LayerId, TensorSpec};
use crate::gguf::{GgufError, Metadata};

mod bailing_hybrid;
mod config_reader;
mod deepseek_v2;
mod deepseek_v3;
mod defaults;
mod ernie4_5_moe;
mod gated_delta;
mod gemma3;
mod gemma4;
mod glm4_moe;
mod gpt_oss;
mod granite;
mod grouped;
mod grouped_config;
mod grouped_family;
mod grouped_gguf;
mod grouped_hf;
mod grouped_moe;
mod grouped_tensors;
mod keys;
mod kimi_delta;
mod kimi_linear;
mod laguna;
mod lfm2_moe;
mod llama;
mod mamba2;
mod metadata_reader;
mod minimax_m2;
mod mixtral;
mod mla_moe;
mod mla_tensors;
mod mtp;
mod olmoe;
mod qwen2;
mod qwen3;
mod qwen3_next;
mod rope_keys;
mod smollm3;

/// All supported families.
pub static FAMILIES: [&dyn Family; 27] = [
    &deepseek_v2::DeepSeekV2,
    &deepseek_v3::DeepSeekV3,
    &kimi_linear::KimiLinear,
    &bailing_hybrid::BailingHybrid,
    // Before Mistral: a file of either is read as Llama.
    &llama::LLAMA,
    &llama::MISTRAL,
    &mixtral::MIXTRAL,
    &qwen2::QWEN2,
    &qwen2::QWEN2_MOE,
    &qwen3::QWEN3,
    &qwen3::QWEN3_MOE,
    &qwen3_next::QWEN3_NEXT,
    &qwen3_next::QWEN3_5_MOE,
    &qwen3_next::QWEN3_5,
    &gemma3::GEMMA3,
    &gemma4::GEMMA4,
    &granite::GRANITE,
    &granite::GRANITE_MOE,
    &granite::GRANITE_4,
    &olmoe::OLMOE,
    &lfm2_moe::LFM2_MOE,
    &gpt_oss::GPT_OSS,
    &smollm3::SMOLLM3,
    &ernie4_5_moe::ERNIE_4_5_MOE,
    &glm4_moe::GLM4_MOE,
    &minimax_m2::MINIMAX_M2,
    &laguna::LAGUNA,
];

/// Reads the checkpoints and files of a family. Stateless.
pub trait Family: std::fmt::Debug + Sync {
    /// Common name of the family.
    fn name(&self) -> &'static str;
    /// `model_type` in `config.json`.
    fn model_types(&self) -> &'static [&'static str];
    /// `general.architecture` in GGUF.
    fn architecture(&self) -> &'static str;
    /// Whether GGUF metadata with this family's architecture is this family (V2 and V3 share one).
    /// `corrects` says whether the file has tensors that correct the router's scores.
    fn matches_gguf(&self, metadata: &Metadata, corrects: bool) -> bool;
    /// Reads `config.json`.
    fn config_from_hf(&'static self, json: &Json) -> Result<Config, ConfigError>;
    /// Reads GGUF metadata.
    fn config_from_gguf(&'static self, metadata: &Metadata) -> Result<Config, ConfigError>;
    /// Writes the architecture's metadata, with llama.cpp's keys.
    fn write_metadata(&self, config: &Config, metadata: &mut Metadata);
    /// All tensors except routed experts, in file order.
    fn tensors(&self, config: &Config) -> Vec<TensorSpec>;
    /// Prefix of a layer's tensors in checkpoints.
    fn layer_prefix(&self, _config: &Config, layer: usize) -> String {
        format!("model.layers.{layer}.")
    }
    /// A routed expert.
    fn expert(&self, config: &Config, layer: LayerId, expert: ExpertId) -> ExpertSpec;
}

/// Error of reading a configuration.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    /// The architecture is not supported.
    #[error("unknown architecture {found:?}; this version runs {known}")]
    UnknownArchitecture {
        /// The name in the file.
        found: String,
        /// The supported names.
        known: String,
    },
    /// A key is missing.
    #[error("{key} is missing from the model's configuration")]
    Missing {
        /// The key.
        key: String,
    },
    /// A metadata value has an unexpected type.
    #[error("{0}")]
    Metadata(String),
    /// A value is not supported.
    #[error("{key} is {found}; allowed: {allowed}")]
    Value {
        /// The key.
        key: String,
        /// The value found.
        found: String,
        /// The supported values.
        allowed: String,
    },
}

impl ConfigError {
    /// A value that is not supported.
    pub fn value(key: &str, found: impl ToString, allowed: impl ToString) -> Self {
        Self::Value { key: key.into(), found: found.to_string(), allowed: allowed.to_string() }
    }

    fn unknown_architecture(found: &str, mut known: Vec<&str>) -> Self {
        known.dedup();
        Self::UnknownArchitecture { found: found.into(), known: known.join(", ") }
    }
}

impl From<GgufError> for ConfigError {
    fn from(error: GgufError) -> Self {
        Self::Metadata(error.to_string())
    }
}

/// The configuration of the language model in a checkpoint's `config.json`: the whole file, or the
/// `text_config` of a multimodal model.
pub fn text_config(json: &Json) -> &Json {
    json.get("text_config").filter(|inner| inner.is_object()).unwrap_or(json)
}

/// Reads the configuration in a checkpoint's `config.json`.
pub fn config_from_hf(json: &Json) -> Result<Config, ConfigError> {
    let text = text_config(json);
    let model_type = text.get("model_type").and_then(Json::as_str);
    let model_type = model_type.ok_or(ConfigError::Missing { key: "model_type".into() })?;
    let family = FAMILIES.iter().find(|family| family.model_types().contains(&model_type));
    let known = || FAMILIES.iter().flat_map(|family| family.model_types()).copied().collect();
    let unknown = || ConfigError::unknown_architecture(model_type, known());
    family.ok_or_else(unknown)?.config_from_hf(&defaults::complete(text, model_type)?)
}

/// Reads the configuration in GGUF metadata. `corrects` says whether the file has tensors that
/// correct the router's scores (`exp_probs_b`), which distinguish V3 from V2 if the metadata does
/// not.
pub fn config_from_gguf(metadata: &Metadata, corrects: bool) -> Result<Config, ConfigError> {
    let architecture = metadata.str("general.architecture")?;
    let architecture =
        architecture.ok_or(ConfigError::Missing { key: "general.architecture".into() })?;
    let mut candidates = FAMILIES.iter().filter(|family| family.architecture() == architecture);
    let family = candidates.find(|family| family.matches_gguf(metadata, corrects));
    let known = || FAMILIES.iter().map(|family| family.architecture()).collect::<Vec<_>>();
    let unknown = || match known().contains(&architecture) {
        // Of a family with experts.
        true => ConfigError::Missing { key: format!("{architecture}.expert_count") },
        false => ConfigError::unknown_architecture(architecture, known()),
    };
    family.ok_or_else(unknown)?.config_from_gguf(metadata)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::config::{Activation, LayerType, TopkMethod};

    fn llama() -> Json {
        json!({"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
            "vocab_size": 320, "num_attention_heads": 4})
    }

    #[test]
    fn heads_without_width_are_refused() {
        let mut json = llama();
        json["num_attention_heads"] = json!(128);
        let error = config_from_hf(&json).unwrap_err().to_string();
        assert!(error.contains("head_dim is 0"), "{error}");
    }

    #[test]
    fn what_a_family_cannot_do_is_refused_instead_of_left_out() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64});
        let mut json = llama();
        json["model_type"] = json!("qwen2");
        json["num_key_value_heads"] = json!(4);
        json["rope_scaling"] = scaling.clone();
        let qwen = config_from_hf(&json).unwrap();
        let factors = |spec: &TensorSpec| spec.name == "rope_freqs.weight";
        assert!(qwen.family.tensors(&qwen).iter().any(factors));

        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/deepseek-v3/config.json");
        let mut json: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        json["rope_parameters"] = scaling;
        assert!(config_from_hf(&json).unwrap_err().to_string().contains("rope_type"));
    }

    #[test]
    fn what_sets_a_checkpoint_apart_survives_in_metadata() {
        let read = |name: &str, key: &str, value: Json| {
            let path = format!("{}/../tests/golden/{name}/config.json", env!("CARGO_MANIFEST_DIR"));
            let mut json: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            json[key] = value;
            let config = config_from_hf(&json).unwrap();
            let mut metadata = Metadata::new();
            metadata.insert("general.architecture", config.family.architecture());
            config.family.write_metadata(&config, &mut metadata);
            config_from_gguf(&metadata, false).unwrap()
        };
        let config = read("gpt-oss", "swiglu_limit", json!(5.0));
        assert_eq!(config.activation, Activation::ClampedSwiGlu { alpha: 1.702, limit: 5.0 });
        assert_eq!(config.layer_type(0), LayerType::Sliding);
        assert_eq!(config.layer_type(1), LayerType::Full);
        let config = read("r1-distill-llama", "eos_token_id", json!([7, 9, 3]));
        assert_eq!(config.eos_token_ids, [7, 9, 3]);
        let config = read("lfm2-moe", "use_expert_bias", json!(false));
        assert_eq!(config.moe.topk_method, TopkMethod::Greedy);
        assert_eq!(config.layer_type(0), LayerType::Conv);
    }
}
