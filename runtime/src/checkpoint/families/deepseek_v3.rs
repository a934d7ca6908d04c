//! DeepSeek-V3 and R1 (arXiv 2412.19437), and Moonlight and GLM-4.7-Flash, which share their
//! architecture: sigmoid scores, and a bias that balances the experts without an auxiliary loss.

use serde_json::Value as Json;

use super::keys::ConfigReader;
use super::mla_moe::DEEPSEEK;
use super::{ConfigError, Family, mla_moe, mla_tensors};
use crate::checkpoint::config::{Config, Scoring, TopkMethod};
use crate::checkpoint::spec::{ExpertId, ExpertSpec, LayerId, TensorSpec};
use crate::gguf::Metadata;

/// The family of V3, R1, Moonlight and GLM-4.7-Flash.
#[derive(Debug)]
pub struct DeepSeekV3;

impl Family for DeepSeekV3 {
    fn name(&self) -> &'static str {
        "DeepSeek-V3"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["deepseek_v3", "glm4_moe_lite", "kimi_k2"]
    }

    fn architecture(&self) -> &'static str {
        mla_moe::ARCHITECTURE
    }

    fn matches_gguf(&self, metadata: &Metadata, corrects: bool) -> bool {
        mla_moe::has_sigmoid_scores(metadata, corrects)
    }

    fn config_from_hf(&'static self, json: &Json) -> Result<Config, ConfigError> {
        let reader = ConfigReader(json);
        reader.expect("topk_method", "noaux_tc")?;
        reader.expect("scoring_func", "sigmoid")?;
        mla_moe::config_from_hf(&Self, &DEEPSEEK, json, Scoring::Sigmoid, TopkMethod::NoauxTc)
    }

    fn config_from_gguf(&'static self, metadata: &Metadata) -> Result<Config, ConfigError> {
        mla_moe::config_from_gguf(&Self, &DEEPSEEK, metadata, Scoring::Sigmoid, TopkMethod::NoauxTc)
    }

    fn write_metadata(&self, config: &Config, metadata: &mut Metadata) {
        mla_moe::write_metadata(&DEEPSEEK, config, metadata);
    }

    fn tensors(&self, config: &Config) -> Vec<TensorSpec> {
        mla_tensors::tensors(&DEEPSEEK, config)
    }

    fn expert(&self, config: &Config, layer: LayerId, expert: ExpertId) -> ExpertSpec {
        mla_tensors::expert(&DEEPSEEK, config, layer, expert)
    }
}
