//! DeepSeek-V2 and V2-Lite (arXiv 2405.04434): softmax scores, greedy or group-limited selection.

use serde_json::Value as Json;

use super::keys::{ConfigReader, limits};
use super::mla_moe::DEEPSEEK;
use super::{ConfigError, Family, mla_moe, mla_tensors};
use crate::checkpoint::config::{Config, Scoring, TopkMethod};
use crate::checkpoint::spec::{ExpertId, ExpertSpec, LayerId, TensorSpec};
use crate::gguf::Metadata;

/// The family of V2, V2-Lite, V2.5 and Coder-V2.
#[derive(Debug)]
pub struct DeepSeekV2;

impl Family for DeepSeekV2 {
    fn name(&self) -> &'static str {
        "DeepSeek-V2"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["deepseek_v2"]
    }

    fn architecture(&self) -> &'static str {
        mla_moe::ARCHITECTURE
    }

    fn matches_gguf(&self, metadata: &Metadata, corrects: bool) -> bool {
        !mla_moe::has_sigmoid_scores(metadata, corrects)
    }

    fn config_from_hf(&'static self, json: &Json) -> Result<Config, ConfigError> {
        let reader = ConfigReader(json);
        let topk_method = match reader.str("topk_method")?.unwrap_or("greedy") {
            // The spelling of the first configuration of V2-Lite.
            "greedy" | "gready" => TopkMethod::Greedy,
            "group_limited_greedy" => {
                for key in ["n_group", "topk_group"] {
                    reader.size(key, [1, limits::EXPERTS])?;
                }
                TopkMethod::GroupLimitedGreedy
            }
            other => {
                let allowed = "greedy, group_limited_greedy";
                return Err(ConfigError::value("topk_method", other, allowed));
            }
        };
        reader.expect("scoring_func", "softmax")?;
        // transformers passes over it, and DeepSeek's own code then does not scale.
        reader.expect_bool("norm_topk_prob", false)?;
        mla_moe::config_from_hf(&Self, &DEEPSEEK, json, Scoring::Softmax, topk_method)
    }

    fn config_from_gguf(&'static self, metadata: &Metadata) -> Result<Config, ConfigError> {
        let grouped = mla_moe::groups(metadata)? > 1;
        let method = if grouped { TopkMethod::GroupLimitedGreedy } else { TopkMethod::Greedy };
        mla_moe::config_from_gguf(&Self, &DEEPSEEK, metadata, Scoring::Softmax, method)
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
