//! Experts of families with grouped-query attention, from `config.json` and from GGUF metadata.

use serde_json::Value as Json;

use super::ConfigError;
use super::grouped::{Grouped, SharedExperts};
use super::keys::{ConfigReader, MetadataReader, limits};
use crate::checkpoint::config::{MoeConfig, Scoring, TopkMethod};

impl Grouped {
    pub(super) fn moe_from_hf(&self, r: &ConfigReader) -> Result<MoeConfig, ConfigError> {
        let Some(experts) = &self.moe else { return Ok(MoeConfig::DENSE) };
        let scoring = match experts.scoring {
            Scoring::Softmax => "softmax",
            Scoring::Sigmoid => "sigmoid",
        };
        r.expect("scoring_func", scoring)?;
        r.size_or("decoder_sparse_step", 1, [1, 1])?;
        let names = ["num_experts", "n_routed_experts", "num_local_experts"];
        let name = names.into_iter().find(|name| r.get(name).is_some());
        let count = name.map_or(Ok(0), |name| r.size_or(name, 0, [0, limits::EXPERTS]))?;
        let switched_off = r.bool("enable_moe_block")? == Some(false);
        let switched_on = r.bool("enable_moe_block")? == Some(true);
        if experts.optional && (switched_off || count == 0 && !switched_on) {
            return Ok(MoeConfig::DENSE);
        }
        let n_routed_experts = r.size(name.unwrap_or("num_experts"), [1, limits::EXPERTS])?;
        let width = [1, limits::WIDTH];
        let expert_width = match r.get("moe_intermediate_size") {
            Some(_) => r.size("moe_intermediate_size", width)?,
            None => r.size("intermediate_size", width)?,
        };
        let (shared_experts, shared) = match experts.shared {
            Some(SharedExperts { optional: true, .. }) => {
                let key = "shared_expert_intermediate_size";
                let width = r.size_or(key, 0, [0, limits::WIDTH])?;
                (usize::from(width > 0), width)
            }
            Some(SharedExperts { counted: false, .. }) => {
                (1, r.size("shared_expert_intermediate_size", width)?)
            }
            Some(SharedExperts { counted: true, .. }) => {
                let count = r.size_or("n_shared_experts", 0, [0, 1024])?;
                (count, count * expert_width)
            }
            None => (0, 0),
        };
        r.expect_number("moe_router_logit_softcapping", 0.0)?;
        r.expect_bool("moe_apply_router_weight_on_input", false)?;
        r.size_or("moe_layer_interval", 1, [1, 1])?;
        r.expect_number("moe_norm_min", 1e-12)?;
        let layers = r.size("num_hidden_layers", [1, limits::LAYERS])? as i64;
        let end = r.get("moe_layer_end_index").and_then(Json::as_i64);
        if let Some(end) = end.filter(|end| *end != -1 && *end != layers - 1) {
            return Err(ConfigError::value("moe_layer_end_index", end, "-1 or the last layer"));
        }
        let corrects = r.bool("use_expert_bias")?.unwrap_or(true);
        Ok(MoeConfig {
            n_routed_experts,
            n_shared_experts: shared_experts,
            shared_expert_intermediate_size: shared,
            shared_expert_gate: experts.shared.is_some_and(|shared| shared.gated),
            bias: experts.bias,
            parallel: self.gemma4,
            num_experts_per_tok: r.size("num_experts_per_tok", [1, n_routed_experts])?,
            moe_intermediate_size: expert_width,
            first_k_dense_replace: r.dense_layers("first_k_dense_replace")?,
            scoring_func: experts.scoring,
            topk_method: match experts.topk_method {
                TopkMethod::NoauxTc if !corrects => TopkMethod::Greedy,
                method => method,
            },
            n_group: r.size_or("n_group", 1, [1, n_routed_experts])?,
            topk_group: r.size_or("topk_group", 1, [1, n_routed_experts])?,
            norm_topk_prob: r.bool("norm_topk_prob")?.unwrap_or(experts.norm_topk_prob),
            routed_scaling_factor: r.number("routed_scaling_factor")?.unwrap_or(1.0),
        })
    }

    pub(super) fn moe_from_gguf(
        &self,
        k: &MetadataReader,
        intermediate: usize,
    ) -> Result<MoeConfig, ConfigError> {
        let Some(experts) = &self.moe else { return Ok(MoeConfig::DENSE) };
        if experts.optional && k.size_or("expert_count", 0, [0, limits::EXPERTS])? == 0 {
            return Ok(MoeConfig::DENSE);
        }
        let n_routed_experts = k.size("expert_count", [1, limits::EXPERTS])?;
        let width = [1, limits::WIDTH];
        let normed = k.metadata.bool(&k.key("expert_weights_norm"))?;
        let normed = normed.unwrap_or(experts.gguf_norm);
        k.check_scoring(experts.scoring, normed)?;
        let num_experts_per_tok = k.size("expert_used_count", [1, n_routed_experts])?;
        let [n_group, topk_group] = k.groups(n_routed_experts)?;
        let expert_width = match experts.divided_width {
            true => intermediate / num_experts_per_tok,
            false => intermediate,
        };
        let expert_width = k.size_or("expert_feed_forward_length", expert_width, width)?;
        let (shared_experts, shared) = match experts.shared {
            Some(SharedExperts { optional: true, .. }) => {
                let key = "expert_shared_feed_forward_length";
                let width = k.size_or(key, 0, [0, limits::WIDTH])?;
                (usize::from(width > 0), width)
            }
            Some(SharedExperts { counted: false, .. }) => {
                (1, k.size_or("expert_shared_feed_forward_length", intermediate, width)?)
            }
            Some(SharedExperts { counted: true, .. }) => {
                let count = k.size_or("expert_shared_count", 0, [0, 1024])?;
                (count, count * expert_width)
            }
            None => (0, 0),
        };
        Ok(MoeConfig {
            n_routed_experts,
            n_shared_experts: shared_experts,
            shared_expert_intermediate_size: shared,
            shared_expert_gate: experts.shared.is_some_and(|shared| shared.gated),
            bias: experts.bias,
            parallel: self.gemma4,
            num_experts_per_tok,
            moe_intermediate_size: expert_width,
            first_k_dense_replace: k.size_or(
                "leading_dense_block_count",
                0,
                [0, limits::LAYERS],
            )?,
            scoring_func: experts.scoring,
            topk_method: match k.metadata.bool("vaquita.expert_correction")? {
                Some(false) => TopkMethod::Greedy,
                _ => experts.topk_method,
            },
            n_group,
            topk_group,
            norm_topk_prob: normed,
            routed_scaling_factor: k.number("expert_weights_scale")?.unwrap_or(1.0),
        })
    }
}
