//! Attention of families with grouped-query attention, from GGUF metadata and to it.

use super::ConfigError;
use super::gated_delta;
use super::gemma4;
use super::grouped::{Gate, Grouped, ScoreScale, SlidingPeriod};
use super::grouped_config::layer_type;
use super::keys::{MetadataReader, limits};
use crate::checkpoint::config::{
    Activation, GroupedConfig, KeysAsValues, LayerType, OutputGate, QkNorm,
};
use crate::gguf::Metadata;

impl Grouped {
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
}
