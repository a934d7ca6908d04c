//! What families with grouped-query attention read in the same way from `config.json` and from GGUF
//! metadata (constant factors, biases, types of layers), and the checks of both.

use super::ConfigError;
use super::gemma4;
use super::grouped::{BiasKey, Grouped, Pairs};
use super::keys;
use super::keys::{ConfigReader, MetadataReader};
use crate::checkpoint::config::{AttentionConfig, Bias, Config, HeadShape, LayerType, Scales};
use crate::gguf::Metadata;

impl Grouped {
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
                // llama.cpp needs it, but in hybrids.
                logits: match self.mamba {
                    true => factor("logit_scale")?,
                    false => match k.required_number("logit_scale")? {
                        0.0 => 1.0,
                        factor => factor,
                    },
                },
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

/// Type of a layer by its name, in any version of transformers.
pub fn layer_type(name: &str) -> Result<LayerType, ConfigError> {
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
