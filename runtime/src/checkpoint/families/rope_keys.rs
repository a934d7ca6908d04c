//! Rotary embeddings in `config.json`, in the styles of transformers before and since version 5, and
//! in GGUF metadata.

use serde_json::Value as Json;

use super::ConfigError;
use super::config_reader::ConfigReader;
use super::keys::{limits, multiple};
use super::metadata_reader::MetadataReader;
use crate::checkpoint::config::{Llama3Config, RopeConfig, RopeScaling, YarnConfig};

/// Types of layers that `rope_parameters` names.
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

impl ConfigReader<'_> {
    /// Reads the rotary embedding of a network in which all layers have the same.
    pub fn rope(
        &self,
        max_positions: usize,
        head_dim: usize,
        interleaved: bool,
    ) -> Result<RopeConfig, ConfigError> {
        let (rope, sliding) = self.ropes(max_positions, [head_dim; 2], interleaved)?;
        match sliding {
            None => Ok(rope),
            Some(sliding) => {
                let key = "rope_parameters.sliding_attention";
                let allowed = format!("that of the other layers: {rope:?}");
                Err(ConfigError::value(key, format!("{sliding:?}"), allowed))
            }
        }
    }

    /// Reads the rotary embedding of heads of `head_dims` numbers in full and in sliding layers, in
    /// either style: `rope_theta` and `rope_scaling` at the top level, or both in `rope_parameters`,
    /// which may have an entry per layer type. Returns that of full layers, and that of sliding
    /// layers if it differs.
    pub fn ropes(
        &self,
        max_positions: usize,
        head_dims: [usize; 2],
        interleaved: bool,
    ) -> Result<(RopeConfig, Option<RopeConfig>), ConfigError> {
        let empty = Json::Object(Default::default());
        let stated = |key: &str| self.get(key).filter(|value| **value != empty);
        let scaling = stated("rope_scaling").or_else(|| stated("rope_parameters"));
        let (full, sliding) = of_layers(scaling.unwrap_or(&empty))?;
        let nested = !std::ptr::eq(full, scaling.unwrap_or(&empty));
        let local = self.number("rope_local_base_freq")?;
        let read = |parameters, head_dim, theta| {
            let s = ConfigReader(parameters);
            // transformers reads this one beside the types of layers, where nothing writes it.
            if nested {
                s.expect_bool("truncate", true)?;
            }
            self.rope_of(s, max_positions, head_dim, interleaved, theta)
        };
        let theta = self.number("rope_theta")?;
        let sliding = match sliding {
            Some(sliding) => Some(read(sliding, head_dims[1], local.or(theta))?),
            None => None,
        };
        let usual = if nested { None } else { Some(10000.0) };
        let full = read(full, head_dims[0], theta.or(usual))?;
        let sliding = match (local, sliding) {
            (Some(theta), None) => {
                Some(RopeConfig { theta, scaling: RopeScaling::None, ..full.clone() })
            }
            (_, sliding) => sliding,
        };
        let sliding = sliding.filter(|sliding| *sliding != full);
        if sliding.as_ref().is_some_and(|sliding| sliding.scaling != RopeScaling::None) {
            let key = "rope_parameters.sliding_attention.rope_type";
            return Err(ConfigError::value(key, "another than default", "default"));
        }
        Ok((full, sliding))
    }

    /// Refuses rotary embeddings that are stated for each type of layer.
    pub fn refuse_ropes_of_layers(&self) -> Result<(), ConfigError> {
        for key in ["rope_scaling", "rope_parameters"] {
            let entries = self.get(key).and_then(Json::as_object).into_iter().flatten();
            if let Some((name, _)) = entries.into_iter().find(|(_, value)| value.is_object()) {
                let allowed = "the same parameters for all layers";
                return Err(ConfigError::value(&format!("{key}.{name}"), "an object", allowed));
            }
        }
        Ok(())
    }

    /// Requires rotary embeddings to be stated for each type of layer, unless those of sliding
    /// layers are stated in the older way.
    pub fn expect_ropes_of_layers(&self) -> Result<(), ConfigError> {
        let older = self.get("rope_local_base_freq").is_some();
        for (key, allowed) in [("rope_scaling", older), ("rope_parameters", false)] {
            let stated =
                self.get(key).and_then(Json::as_object).filter(|stated| !stated.is_empty());
            let nested = |name: &str| stated.is_some_and(|stated| stated.contains_key(name));
            if stated.is_some() && !allowed && !(nested(FULL) && (older || nested(SLIDING))) {
                let allowed = format!("an entry each for {FULL} and {SLIDING}");
                return Err(ConfigError::value(key, "without them", allowed));
            }
        }
        Ok(())
    }

    /// Reads the rotary embedding with the parameters `s`. `usual` is the base if they do not state
    /// it.
    fn rope_of(
        &self,
        s: ConfigReader,
        max_positions: usize,
        head_dim: usize,
        interleaved: bool,
        usual: Option<f32>,
    ) -> Result<RopeConfig, ConfigError> {
        let missing = |key: &str| ConfigError::Missing { key: format!("rope_scaling.{key}") };
        let required = |key: &str| s.number(key)?.ok_or_else(|| missing(key));
        let theta = s.number("rope_theta")?.or(usual).ok_or_else(|| missing("rope_theta"))?;
        let kind = match s.str("rope_type")? {
            Some(kind) => kind,
            None => s.str("type")?.unwrap_or("default"),
        };
        let scaling = match kind {
            "default" => RopeScaling::None,
            "yarn" => {
                let original = self.trained_context(&s, max_positions)?;
                RopeScaling::Yarn(YarnConfig {
                    factor: required("factor")?,
                    original_max_position_embeddings: original,
                    beta_fast: s.number("beta_fast")?.unwrap_or(32.0),
                    beta_slow: s.number("beta_slow")?.unwrap_or(1.0),
                    mscale: s.number("mscale")?.unwrap_or(0.0),
                    mscale_all_dim: s.number("mscale_all_dim")?.unwrap_or(0.0),
                    attention_factor: s.number("attention_factor")?,
                    truncate: s.bool("truncate")?.unwrap_or(true),
                })
            }
            "llama3" => RopeScaling::Llama3(Llama3Config {
                factor: required("factor")?,
                low_freq_factor: required("low_freq_factor")?,
                high_freq_factor: required("high_freq_factor")?,
                original_max_position_embeddings: self.trained_context(&s, max_positions)?,
            }),
            "proportional" => {
                s.expect_number("factor", 1.0)?;
                let share = s.number("partial_rotary_factor")?.unwrap_or(1.0);
                if !(0.0..=1.0).contains(&share) {
                    return Err(ConfigError::value("partial_rotary_factor", share, "0 to 1"));
                }
                let scaling =
                    RopeScaling::Proportional { pairs: (share * head_dim as f32) as usize / 2 };
                return Ok(RopeConfig { dim: head_dim, theta, interleaved, scaling });
            }
            "linear" => RopeScaling::Linear { factor: required("factor")? },
            other => {
                return Err(ConfigError::value(
                    "rope_type",
                    other,
                    "default, linear, yarn, llama3, proportional",
                ));
            }
        };
        Ok(RopeConfig { dim: self.rotary_dim(&s, head_dim)?, theta, interleaved, scaling })
    }

    /// Number of rotated elements of a head: all, a share of them, or a number (MiniMax-M2).
    fn rotary_dim(&self, s: &ConfigReader, head_dim: usize) -> Result<usize, ConfigError> {
        let key = "partial_rotary_factor";
        let factor = match s.number(key)? {
            Some(factor) => Some(factor),
            None => self.number(key)?,
        };
        let Some(factor) = factor else {
            return self.size_or("rotary_dim", head_dim, [2, head_dim.max(2)]);
        };
        let dim = (head_dim as f32 * factor) as usize;
        if !(0.0..=1.0).contains(&factor) || dim < 2 || !dim.is_multiple_of(2) {
            let allowed = format!("a share of the {head_dim} numbers of a head that is even");
            return Err(ConfigError::value(key, factor, allowed));
        }
        Ok(dim)
    }

    /// Length of the context that a model was trained with before it was extended.
    fn trained_context(
        &self,
        s: &ConfigReader,
        max_positions: usize,
    ) -> Result<usize, ConfigError> {
        let (key, context) = ("original_max_position_embeddings", [1, limits::CONTEXT]);
        let own = s.size_or(key, max_positions, context)?;
        self.size_or(key, own, context)
    }
}

