//! Attention of families with grouped-query attention, from `config.json`.

use serde_json::Value as Json;

use super::ConfigError;
use super::gated_delta;
use super::gemma4;
use super::grouped::{Gate, Grouped, ScoreScale, Window};
use super::grouped_config::layer_type;
use super::keys::{ConfigReader, limits};
use crate::checkpoint::config::{
    Activation, GroupedConfig, KeysAsValues, LayerType, OutputGate, QkNorm, RopeConfig,
};

impl Grouped {
    pub(super) fn attention_from_hf(
        &self,
        r: &ConfigReader,
        hidden_size: usize,
    ) -> Result<GroupedConfig, ConfigError> {
        let layers = r.size("num_hidden_layers", [1, limits::LAYERS])?;
        let key = "num_attention_heads_per_layer";
        let mut per_layer = r.indices(key, limits::HEADS)?.unwrap_or_default();
        if !per_layer.is_empty() && per_layer.len() != layers {
            return Err(ConfigError::value(key, per_layer.len(), format!("{layers} layers")));
        }
        let heads = match per_layer.iter().max() {
            Some(most) => *most,
            None => r.size("num_attention_heads", [1, limits::HEADS])?,
        };
        if per_layer.iter().all(|of_layer| *of_layer == heads) {
            per_layer.clear();
        }
        let window = self.sliding_window(r)?;
        let layer_types = match r.strings("layer_types")? {
            Some(names) => names.into_iter().map(layer_type).collect::<Result<_, _>>()?,
            None => self.default_layer_types(r, layers, window)?,
        };
        let attention = GroupedConfig {
            num_attention_heads: heads,
            num_attention_heads_per_layer: per_layer,
            num_key_value_heads: r.size_or("num_key_value_heads", heads, [1, heads])?,
            head_dim: r.size_or("head_dim", hidden_size / heads, [1, limits::WIDTH])?,
            qkv_bias: self.qkv_bias.in_hf(r)?,
            output_bias: self.output_bias.in_hf(r)?,
            clip_qkv: self.clip_qkv_from_hf(r)?,
            qk_norm: match (self.qk_norm, r.bool("use_qk_norm")?) {
                (_, Some(false)) => QkNorm::None,
                (QkNorm::PerHeadIfStored, Some(true)) => QkNorm::PerHead,
                (norm, _) => norm,
            },
            score_scale: match self.score_scale {
                ScoreScale::OfHead => None,
                ScoreScale::QueryScalar(_) => Some(1.0 / self.query_scalar_from_hf(r)?.sqrt()),
                ScoreScale::Stated => Some(r.number("attention_multiplier")?.unwrap_or(1.0)),
                ScoreScale::One => Some(1.0),
            },
            sinks: self.sinks,
            output_gate: self.output_gate_from_hf(r)?,
            rotates: self.rotates_from_hf(r, layers)?,
            sliding_window: window,
            conv_l_cache: r.size_or("conv_L_cache", 0, [0, 64])?,
            layer_types,
            global: None,
            num_kv_shared_layers: 0,
            keys_as_values: KeysAsValues::No,
            value_norm: false,
        };
        match self.gemma4 {
            true => gemma4::attention_from_hf(r, attention),
            false => Ok(attention),
        }
    }

    /// Rotary embeddings of full layers, and of sliding layers if they differ.
    pub(super) fn ropes_from_hf(
        &self,
        r: &ConfigReader,
        max_positions: usize,
        attention: &GroupedConfig,
    ) -> Result<(RopeConfig, Option<RopeConfig>), ConfigError> {
        let head_dims =
            [LayerType::Full, LayerType::Sliding].map(|ty| attention.head_shape(ty).head_dim);
        match self.sliding_rope {
            true => {
                r.expect_ropes_of_layers()?;
                r.ropes(max_positions, head_dims, self.interleaved())
            }
            false => Ok((r.rope(max_positions, head_dims[0], self.interleaved())?, None)),
        }
    }

    /// Refuses an activation that is not the family's.
    pub(super) fn check_activation(&self, r: &ConfigReader) -> Result<(), ConfigError> {
        match self.activation {
            Activation::GeGlu => r.expect("hidden_activation", "gelu_pytorch_tanh"),
            _ => r.expect("hidden_act", "silu"),
        }
    }

