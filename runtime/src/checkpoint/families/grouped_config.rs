//! Attention and experts of families with grouped-query attention, from `config.json` and from GGUF
//! metadata.

use serde_json::Value as Json;

use super::ConfigError;
use super::grouped::{BiasKey, Grouped, Window};
use super::keys;
use super::keys::{ConfigReader, MetadataReader, limits};
use crate::checkpoint::config::{
    Activation, AttentionConfig, Bias, Config, GroupedConfig, LayerType, MoeConfig, Scoring,
    TopkMethod,
};

impl Grouped {
    pub(super) fn attention_from_hf(
        &self,
        r: &ConfigReader,
        hidden_size: usize,
    ) -> Result<GroupedConfig, ConfigError> {
        let heads = r.size("num_attention_heads", [1, limits::HEADS])?;
        let layers = r.size("num_hidden_layers", [1, limits::LAYERS])?;
        let window = self.sliding_window(r)?;
        let layer_types = match r.strings("layer_types")? {
            Some(names) => names.into_iter().map(layer_type).collect::<Result<_, _>>()?,
            None => self.default_layer_types(r, layers, window)?,
        };
        Ok(GroupedConfig {
            num_attention_heads: heads,
            num_key_value_heads: r.size_or("num_key_value_heads", heads, [1, heads])?,
            head_dim: r.size_or("head_dim", hidden_size / heads, [1, limits::WIDTH])?,
            qkv_bias: self.qkv_bias.in_hf(r)?,
            output_bias: self.output_bias.in_hf(r)?,
            clip_qkv: self.clip_qkv_from_hf(r)?,
            qk_norm: self.qk_norm,
            sinks: self.sinks,
            sliding_window: window,
            conv_l_cache: r.size_or("conv_L_cache", 0, [0, 64])?,
            layer_types,
        })
    }

    /// Positions in the window of sliding layers; 0 if no layer slides. transformers' Llama class
    /// has no window and ignores the key.
    fn sliding_window(&self, r: &ConfigReader) -> Result<usize, ConfigError> {
        let has_windows = self.window.is_some() || self.layer_type.is_some();
        if !has_windows || r.str("model_type")? == Some("llama") {
            return Ok(0);
        }
        match r.bool("use_sliding_window")?.unwrap_or(true) {
            true => r.size_or("sliding_window", 0, [0, limits::CONTEXT]),
            false => Ok(0),
        }
    }

    /// Types of the layers if `layer_types` does not list them.
    fn default_layer_types(
        &self,
        r: &ConfigReader,
        layers: usize,
        window: usize,
    ) -> Result<Vec<LayerType>, ConfigError> {
        if let Some(attends) = r.indices("full_attn_idxs", layers)? {
            let ty = |layer| match attends.contains(&layer) {
                true => LayerType::Full,
                false => LayerType::Conv,
            };
            return Ok((0..layers).map(ty).collect());
        }
        let max = r.size_or("max_window_layers", layers, [0, limits::LAYERS])?;
        let slides = |layer: usize| match self.window.filter(|_| window > 0) {
            None => false,
            Some(Window::All) => true,
            Some(Window::FromMaxWindowLayers) => layer >= max,
            Some(Window::AlternateBeforeMaxWindowLayers) => layer.is_multiple_of(2) && layer < max,
        };
        let ty = |layer| match self.layer_type {
            Some(pattern) => pattern(layer),
            None if slides(layer) => LayerType::Sliding,
            None => LayerType::Full,
        };
        Ok((0..layers).map(ty).collect())
    }

    fn clip_qkv_from_hf(&self, r: &ConfigReader) -> Result<Option<f32>, ConfigError> {
        let clip = r.number("clip_qkv")?;
        match (clip, self.clip_qkv) {
            (Some(clip), None) => {
                let allowed = "null: this family does not cut off queries, keys and values";
                Err(ConfigError::value("clip_qkv", clip, allowed))
            }
            (Some(clip), _) if clip <= 0.0 => {
                Err(ConfigError::value("clip_qkv", clip, "a number above 0, or null"))
            }
            (clip, _) => Ok(clip),
        }
    }