/// Returns the parameters of the rotary embedding of full layers, and those of sliding layers if
/// they are stated for each type of layer.
fn of_layers(parameters: &Json) -> Result<(&Json, Option<&Json>), ConfigError> {
    let Some(entries) = parameters.as_object() else {
        return Err(ConfigError::value("rope_scaling", parameters, "an object"));
    };
    let mut nested = entries.iter().filter(|(_, value)| value.is_object());
    let Some((_, any)) = nested.clone().next() else { return Ok((parameters, None)) };
    if let Some((name, _)) = nested.find(|(name, _)| *name != FULL && *name != SLIDING) {
        let key = format!("rope_parameters.{name}");
        return Err(ConfigError::value(&key, "an object", format!("{FULL} and {SLIDING}")));
    }
    Ok((entries.get(FULL).unwrap_or(any), entries.get(SLIDING)))
}

impl MetadataReader<'_> {
    /// Reads the rotary embedding of heads of `head_dim` numbers. `interleaved` is llama.cpp's
    /// fixed choice for the architecture; `truncate` is the value that the family was trained with.
    pub fn rope(
        &self,
        head_dim: usize,
        interleaved: bool,
        truncate: bool,
    ) -> Result<RopeConfig, ConfigError> {
        let metadata = self.metadata;
        let attn_factor = self.number("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let scaling = match metadata.str(&self.key("rope.scaling.type"))? {
            Some("yarn") => {
                let log = self.number("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0);
                let all_dim = log / 0.1;
                let ours = |name: &str| metadata.f32(&format!("vaquita.rope.{name}"));
                RopeScaling::Yarn(YarnConfig {
                    factor: self.number("rope.scaling.factor")?.unwrap_or(1.0),
                    original_max_position_embeddings: self
                        .size("rope.scaling.original_context_length", [1, limits::CONTEXT])?,
                    beta_fast: self.number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                    mscale: ours("mscale")?.unwrap_or(all_dim),
                    mscale_all_dim: ours("mscale_all_dim")?.unwrap_or(all_dim),
                    attention_factor: ours("attention_factor")?,
                    truncate: metadata.bool("vaquita.rope.truncate")?.unwrap_or(truncate),
                })
            }
            Some("none") => RopeScaling::None,
            // llama.cpp treats a factor without a type as linear, and accepts an older key for it.
            kind @ (Some("linear") | None) => {
                let name = "rope.scaling.yarn_log_multiplier";
                if let Some(log) = self.number(name)?.filter(|log| *log != 0.0) {
                    let key = self.key("rope.scaling.type");
                    return Err(match kind {
                        None => ConfigError::Missing { key },
                        Some(_) => ConfigError::value(&self.key(name), log, "0 without YaRN"),
                    });
                }
                let factor = match self.number("rope.scaling.factor")? {
                    Some(factor) => Some(factor),
                    None => self.number("rope.scale_linear")?,
                };
                match factor.filter(|factor| *factor != 0.0 && *factor != 1.0) {
                    Some(factor) => RopeScaling::Linear { factor },
                    None => RopeScaling::None,
                }
            }
            Some(other) => {
                return Err(ConfigError::value("rope.scaling.type", other, "none, linear, yarn"));
            }
        };
        if attn_factor != 1.0 {
            let key = self.key("rope.scaling.attn_factor");
            return Err(ConfigError::value(&key, attn_factor, 1));
        }
        Ok(RopeConfig {
            dim: self.rotary_dim("rope.dimension_count", head_dim)?,
            theta: self.number("rope.freq_base")?.unwrap_or(10000.0),
            interleaved: metadata.bool("vaquita.rope.interleaved")?.unwrap_or(interleaved),
            scaling,
        })
    }

    fn rotary_dim(&self, name: &str, head_dim: usize) -> Result<usize, ConfigError> {
        let dim = self.size_or(name, head_dim, [2, head_dim.max(2)])?;
        multiple(&self.key(name), dim, 2)?;
        Ok(dim)
    }

    /// Reads the rotary embedding of sliding layers, if the file states one. `otherwise` is the base
    /// if it does not.
    pub fn sliding_rope(
        &self,
        head_dim: usize,
        full: &RopeConfig,
        otherwise: Option<f32>,
    ) -> Result<Option<RopeConfig>, ConfigError> {
        let theta = self.number("rope.freq_base_swa")?.or(otherwise);
        let count = "rope.dimension_count_swa";
        if theta.is_none() && self.metadata.get(&self.key(count)).is_none() {
            return Ok(None);
        }
        let sliding = RopeConfig {
            dim: self.rotary_dim(count, head_dim)?,
            theta: theta.unwrap_or(full.theta),
            interleaved: full.interleaved,
            scaling: RopeScaling::None,
        };
        Ok(Some(sliding))
    }
}