    fn query_scalar_from_hf(&self, r: &ConfigReader) -> Result<f32, ConfigError> {
        let key = "query_pre_attn_scalar";
        let scalar = r.number(key)?.ok_or(ConfigError::Missing { key: key.into() })?;
        match scalar > 0.0 {
            true => Ok(scalar),
            false => Err(ConfigError::value(key, scalar, "a number above 0")),
        }
    }

    fn output_gate_from_hf(&self, r: &ConfigReader) -> Result<Option<OutputGate>, ConfigError> {
        match self.output_gate {
            Gate::None => return Ok(None),
            Gate::SigmoidInQuery => return Ok(Some(OutputGate::SigmoidInQuery)),
            Gate::Softplus => {}
        }
        match r.get("gating") {
            None | Some(Json::Bool(true)) => Ok(Some(OutputGate::SoftplusPerHead)),
            Some(Json::String(form)) if form == "per-head" => Ok(Some(OutputGate::SoftplusPerHead)),
            Some(Json::String(form)) if form == "per-element" => {
                Ok(Some(OutputGate::SoftplusPerElement))
            }
            Some(found) => Err(ConfigError::value("gating", found, "true, per-head, per-element")),
        }
    }

    /// Whether the queries and keys of each layer are rotated; empty if all are.
    fn rotates_from_hf(&self, r: &ConfigReader, layers: usize) -> Result<Vec<bool>, ConfigError> {
        if self.optional_rope {
            let key = "position_embedding_type";
            return match r.str(key)? {
                Some("rope") => Ok(Vec::new()),
                None | Some("nope") => Ok(vec![false; layers]),
                Some(found) => Err(ConfigError::value(key, found, "rope, nope, or null")),
            };
        }
        let Some(interval) = self.no_rope_interval else { return Ok(Vec::new()) };
        if let Some(listed) = r.indices("no_rope_layers", 2)? {
            if listed.len() < layers {
                let allowed = format!("{layers} layers");
                return Err(ConfigError::value("no_rope_layers", listed.len(), allowed));
            }
            return Ok(listed[..layers].iter().map(|rotates| *rotates == 1).collect());
        }
        let interval = r.size_or("no_rope_layer_interval", interval, [1, limits::LAYERS])?;
        Ok((1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect())
    }

    /// Positions in the window of sliding layers; 0 if no layer slides. transformers' Llama class
    /// has no window and ignores the key.
    fn sliding_window(&self, r: &ConfigReader) -> Result<usize, ConfigError> {
        let has_windows =
            self.window.is_some() || self.layer_type.is_some() || self.sliding_period.is_some();
        if !has_windows || r.str("model_type")? == Some("llama") {
            return Ok(0);
        }
        match r.bool("use_sliding_window")?.unwrap_or(true) {
            true if r.get("sliding_window").is_some() => {
                r.size("sliding_window", [1, limits::CONTEXT])
            }
            _ => Ok(0),
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
        if self.mamba {
            return Ok(vec![LayerType::Recurrent; layers]);
        }
        if self.delta.is_some() {
            let interval = gated_delta::interval_from_hf(r)?;
            return Ok((0..layers).map(|i| gated_delta::layer_type(i, interval)).collect());
        }
        let pattern = r.size_or("sliding_window_pattern", 6, [1, limits::LAYERS])?;
        let max = r.size_or("max_window_layers", layers, [0, limits::LAYERS])?;
        let slides = |layer: usize| match self.window.filter(|_| window > 0) {
            None => false,
            Some(Window::All) => true,
            Some(Window::FromMaxWindowLayers) => layer >= max,
            Some(Window::AllButEverySixth) => !(layer + 1).is_multiple_of(pattern),
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

    pub(super) fn activation_from_hf(&self, r: &ConfigReader) -> Result<Activation, ConfigError> {
        let Activation::ClampedSwiGlu { alpha, limit } = self.activation else {
            return Ok(self.activation);
        };
        Ok(Activation::ClampedSwiGlu {
            alpha: r.number("swiglu_alpha")?.unwrap_or(alpha),
            limit: r.number("swiglu_limit")?.unwrap_or(limit),
        })
    }
}
