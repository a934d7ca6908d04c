//! Attention and experts of families with grouped-query attention, from `config.json` and from GGUF
//! metadata.

use serde_json::Value as Json;

use super::ConfigError;
use super::gated_delta;
use super::gemma4;
use super::grouped::{
    BiasKey, Gate, Grouped, Pairs, ScoreScale, SharedExperts, SlidingPeriod, Window,
};
use super::keys;
use super::keys::{ConfigReader, MetadataReader, limits};
use crate::checkpoint::config::{
    Activation, AttentionConfig, Bias, Config, GroupedConfig, HeadShape, KeysAsValues, LayerType,
    MoeConfig, OutputGate, QkNorm, RopeConfig, Scales, Scoring, TopkMethod,
};
use crate::gguf::Metadata;

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

    /// Refuses to leave a part of each head unrotated, where the family does not.
    pub(super) fn check_rotation(&self, config: &Config) -> Result<(), ConfigError> {
        let AttentionConfig::Grouped(gqa) = &config.attention else { return Ok(()) };
        let sliding = config.sliding_rope.as_ref().unwrap_or(&config.rope);
        for (ty, rope) in [(LayerType::Full, &config.rope), (LayerType::Sliding, sliding)] {
            let head_dim = gqa.head_shape(ty).head_dim;
            let fits =
                if self.partial_rotary { rope.dim <= head_dim } else { rope.dim == head_dim };
            if gqa.has(ty) && !fits {
                let allowed =
                    format!("{head_dim}, the width of a head, without a partial_rotary_factor");
                return Err(ConfigError::value("rope.dimension_count", rope.dim, allowed));
            }
        }
        Ok(())
    }

    /// Whether the network rotates neighbours.
    pub(super) fn interleaved(&self) -> bool {
        self.pairs != Pairs::Halves
    }

    /// Refuses an activation that is not the family's.
    pub(super) fn check_activation(&self, r: &ConfigReader) -> Result<(), ConfigError> {
        match self.activation {
            Activation::GeGlu => r.expect("hidden_activation", "gelu_pytorch_tanh"),
            _ => r.expect("hidden_act", "silu"),
        }
    }

    /// Constant factors in `config.json`.
    pub(super) fn scales_from_hf(
        &self,
        r: &ConfigReader,
        hidden_size: usize,
    ) -> Result<Scales, ConfigError> {
        let factor = |key| Ok::<_, ConfigError>(r.number(key)?.unwrap_or(1.0));
        checked(match self.multipliers {
            false => Scales {
                logit_cap: match self.gemma4 {
                    true => r.number("final_logit_softcapping")?,
                    false => None,
                },
                ..self.scales(hidden_size)
            },
            true => Scales {
                embedding: factor("embedding_multiplier")?,
                residual: factor("residual_multiplier")?,
                logits: factor("logits_scaling")?,
                logit_cap: None,
            },
        })
    }

    /// Constant factors in GGUF metadata, where llama.cpp takes 0 for 1.
    pub(super) fn scales_from_gguf(
        &self,
        k: &MetadataReader,
        hidden_size: usize,
    ) -> Result<Scales, ConfigError> {
        let factor = |name| {
            let stated = k.number(name)?.filter(|factor| *factor != 0.0);
            Ok::<_, ConfigError>(stated.unwrap_or(1.0))
        };
        checked(match self.multipliers {
            false => Scales {
                logit_cap: match self.gemma4 {
                    true => {
                        let stated = k.number(gemma4::LOGIT_CAP)?;
                        Some(stated.unwrap_or(gemma4::GGUF_LOGIT_CAP)).filter(|cap| *cap != 0.0)
                    }
                    false => None,
                },
                ..self.scales(hidden_size)
            },
            true => Scales {
                embedding: factor("embedding_scale")?,
                residual: factor("residual_scale")?,
                logits: factor("logit_scale")?,
                logit_cap: None,
            },
        })
    }

    /// Constant factors that follow from the family.
    fn scales(&self, hidden_size: usize) -> Scales {
        match self.scaled_embedding {
            true => Scales { embedding: (hidden_size as f32).sqrt(), ..Scales::NONE },
            false => Scales::NONE,
        }
    }

    /// Writes llama.cpp's keys of constant factors.
    pub(super) fn write_scales(&self, config: &Config, metadata: &mut Metadata) {
        if self.multipliers {
            let Scales { embedding, residual, logits, .. } = config.scales;
            let names = ["embedding_scale", "residual_scale", "logit_scale"];
            for (name, factor) in names.into_iter().zip([embedding, residual, logits]) {
                metadata.insert(format!("{}.{name}", self.architecture), factor);
            }
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

    pub(super) fn attention_from_gguf(
        &self,
        k: &MetadataReader,
        hidden_size: usize,
        layers: usize,
    ) -> Result<GroupedConfig, ConfigError> {
        let key = k.key("attention.head_count");
        let per_layer_heads = k.metadata.u32s(&key).ok().flatten().unwrap_or_default();
        let heads = match per_layer_heads.iter().max() {
            Some(&most @ 1..) if most as usize <= limits::HEADS => most as usize,
            _ => k.size("attention.head_count", [1, limits::HEADS])?,
        };
        let per_layer_heads: Vec<usize> = per_layer_heads.iter().map(|n| *n as usize).collect();
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
        let head_dim = self.head_dim_from_gguf(k, hidden_size / heads)?;
        let window = k.size_or("attention.sliding_window", 0, [0, limits::CONTEXT])?;
        let period = self.period_from_gguf(k)?.filter(|_| window > 0);
        let layer_types = match k.metadata.strings("vaquita.layer_types")? {
            Some(names) => names.iter().map(|n| layer_type(n)).collect::<Result<_, _>>()?,
            None if self.gemma4 => gemma4::layer_types(k, layers)?,
            None => {
                let interval = gated_delta::interval_from_gguf(k)?;
                let ty = |layer| match (convolves(layer), period, self.layer_type) {
                    _ if self.delta.is_some() => gated_delta::layer_type(layer, interval),
                    (true, ..) if self.mamba => LayerType::Recurrent,
                    (true, ..) => LayerType::Conv,
                    (_, Some(period), _) => period.layer_type(layer),
                    (_, _, Some(pattern)) => pattern(layer),
                    _ => LayerType::Full,
                };
                (0..layers).map(ty).collect()
            }
        };
        let asked = k.metadata.bool("vaquita.attention.qkv_bias")?;
        let attention = GroupedConfig {
            num_attention_heads: heads,
            num_attention_heads_per_layer: match per_layer_heads.iter().all(|n| *n == heads) {
                true => Vec::new(),
                false => per_layer_heads,
            },
            num_key_value_heads: key_value_heads,
            head_dim,
            qkv_bias: self.qkv_bias.in_gguf(asked),
            output_bias: self.output_bias.in_gguf(None),
            clip_qkv: match self.clip_qkv {
                Some([_, name]) => k.number(name)?.filter(|clip| *clip > 0.0),
                None => None,
            },
            qk_norm: match (self.qk_norm, k.metadata.bool("vaquita.attention.qk_norm")?) {
                (_, Some(false)) => QkNorm::None,
                (QkNorm::PerHeadIfStored, Some(true)) => QkNorm::PerHead,
                (norm, _) => norm,
            },
            score_scale: match self.score_scale {
                ScoreScale::OfHead => None,
                ScoreScale::QueryScalar(of) => {
                    Some(match k.metadata.f32("vaquita.attention.score_scale")? {
                        Some(stated) => stated,
                        None => of(layers, hidden_size / heads, head_dim),
                    })
                }
                ScoreScale::Stated => k.number("attention.scale")?.filter(|scale| *scale != 0.0),
                ScoreScale::One => Some(1.0),
            },
            sinks: self.sinks,
            output_gate: self.output_gate_from_gguf(k)?,
            rotates: self.rotates_from_gguf(k, layers)?,
            sliding_window: window,
            conv_l_cache: k.size_or("shortconv.l_cache", 0, [0, 64])?,
            layer_types,
            global: None,
            num_kv_shared_layers: 0,
            keys_as_values: KeysAsValues::No,
            value_norm: false,
        };
        match self.gemma4 {
            true => gemma4::attention_from_gguf(k, attention),
            false => Ok(attention),
        }
    }

    fn period_from_gguf(&self, k: &MetadataReader) -> Result<Option<SlidingPeriod>, ConfigError> {
        let Some(period) = self.sliding_period else { return Ok(None) };
        let key = "attention.sliding_window_pattern";
        let layers = k.size_or(key, period.layers, [1, limits::LAYERS])?;
        Ok(Some(SlidingPeriod { layers, ..period }))
    }

    fn output_gate_from_gguf(&self, k: &MetadataReader) -> Result<Option<OutputGate>, ConfigError> {
        let per_element = k.metadata.bool("vaquita.attention.gate_per_element")?;
        Ok(match (self.output_gate, per_element) {
            (Gate::None, _) => None,
            (Gate::SigmoidInQuery, _) => Some(OutputGate::SigmoidInQuery),
            (Gate::Softplus, Some(true)) => Some(OutputGate::SoftplusPerElement),
            (Gate::Softplus, _) => Some(OutputGate::SoftplusPerHead),
        })
    }

    fn rotates_from_gguf(
        &self,
        k: &MetadataReader,
        layers: usize,
    ) -> Result<Vec<bool>, ConfigError> {
        if self.optional_rope {
            let rotates = k.metadata.bool(&k.key("rope.scaling.finetuned"))?.unwrap_or(true);
            return Ok(if rotates { Vec::new() } else { vec![false; layers] });
        }
        let Some(interval) = self.no_rope_interval else { return Ok(Vec::new()) };
        let key = "vaquita.rope.layers";
        Ok(match k.metadata.u32s(key)? {
            Some(listed) if listed.len() != layers => {
                return Err(ConfigError::value(key, listed.len(), format!("{layers} layers")));
            }
            Some(listed) => listed.into_iter().map(|rotates| rotates == 1).collect(),
            None => (1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect(),
        })
    }

    /// Writes the interval of layers with attention, if there is one.
    pub(super) fn write_interval(&self, types: &[LayerType], metadata: &mut Metadata) {
        let fits = |interval: &usize| {
            types.iter().enumerate().all(|(i, ty)| gated_delta::layer_type(i, *interval) == *ty)
        };
        if let Some(interval) = (1..=types.len()).find(fits) {
            let key = format!("{}.full_attention_interval", self.architecture);
            metadata.insert(key, interval as u32);
        }
    }

    /// Writes what llama.cpp has no key for.
    pub(super) fn write_switches(&self, gqa: &GroupedConfig, metadata: &mut Metadata) {
        let key = |name: &str| format!("{}.{name}", self.architecture);
        match (self.score_scale, gqa.score_scale) {
            (ScoreScale::Stated, Some(scale)) => metadata.insert(key("attention.scale"), scale),
            (ScoreScale::QueryScalar(_), Some(scale)) => {
                metadata.insert("vaquita.attention.score_scale", scale);
            }
            _ => {}
        }
        if self.optional_rope {
            metadata.insert(key("rope.scaling.finetuned"), gqa.rotates.is_empty());
        } else if !gqa.rotates.is_empty() {
            let listed: Vec<u32> = gqa.rotates.iter().map(|rotates| u32::from(*rotates)).collect();
            metadata.insert("vaquita.rope.layers", listed);
        }
        if let Some(gate) = gqa.output_gate.filter(|_| self.output_gate == Gate::Softplus) {
            let per_element = gate == OutputGate::SoftplusPerElement;
            metadata.insert("vaquita.attention.gate_per_element", per_element);
        }
        if self.qk_norm == QkNorm::PerHeadIfStored && gqa.qk_norm != QkNorm::PerHeadIfStored {
            metadata.insert("vaquita.attention.qk_norm", gqa.qk_norm == QkNorm::PerHead);
        }
    }

    /// Width of a head, which keys and values share.
    fn head_dim_from_gguf(&self, k: &MetadataReader, default: usize) -> Result<usize, ConfigError> {
        let head_dim = k.size_or("attention.key_length", default, [1, limits::WIDTH])?;
        let name = "attention.value_length";
        let found = k.size_or(name, head_dim, [0, limits::WIDTH])?;
        match found == head_dim {
            true => Ok(head_dim),
            false => {
                let allowed = format!("{head_dim}, the width of a key");
                Err(ConfigError::value(&k.key(name), found, allowed))
            }
        }
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

/// The factors, if they are numbers that a network can have.
fn checked(scales: Scales) -> Result<Scales, ConfigError> {
    match scales {
        Scales { logits: 0.0, .. } => {
            Err(ConfigError::value("logits_scaling", 0, "a number other than 0"))
        }
        Scales { logit_cap: Some(cap), .. } if cap <= 0.0 => {
            Err(ConfigError::value("final_logit_softcapping", cap, "a number above 0, or null"))
        }
        scales => Ok(scales),
    }
}

fn layer_type(name: &str) -> Result<LayerType, ConfigError> {
    // Names before transformers 5.
    let name = match name {
        "mamba" => LayerType::Recurrent.name(),
        "attention" => LayerType::Full.name(),
        name => name,
    };
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
        let per_layer = &gqa.num_attention_heads_per_layer;
        if !per_layer.is_empty() && per_layer.len() != config.num_hidden_layers {
            let allowed = format!("{} layers", config.num_hidden_layers);
            let key = "num_attention_heads_per_layer";
            return Err(ConfigError::value(key, per_layer.len(), allowed));
        }
        for heads in per_layer.iter().chain([&gqa.num_attention_heads]) {
            if *heads == 0 {
                return Err(ConfigError::value("num_attention_heads", 0, "at least 1"));
            }
            keys::multiple("num_attention_heads", *heads, gqa.num_key_value_heads)?;
        }
        if gqa.has(LayerType::Recurrent) && config.recurrence.is_none() {
            let allowed = "full_attention, sliding_attention, conv";
            return Err(ConfigError::value("layer_types", LayerType::Recurrent.name(), allowed));
        }
        if let Some(HeadShape { head_dim, num_key_value_heads }) = gqa.global {
            keys::multiple("global_head_dim", head_dim, 8)?;
            let heads = gqa.num_attention_heads;
            keys::multiple("num_attention_heads", heads, num_key_value_heads.max(1))?;
            if head_dim == 0 || num_key_value_heads == 0 {
                let allowed = "at least 1, like their width";
                return Err(ConfigError::value("num_global_key_value_heads", 0, allowed));
            }
        }
        if gqa.layer_types.len() != config.num_hidden_layers {
            let (found, allowed) = (gqa.layer_types.len(), config.num_hidden_layers);
            return Err(ConfigError::value("layer_types", found, format!("{allowed} layers")));
        }
        if gqa.has(LayerType::Sliding) && gqa.sliding_window == 0 {
            return Err(ConfigError::value("sliding_window", 0, "at least 1"));
        }
        if gqa.has(LayerType::Conv) && gqa.conv_l_cache == 0 {
            return Err(ConfigError::value("conv_L_cache", 0, "at least 1"));
        }
    }
    keys::check(config)
}