    pub(super) fn attention_from_gguf(
        &self,
        k: &MetadataReader,
        hidden_size: usize,
        layers: usize,
    ) -> Result<GroupedConfig, ConfigError> {
        let heads = k.size("attention.head_count", [1, limits::HEADS])?;
        // One number, or one per layer with zeros for convolution layers.
        let key = k.key("attention.head_count_kv");
        let per_layer = k.metadata.u32s(&key).ok().flatten();
        let key_value_heads = match &per_layer {
            Some(counts) => counts.iter().copied().max().unwrap_or(0) as usize,
            None => k.size_or("attention.head_count_kv", heads, [1, limits::HEADS])?,
        };
        let convolves = |layer: usize| {
            per_layer.as_ref().is_some_and(|counts| counts.get(layer).is_some_and(|&n| n == 0))
        };
        let layer_types = match k.metadata.strings("vaquita.layer_types")? {
            Some(names) => names.iter().map(|n| layer_type(n)).collect::<Result<_, _>>()?,
            None => {
                let ty = |layer| match convolves(layer) {
                    true => LayerType::Conv,
                    false => self.layer_type.map_or(LayerType::Full, |pattern| pattern(layer)),
                };
                (0..layers).map(ty).collect()
            }
        };
        let asked = k.metadata.bool("vaquita.attention.qkv_bias")?;
        Ok(GroupedConfig {
            num_attention_heads: heads,
            num_key_value_heads: key_value_heads,
            head_dim: self.head_dim_from_gguf(k, hidden_size / heads)?,
            qkv_bias: self.qkv_bias.in_gguf(asked),
            output_bias: self.output_bias.in_gguf(None),
            clip_qkv: match self.clip_qkv {
                Some([_, name]) => k.number(name)?.filter(|clip| *clip > 0.0),
                None => None,
            },
            qk_norm: self.qk_norm,
            sinks: self.sinks,
            sliding_window: k.size_or("attention.sliding_window", 0, [0, limits::CONTEXT])?,
            conv_l_cache: k.size_or("shortconv.l_cache", 0, [0, 64])?,
            layer_types,
        })
    }

    /// Width of a head, which keys, values and the rotary embedding share.
    fn head_dim_from_gguf(&self, k: &MetadataReader, default: usize) -> Result<usize, ConfigError> {
        let head_dim = k.size_or("attention.key_length", default, [1, limits::WIDTH])?;
        for name in ["attention.value_length", "rope.dimension_count"] {
            let found = k.size_or(name, head_dim, [0, limits::WIDTH])?;
            if found != head_dim {
                let allowed = format!("{head_dim}, the width of a key");
                return Err(ConfigError::value(&k.key(name), found, allowed));
            }
        }
        Ok(head_dim)
    }

    pub(super) fn activation_from_gguf(
        &self,
        k: &MetadataReader,
    ) -> Result<Activation, ConfigError> {
        let Activation::ClampedSwiGlu { alpha, limit } = self.activation else {
            return Ok(self.activation);
        };
        Ok(Activation::ClampedSwiGlu {
            alpha: k.metadata.f32("vaquita.swiglu.alpha")?.unwrap_or(alpha),
            limit: k.metadata.f32("vaquita.swiglu.limit")?.unwrap_or(limit),
        })
    }

    pub(super) fn activation_from_hf(&self, r: &ConfigReader) -> Result<Activation, ConfigError> {
        let Activation::ClampedSwiGlu { alpha, limit } = self.activation else {
            return Ok(self.activation);
        };
        Ok(Activation::ClampedSwiGlu {
            alpha: r.number("swiglu_alpha")?.unwrap_or(alpha),
            limit: r.number("swiglu_limit")?.unwrap_or(limit),
        })
    }

    pub(super) fn moe_from_hf(
        &self,
        r: &ConfigReader,
        intermediate: usize,
    ) -> Result<MoeConfig, ConfigError> {
        let Some(experts) = &self.moe else { return Ok(MoeConfig::DENSE) };
        let scoring = match experts.scoring {
            Scoring::Softmax => "softmax",
            Scoring::Sigmoid => "sigmoid",
        };
        r.expect("scoring_func", scoring)?;
        r.size_or("decoder_sparse_step", 1, [1, 1])?;
        if r.get("mlp_only_layers").and_then(Json::as_array).is_some_and(|list| !list.is_empty()) {
            let found = r.get("mlp_only_layers").map(Json::to_string).unwrap_or_default();
            return Err(ConfigError::value("mlp_only_layers", found, "none"));
        }
        let name = match r.get("num_experts") {
            Some(_) => "num_experts",
            None => "num_local_experts",
        };
        let n_routed_experts = r.size(name, [1, limits::EXPERTS])?;
        let width = [1, limits::WIDTH];
        let shared = match experts.gated_shared_expert {
            true => r.size("shared_expert_intermediate_size", width)?,
            false => 0,
        };
        let corrects = r.bool("use_expert_bias")?.unwrap_or(true);
        Ok(MoeConfig {
            n_routed_experts,
            n_shared_experts: usize::from(shared > 0),
            shared_expert_intermediate_size: shared,
            shared_expert_gate: experts.gated_shared_expert,
            bias: experts.bias,
            num_experts_per_tok: r.size("num_experts_per_tok", [1, n_routed_experts])?,
            moe_intermediate_size: r.size_or("moe_intermediate_size", intermediate, width)?,
            first_k_dense_replace: r.size_or("num_dense_layers", 0, [0, limits::LAYERS])?,
            scoring_func: experts.scoring,
            topk_method: match experts.topk_method {
                TopkMethod::NoauxTc if !corrects => TopkMethod::Greedy,
                method => method,
            },
            norm_topk_prob: r.bool("norm_topk_prob")?.unwrap_or(experts.norm_topk_prob),
            routed_scaling_factor: r.number("routed_scaling_factor")?.unwrap_or(1.0),
            ..MoeConfig::DENSE
        })
    }

