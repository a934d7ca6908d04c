//! The families with grouped-query attention as families: from their description to configuration,
//! metadata and tensors.

use serde_json::Value as Json;

use super::gated_delta;
use super::gemma4;
use super::grouped::{Grouped, Mtp};
use super::grouped_config::check;
use super::keys;
use super::keys::{ConfigReader, MULTIPLIERS, MetadataReader, limits};
use super::mamba2;
use super::{ConfigError, Family, grouped_tensors};
use crate::checkpoint::config::{
    Activation, AttentionConfig, Bias, Config, LayerType, MoeConfig, Recurrence, TopkMethod,
};
use crate::checkpoint::spec::{ExpertId, ExpertSpec, LayerId, TensorSpec};
use crate::gguf::{Metadata, Value};

/// Width of the dense feed-forward in GGUF.
const FFN: &str = "feed_forward_length";

impl Grouped {
    fn has_shared_experts(&self) -> bool {
        self.moe.as_ref().is_some_and(|moe| moe.shared.is_some())
    }
}

impl Family for Grouped {
    fn name(&self) -> &'static str {
        self.name
    }

    fn model_types(&self) -> &'static [&'static str] {
        self.model_types
    }

    fn architecture(&self) -> &'static str {
        self.architecture
    }

    fn matches_gguf(&self, metadata: &Metadata, _corrects: bool) -> bool {
        let key = format!("{}.expert_count", self.architecture);
        let experts = matches!(metadata.usize(&key), Ok(Some(count)) if count > 0);
        let optional = self.moe.as_ref().is_some_and(|moe| moe.optional);
        optional || experts == self.moe.is_some()
    }

    fn config_from_hf(&'static self, json: &Json) -> Result<Config, ConfigError> {
        let r = ConfigReader(json);
        self.check_activation(&r)?;
        match r.get("use_bidirectional_attention") {
            // Of pictures only.
            Some(Json::String(of)) if of == "vision" => {}
            _ => r.expect_bool("use_bidirectional_attention", false)?,
        }
        r.expect_bool("conv_bias", false)?;
        let width = [1, limits::WIDTH];
        let hidden_size = r.size("hidden_size", width)?;
        let num_hidden_layers = r.size("num_hidden_layers", [1, limits::LAYERS])?;
        let max_position_embeddings =
            r.size_or("max_position_embeddings", 4096, [1, limits::CONTEXT])?;
        r.expect_bool("attn_output_gate", true)?;
        let moe = self.moe_from_hf(&r)?;
        // A family of which all layers have experts may leave out the width of the others.
        let intermediate_size = match r.get("intermediate_size") {
            None if self.moe.is_some() => r.size("moe_intermediate_size", width)?,
            _ if self.has_shared_experts() && moe == MoeConfig::DENSE => {
                r.size("shared_expert_intermediate_size", width)?
            }
            _ => r.size("intermediate_size", width)?,
        };
        let rms_norm_eps = match r.number("norm_eps")? {
            Some(eps) => eps,
            None => r.number("rms_norm_eps")?.unwrap_or(1e-6),
        };
        let attention = self.attention_from_hf(&r, hidden_size)?;
        let (rope, sliding_rope) = self.ropes_from_hf(&r, max_position_embeddings, &attention)?;
        let config = Config {
            family: self,
            vocab_size: r.size("vocab_size", [1, limits::VOCABULARY])?,
            hidden_size,
            num_hidden_layers,
            max_position_embeddings,
            rms_norm_eps,
            scales: self.scales_from_hf(&r, hidden_size)?,
            post_norms: self.post_norms,
            tie_word_embeddings: r.bool("tie_word_embeddings")?.unwrap_or(false),
            bos_token_id: r.tokens("bos_token_id")?.first().copied(),
            eos_token_ids: r.tokens("eos_token_id")?,
            recurrence: match self.delta {
                Some(delta) => Some(Recurrence::GatedDelta(delta.config_from_hf(&r)?)),
                None if attention.has(LayerType::Recurrent) && self.mamba => {
                    Some(Recurrence::Mamba2(mamba2::config_from_hf(&r, hidden_size)?))
                }
                None => None,
            },
            attention: AttentionConfig::Grouped(attention),
            rope,
            sliding_rope,
            intermediate_size,
            double_wide_shared: self.gemma4 && r.bool("use_double_wide_mlp")?.unwrap_or(false),
            per_layer_width: match self.gemma4 {
                true => gemma4::per_layer_width_from_hf(&r)?,
                false => 0,
            },
            mlp_bias: self.mlp_bias.in_hf(&r)?,
            activation: self.activation_from_hf(&r)?,
            moe,
            num_nextn_predict_layers: match self.mtp {
                Mtp::Layers => r.size_or("num_nextn_predict_layers", 0, [0, 16])?,
                Mtp::Module => r.size_or("mtp_num_hidden_layers", 1, [0, 16])?,
                Mtp::None => 0,
            },
        };
        self.check_rotation(&config)?;
        check(config)
    }

    fn config_from_gguf(&'static self, metadata: &Metadata) -> Result<Config, ConfigError> {
        let k = MetadataReader { metadata, architecture: self.architecture };
        let width = [1, limits::WIDTH];
        let hidden_size = k.size("embedding_length", width)?;
        k.refuse_foreign(match (self.multipliers, self.gemma4) {
            (true, _) => &MULTIPLIERS,
            (_, true) => &[gemma4::LOGIT_CAP],
            _ => &[],
        })?;
        let (intermediate_size, double_wide_shared) = match &k.metadata.get(&k.key(FFN)) {
            None if self.moe.as_ref().is_some_and(|moe| !moe.optional) => {
                (k.size("expert_feed_forward_length", width)?, false)
            }
            Some(Value::Array(_)) if self.gemma4 => gemma4::ffn_widths(&k)?,
            _ => (k.size(FFN, width)?, false),
        };
        let tied = metadata.bool("vaquita.tie_word_embeddings")?.unwrap_or(false);
        let nextn = match self.mtp {
            Mtp::None => 0,
            Mtp::Layers | Mtp::Module => k.size_or("nextn_predict_layers", 0, [0, 16])?,
        };
        let num_hidden_layers = k.size("block_count", [1 + nextn, limits::LAYERS])? - nextn;
        let attention = self.attention_from_gguf(&k, hidden_size, num_hidden_layers)?;
        let [full, sliding] =
            [LayerType::Full, LayerType::Sliding].map(|ty| attention.head_shape(ty).head_dim);
        let rope = k.rope(full, self.interleaved(), self.truncated_yarn)?;
        let config = Config {
            family: self,
            vocab_size: k.vocabulary()?,
            hidden_size,
            num_hidden_layers,
            max_position_embeddings: k.size("context_length", [1, limits::CONTEXT])?,
            rms_norm_eps: k.required_number("attention.layer_norm_rms_epsilon")?,
            scales: self.scales_from_gguf(&k, hidden_size)?,
            post_norms: self.post_norms,
            tie_word_embeddings: tied,
            bos_token_id: metadata.token_id("tokenizer.ggml.bos_token_id")?,
            eos_token_ids: keys::ends(metadata)?,
            sliding_rope: match self.sliding_rope {
                // The factors that a file of Gemma 4 has as a tensor are those of full layers.
                true => k
                    .sliding_rope(sliding, &rope, self.gguf_sliding_theta)?
                    .filter(|sliding| self.gemma4 || *sliding != rope),
                false => None,
            },
            rope,
            recurrence: match self.delta {
                Some(delta) => Some(Recurrence::GatedDelta(delta.config_from_gguf(&k)?)),
                None if attention.has(LayerType::Recurrent) && self.mamba => {
                    Some(Recurrence::Mamba2(mamba2::config_from_gguf(&k)?))
                }
                None => None,
            },
            attention: AttentionConfig::Grouped(attention),
            intermediate_size,
            double_wide_shared,
            per_layer_width: match self.gemma4 {
                true => k.size_or(gemma4::PER_LAYER_WIDTH, 0, [0, limits::WIDTH])?,
                false => 0,
            },
            mlp_bias: self.mlp_bias.in_gguf(None),
            activation: self.activation_from_gguf(&k)?,
            moe: self.moe_from_gguf(&k, intermediate_size)?,
            num_nextn_predict_layers: nextn,
        };
        self.check_rotation(&config)?;
        check(config)
    }

    fn write_metadata(&self, config: &Config, metadata: &mut Metadata) {
        let AttentionConfig::Grouped(gqa) = &config.attention else { return };
        let moe = &config.moe;
        let key = |name: &str| format!("{}.{name}", self.architecture);
        let mut size = |name: &str, value: usize| metadata.insert(key(name), value as u32);
        size("block_count", config.num_layers_stored());
        size("context_length", config.max_position_embeddings);
        size("embedding_length", config.hidden_size);
        size("vocab_size", config.vocab_size);
        size("feed_forward_length", config.intermediate_size);
        let full = gqa.head_shape(LayerType::Full);
        size("attention.key_length", full.head_dim);
        size("attention.value_length", full.head_dim);
        if gqa.has(LayerType::Sliding) {
            size("attention.sliding_window", gqa.sliding_window);
            if let Some(period) = self.sliding_period.and_then(|kind| kind.of(&gqa.layer_types)) {
                size("attention.sliding_window_pattern", period.layers);
            }
        }
        if config.num_nextn_predict_layers > 0 {
            size("nextn_predict_layers", config.num_nextn_predict_layers);
        }
        if gqa.conv_l_cache > 0 {
            size("shortconv.l_cache", gqa.conv_l_cache);
        }
        if moe.n_routed_experts > 0 {
            size("expert_count", moe.n_routed_experts);
            size("expert_used_count", moe.num_experts_per_tok);
            size("expert_feed_forward_length", moe.moe_intermediate_size);
            size("leading_dense_block_count", moe.first_k_dense_replace);
            if self.expert_interval {
                size("interleave_moe_layer_step", 1);
            }
            if moe.shared_expert_intermediate_size > 0 {
                size("expert_shared_count", moe.n_shared_experts);
                size("expert_shared_feed_forward_length", moe.shared_expert_intermediate_size);
            }
            if moe.n_group > 1 {
                size("expert_group_count", moe.n_group);
                size("expert_group_used_count", moe.topk_group);
            }
        }
        match &gqa.num_attention_heads_per_layer[..] {
            [] => metadata.insert(key("attention.head_count"), gqa.num_attention_heads as u32),
            heads => {
                let heads: Vec<i32> = heads.iter().map(|heads| *heads as i32).collect();
                metadata.insert(key("attention.head_count"), heads);
            }
        }
        let attends = |ty: &LayerType| match ty {
            LayerType::Conv => false,
            LayerType::Recurrent => !self.mamba,
            LayerType::Full | LayerType::Sliding => true,
        };
        if !gqa.layer_types.iter().all(attends) {
            let heads = |ty| if attends(ty) { gqa.num_key_value_heads as i32 } else { 0 };
            let heads: Vec<i32> = gqa.layer_types.iter().map(heads).collect();
            metadata.insert(key("attention.head_count_kv"), heads);
        } else {
            metadata.insert(key("attention.head_count_kv"), gqa.num_key_value_heads as u32);
        }
        let types = gqa.layer_types.iter().map(|ty| ty.name().to_string());
        metadata.insert("vaquita.layer_types", types.collect::<Vec<String>>());
        self.write_switches(gqa, metadata);
        self.write_scales(config, metadata);
        if self.gemma4 {
            gemma4::write_metadata(config, gqa, metadata);
        }
        if let Some(Recurrence::Mamba2(mamba)) = &config.recurrence {
            mamba2::write_metadata(self.architecture, mamba, metadata);
        }
        if let Some(Recurrence::GatedDelta(delta)) = &config.recurrence {
            gated_delta::write_metadata(self.architecture, delta, metadata);
            self.write_interval(&gqa.layer_types, metadata);
            if delta.tiled {
                // Of Qwen3.5's multimodal embedding; the positions of a text are the same in all.
                metadata.insert(key("rope.dimension_sections"), vec![11i32, 11, 10, 0]);
            }
        }
        match gqa.qkv_bias {
            Bias::IfStored => {}
            bias => metadata.insert("vaquita.attention.qkv_bias", bias == Bias::Required),
        }
        if let (Some(clip), Some([_, name])) = (gqa.clip_qkv, self.clip_qkv) {
            metadata.insert(key(name), clip);
        }
        metadata.insert("vaquita.expert_correction", moe.topk_method == TopkMethod::NoauxTc);
        if let Activation::ClampedSwiGlu { alpha, limit } = config.activation {
            metadata.insert("vaquita.swiglu.alpha", alpha);
            metadata.insert("vaquita.swiglu.limit", limit);
        }
        keys::write_common(self.architecture, config, metadata);
    }

    fn tensors(&self, config: &Config) -> Vec<TensorSpec> {
        grouped_tensors::tensors(self, config)
    }

    fn layer_prefix(&self, config: &Config, layer: usize) -> String {
        match layer.checked_sub(config.num_hidden_layers) {
            Some(layer) if self.mtp == Mtp::Module => format!("mtp.layers.{layer}."),
            _ => format!("model.layers.{layer}."),
        }
    }

    fn expert(&self, config: &Config, layer: LayerId, expert: ExpertId) -> ExpertSpec {
        grouped_tensors::expert(self, config, layer, expert)
    }
}