    pub(super) fn moe_from_gguf(
        &self,
        k: &MetadataReader,
        intermediate: usize,
    ) -> Result<MoeConfig, ConfigError> {
        let Some(experts) = &self.moe else { return Ok(MoeConfig::DENSE) };
        let n_routed_experts = k.size("expert_count", [1, limits::EXPERTS])?;
        let width = [1, limits::WIDTH];
        let shared = match experts.gated_shared_expert {
            true => k.size_or("expert_shared_feed_forward_length", intermediate, width)?,
            false => 0,
        };
        let normed = k.metadata.bool(&k.key("expert_weights_norm"))?;
        let normed = normed.unwrap_or(experts.norm_topk_prob);
        k.check_scoring(experts.scoring, normed)?;
        let num_experts_per_tok = k.size("expert_used_count", [1, n_routed_experts])?;
        let expert_width = match experts.divided_width {
            true => intermediate / num_experts_per_tok,
            false => intermediate,
        };
        Ok(MoeConfig {
            n_routed_experts,
            n_shared_experts: usize::from(shared > 0),
            shared_expert_intermediate_size: shared,
            shared_expert_gate: experts.gated_shared_expert,
            bias: experts.bias,
            num_experts_per_tok,
            moe_intermediate_size: k.size_or("expert_feed_forward_length", expert_width, width)?,
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
            norm_topk_prob: normed,
            routed_scaling_factor: k.number("expert_weights_scale")?.unwrap_or(1.0),
            ..MoeConfig::DENSE
        })
    }
}

impl BiasKey {
    /// Reads the biases from `config.json`.
    pub(super) fn in_hf(self, r: &ConfigReader) -> Result<Bias, ConfigError> {
        match self {
            Self::Stated { key, otherwise } => Ok(match r.bool(key)? {
                Some(true) => Bias::Required,
                Some(false) => Bias::None,
                None => otherwise,
            }),
            Self::Fixed(bias) => Ok(bias),
        }
    }

    /// Returns the biases in GGUF, where `asked` is the value in a file written by vaquita.
    pub(super) fn in_gguf(self, asked: Option<bool>) -> Bias {
        match (self, asked) {
            (Self::Fixed(bias), _) => bias,
            (Self::Stated { .. }, Some(true)) => Bias::Required,
            (Self::Stated { .. }, Some(false)) => Bias::None,
            (Self::Stated { otherwise, .. }, None) => otherwise,
        }
    }
}

fn layer_type(name: &str) -> Result<LayerType, ConfigError> {
    let allowed = || LayerType::NAMES.map(|(_, name)| name).join(", ");
    LayerType::from_name(name).ok_or_else(|| ConfigError::value("layer_types", name, allowed()))
}

/// Checks the assumptions of kernels and network.
pub fn check(config: Config) -> Result<Config, ConfigError> {
    if let AttentionConfig::Grouped(gqa) = &config.attention {
        if gqa.head_dim == 0 {
            return Err(ConfigError::value("head_dim", 0, "at least 8"));
        }
        keys::multiple("head_dim", gqa.head_dim, 8)?;
        if gqa.num_key_value_heads == 0 {
            return Err(ConfigError::value("num_key_value_heads", 0, "at least 1"));
        }
        keys::multiple("num_attention_heads", gqa.num_attention_heads, gqa.num_key_value_heads)?;
        if gqa.layer_types.len() != config.num_hidden_layers {
            let (found, allowed) = (gqa.layer_types.len(), config.num_hidden_layers);
            return Err(ConfigError::value("layer_types", found, format!("{allowed} layers")));
        }
        let any = |ty| gqa.layer_types.contains(&ty);
        if any(LayerType::Sliding) && gqa.sliding_window == 0 {
            return Err(ConfigError::value("sliding_window", 0, "at least 1"));
        }
        if any(LayerType::Conv) && gqa.conv_l_cache == 0 {
            return Err(ConfigError::value("conv_L_cache", 0, "at least 1"));
        }
    }
    keys::check(config)
}
