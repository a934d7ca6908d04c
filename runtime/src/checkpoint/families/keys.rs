//! Reads configuration values from `config.json` and from GGUF metadata, within limits.

use std::collections::HashSet;

use serde_json::Value as Json;

use super::ConfigError;
use crate::checkpoint::config::{
    Config, Llama3Config, RopeConfig, RopeScaling, Scoring, TopkMethod, YarnConfig,
};
use crate::gguf::Metadata;

/// Key of all tokens that end an answer, for models with several (Llama 3).
const EOS_TOKEN_IDS: &str = "vaquita.eos_token_ids";

/// llama.cpp's codes for scoring functions.
const GATING_NONE: u32 = 0;
const GATING_SOFTMAX: u32 = 1;
const GATING_SIGMOID: u32 = 2;
const GATING_SOFTMAX_OF_CHOSEN: u32 = 3;

/// Keys of other architectures that change the results, below `general.architecture`, with their
/// neutral values; an empty list denotes a switch that must be off.
const FOREIGN: [(&str, &[f32]); 13] = [
    ("attention.indexer.top_k", &[0.0]),
    ("attention.max_alibi_bias", &[0.0]),
    ("attention.scale", &[0.0]),
    ("attention.temperature_scale", &[0.0]),
    ("attn_logit_softcapping", &[0.0]),
    ("embedding_scale", &[1.0, 0.0]),
    ("final_logit_softcapping", &[0.0]),
    ("interleave_moe_layer_step", &[1.0, 0.0]),
    ("logit_scale", &[1.0, 0.0]),
    ("residual_scale", &[1.0, 0.0]),
    ("rope.scaling.yarn_attn_factor", &[1.0]),
    ("rope.scaling.yarn_ext_factor", &[1.0, -1.0]),
    ("use_parallel_residual", &[]),
];

/// Keys of constant multipliers, with which Granite computes.
pub const MULTIPLIERS: [&str; 4] =
    ["attention.scale", "embedding_scale", "logit_scale", "residual_scale"];

/// Limits, far above real models, on the values of untrusted files.
pub mod limits {
    /// Number of layers.
    pub const LAYERS: usize = 1024;
    /// Any width.
    pub const WIDTH: usize = 1 << 20;
    /// Number of attention heads.
    pub const HEADS: usize = 4096;
    /// Experts per layer.
    pub const EXPERTS: usize = 65536;
    /// Numbers of a recurrent state.
    pub const STATE: usize = 1 << 28;
    /// Tokens in a vocabulary.
    pub const VOCABULARY: usize = 1 << 24;
    /// Positions.
    pub const CONTEXT: usize = 1 << 30;
}

/// Reads `config.json`.
pub struct ConfigReader<'a>(pub &'a Json);

impl<'a> ConfigReader<'a> {
    /// The value of a key, unless null.
    pub fn get(&self, key: &str) -> Option<&'a Json> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| ConfigError::value(key, value, "a string"))
    }

    /// Checks that a key, if present, has the only supported value.
    pub fn expect(&self, key: &str, allowed: &str) -> Result<(), ConfigError> {
        match self.str(key)? {
            Some(found) if found != allowed => Err(ConfigError::value(key, found, allowed)),
            _ => Ok(()),
        }
    }

    /// Checks that a boolean, if present, has the only supported value.
    pub fn expect_bool(&self, key: &str, allowed: bool) -> Result<(), ConfigError> {
        match self.bool(key)? {
            Some(found) if found != allowed => Err(ConfigError::value(key, found, allowed)),
            _ => Ok(()),
        }
    }

    /// A size, or a default if it is absent.
    pub fn size_or(
        &self,
        key: &str,
        default: usize,
        range: [usize; 2],
    ) -> Result<usize, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        in_range(key, size, value, range)
    }

    /// A required size.
    pub fn size(&self, key: &str, range: [usize; 2]) -> Result<usize, ConfigError> {
        self.get(key).ok_or(ConfigError::Missing { key: key.into() })?;
        self.size_or(key, 0, range)
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<Option<f32>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        number.map(Some).ok_or_else(|| ConfigError::value(key, value, "a finite number"))
    }

    /// Checks that a number, if present, has the only supported value.
    pub fn expect_number(&self, key: &str, allowed: f32) -> Result<(), ConfigError> {
        match self.number(key)? {
            Some(found) if found != allowed => Err(ConfigError::value(key, found, allowed)),
            _ => Ok(()),
        }
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| ConfigError::value(key, value, "true or false"))
    }

    /// A list of strings.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let strings = value.as_array().and_then(|list| list.iter().map(Json::as_str).collect());
        strings.map(Some).ok_or_else(|| ConfigError::value(key, value, "a list of strings"))
    }

    /// Number of layers at the start without experts, from a list of all layers, a list of those
    /// layers, or a number.
    pub fn dense_layers(&self, key: &str) -> Result<usize, ConfigError> {
        if let Some(types) = self.strings("mlp_layer_types")? {
            let dense = types.iter().take_while(|ty| **ty == "dense").count();
            if types[dense..].iter().any(|ty| *ty != "sparse") {
                let (found, allowed) = (types.join(", "), "dense layers, then sparse ones");
                return Err(ConfigError::value("mlp_layer_types", found, allowed));
            }
            return Ok(dense);
        }
        if let Some(layers) = self.indices("mlp_only_layers", limits::LAYERS)?
            && !layers.is_empty()
        {
            if layers.iter().enumerate().any(|(i, layer)| i != *layer) {
                let found = format!("{layers:?}");
                return Err(ConfigError::value("mlp_only_layers", found, "the first layers"));
            }
            return Ok(layers.len());
        }
        self.size_or(key, 0, [0, limits::LAYERS])
    }

    /// A list of numbers below `end`.
    pub fn indices(&self, key: &str, end: usize) -> Result<Option<Vec<usize>>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let index = |value: &Json| value.as_u64().map(|i| i as usize).filter(|i| *i < end);
        let indices = value.as_array().and_then(|list| list.iter().map(index).collect());
        let allowed = || format!("a list of numbers below {end}");
        indices.map(Some).ok_or_else(|| ConfigError::value(key, value, allowed()))
    }

    /// One or several token ids.
    pub fn tokens(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let one = std::slice::from_ref(value);
        let ids = value.as_array().map_or(one, |ids| &ids[..]);
        let id = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let bad = || ConfigError::value(key, value, "a token or a list of tokens");
        ids.iter().map(|value| id(value).ok_or_else(bad)).collect()
    }

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

/// Types of layers that `rope_parameters` names.
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

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

fn in_range(
    key: &str,
    size: Option<usize>,
    found: impl ToString,
    [low, high]: [usize; 2],
) -> Result<usize, ConfigError> {
    size.filter(|size| (low..=high).contains(size))
        .ok_or_else(|| ConfigError::value(key, found, format!("{low} to {high}")))
}

/// Reads GGUF metadata, whose keys begin with an architecture.
pub struct MetadataReader<'a> {
    /// All metadata.
    pub metadata: &'a Metadata,
    /// `general.architecture`.
    pub architecture: &'static str,
}

impl MetadataReader<'_> {
    /// The key with the architecture's prefix.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// A size, or a default if it is absent.
    pub fn size_or(
        &self,
        name: &str,
        default: usize,
        range: [usize; 2],
    ) -> Result<usize, ConfigError> {
        match self.metadata.usize(&self.key(name))? {
            None => Ok(default),
            Some(size) => in_range(&self.key(name), Some(size), size, range),
        }
    }

    /// A required size.
    pub fn size(&self, name: &str, range: [usize; 2]) -> Result<usize, ConfigError> {
        let key = self.key(name);
        let size = self.metadata.usize(&key)?.ok_or(ConfigError::Missing { key: key.clone() })?;
        in_range(&key, Some(size), size, range)
    }

    /// A finite number.
    pub fn number(&self, name: &str) -> Result<Option<f32>, ConfigError> {
        let key = self.key(name);
        match self.metadata.f32(&key)? {
            Some(x) if !x.is_finite() => Err(ConfigError::value(&key, x, "a finite number")),
            x => Ok(x),
        }
    }

    /// A required finite number.
    pub fn required_number(&self, name: &str) -> Result<f32, ConfigError> {
        self.number(name)?.ok_or_else(|| ConfigError::Missing { key: self.key(name) })
    }

    /// Refuses keys that change the results of other architectures' networks, unless they have a
    /// neutral value: a file with such a key would produce wrong results here. The architecture
    /// computes with the keys in `own`.
    pub fn refuse_foreign(&self, own: &[&str]) -> Result<(), ConfigError> {
        for (name, neutral) in FOREIGN.into_iter().filter(|(name, _)| !own.contains(name)) {
            let key = self.key(name);
            let Some(value) = self.metadata.get(&key) else { continue };
            let neutral_number = |found: f32| neutral.contains(&found);
            let fits = match (self.metadata.f32(&key), self.metadata.usize(&key)) {
                (Ok(Some(found)), _) => neutral_number(found),
                (_, Ok(Some(found))) => neutral_number(found as f32),
                _ => self.metadata.bool(&key).is_ok_and(|on| on == Some(false)),
            };
            if !fits {
                let allowed = match neutral {
                    [] => "false: this version does not compute with it".into(),
                    [neutral, ..] => format!("{neutral}: this version does not compute with it"),
                };
                return Err(ConfigError::value(&key, format!("{value:?}"), allowed));
            }
        }
        match self.metadata.bool(&self.key("attention.causal"))? {
            Some(false) => Err(ConfigError::value(&self.key("attention.causal"), false, true)),
            _ => Ok(()),
        }
    }

    /// Number of groups of experts, and number of those that a token chooses from, which a file with
    /// several must state.
    pub fn groups(&self, experts: usize) -> Result<[usize; 2], ConfigError> {
        let groups = self.size_or("expert_group_count", 1, [1, experts])?;
        let used = "expert_group_used_count";
        match groups {
            1 => Ok([1, 1]),
            _ => Ok([groups, self.size(used, [1, experts])?]),
        }
    }

    /// Number of tokens in the vocabulary.
    pub fn vocabulary(&self) -> Result<usize, ConfigError> {
        let range = [1, limits::VOCABULARY];
        match self.metadata.strings("tokenizer.ggml.tokens")? {
            Some(tokens) => self.size_or("vocab_size", tokens.len(), range),
            None => self.size("vocab_size", range),
        }
    }

    /// Whether experts are scored by sigmoid, as in V3; `None` if the file does not say.
    pub fn has_sigmoid_scores(&self) -> Option<bool> {
        let function = self.metadata.u32(&self.key("expert_gating_func")).ok().flatten();
        function.map(|function| function == GATING_SIGMOID)
    }

    /// Refuses a scoring function that differs from the family's. Softmax over the selected experts
    /// alone is equivalent to softmax over all experts if the weights are `normed`.
    pub fn check_scoring(&self, scoring: Scoring, normed: bool) -> Result<(), ConfigError> {
        let key = self.key("expert_gating_func");
        let Some(found) = self.metadata.u32(&key)? else { return Ok(()) };
        let fits = match scoring {
            Scoring::Softmax => {
                matches!(found, GATING_NONE | GATING_SOFTMAX)
                    || (normed && found == GATING_SOFTMAX_OF_CHOSEN)
            }
            Scoring::Sigmoid => found == GATING_SIGMOID,
        };
        match (fits, scoring) {
            (true, _) => Ok(()),
            (false, Scoring::Softmax) => Err(ConfigError::value(&key, found, "1 (softmax)")),
            (false, Scoring::Sigmoid) => Err(ConfigError::value(&key, found, "2 (sigmoid)")),
        }
    }

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

/// Tokens that end an answer: all of them if the file lists several, otherwise the one that every
/// file names.
pub fn ends(metadata: &Metadata) -> Result<Vec<u32>, ConfigError> {
    let mut ends: Vec<u32> = Vec::new();
    for name in ["eos", "eot", "eom"] {
        ends.extend(metadata.token_id(&format!("tokenizer.ggml.{name}_token_id"))?);
    }
    ends.extend(metadata.u32s(EOS_TOKEN_IDS)?.unwrap_or_default());
    let mut seen = HashSet::new();
    ends.retain(|id| seen.insert(*id));
    Ok(ends)
}

/// Writes the keys that all architectures share: rotary embedding, expert scoring, norms.
pub fn write_common(architecture: &str, config: &Config, metadata: &mut Metadata) {
    let key = |name: &str| format!("{architecture}.{name}");
    let (rope, moe) = (&config.rope, &config.moe);
    if config.eos_token_ids.len() > 1 {
        metadata.insert(EOS_TOKEN_IDS, config.eos_token_ids.clone());
    }
    if moe.n_routed_experts > 0 {
        let gating = match moe.scoring_func {
            Scoring::Softmax => GATING_SOFTMAX,
            Scoring::Sigmoid => GATING_SIGMOID,
        };
        metadata.insert(key("expert_gating_func"), gating);
        metadata.insert(key("expert_weights_norm"), moe.norm_topk_prob);
        metadata.insert(key("expert_weights_scale"), moe.routed_scaling_factor);
    }
    metadata.insert(key("attention.layer_norm_rms_epsilon"), config.rms_norm_eps);
    metadata.insert(key("rope.dimension_count"), rope.dim as u32);
    metadata.insert(key("rope.freq_base"), rope.theta);
    if let Some(sliding) = &config.sliding_rope {
        metadata.insert(key("rope.dimension_count_swa"), sliding.dim as u32);
        metadata.insert(key("rope.freq_base_swa"), sliding.theta);
    }
    if let RopeScaling::Linear { factor } = &rope.scaling {
        metadata.insert(key("rope.scaling.type"), "linear");
        metadata.insert(key("rope.scaling.factor"), *factor);
    }
    if let RopeScaling::Yarn(yarn) = &rope.scaling {
        if let Some(factor) = yarn.attention_factor {
            metadata.insert("vaquita.rope.attention_factor", factor);
        }
        metadata.insert(key("rope.scaling.type"), "yarn");
        metadata.insert(key("rope.scaling.factor"), yarn.factor);
        let original = yarn.original_max_position_embeddings as u32;
        metadata.insert(key("rope.scaling.original_context_length"), original);
        metadata.insert(key("rope.scaling.yarn_log_multiplier"), 0.1 * yarn.mscale_all_dim);
        metadata.insert(key("rope.scaling.yarn_beta_fast"), yarn.beta_fast);
        metadata.insert(key("rope.scaling.yarn_beta_slow"), yarn.beta_slow);
        metadata.insert("vaquita.rope.mscale", yarn.mscale);
        metadata.insert("vaquita.rope.mscale_all_dim", yarn.mscale_all_dim);
        metadata.insert("vaquita.rope.truncate", yarn.truncate);
    }
    metadata.insert("vaquita.rope.interleaved", rope.interleaved);
    metadata.insert("vaquita.tie_word_embeddings", config.tie_word_embeddings);
}

/// Checks the assumptions of kernels and network that hold for any kind of attention.
pub fn check(config: Config) -> Result<Config, ConfigError> {
    let moe = &config.moe;
    if moe.n_routed_experts > 0 {
        if !moe.n_routed_experts.is_multiple_of(moe.n_group) {
            let allowed = format!("a divisor of the {} experts", moe.n_routed_experts);
            return Err(ConfigError::value("n_group", moe.n_group, allowed));
        }
        let reachable = match moe.topk_method {
            TopkMethod::Greedy => moe.n_routed_experts,
            _ => moe.n_routed_experts / moe.n_group * moe.topk_group,
        };
        if moe.topk_group > moe.n_group || moe.num_experts_per_tok > reachable {
            let allowed = format!("at most {reachable}, the experts of topk_group groups");
            return Err(ConfigError::value(
                "num_experts_per_tok",
                moe.num_experts_per_tok,
                allowed,
            ));
        }
    }
    let thetas = || [&config.rope].into_iter().chain(&config.sliding_rope).map(|rope| rope.theta);
    if config.rms_norm_eps < 0.0 || thetas().any(|theta| theta <= 1.0) {
        let theta = thetas().fold(f32::INFINITY, f32::min);
        let found = format!("{} and {theta}", config.rms_norm_eps);
        return Err(ConfigError::value(
            "rms_norm_eps and rope_theta",
            found,
            "at least 0, above 1",
        ));
    }
    let factor = match &config.rope.scaling {
        RopeScaling::None | RopeScaling::Proportional { .. } => 1.0,
        RopeScaling::Linear { factor } => *factor,
        RopeScaling::Yarn(yarn) => yarn.factor,
        RopeScaling::Llama3(llama) => {
            let found = llama.high_freq_factor - llama.low_freq_factor;
            if found <= 0.0 {
                return Err(ConfigError::value("high_freq_factor", found, "above low_freq_factor"));
            }
            llama.factor
        }
    };
    if factor < 1.0 {
        return Err(ConfigError::value("rope factor", factor, "at least 1"));
    }
    Ok(config)
}

/// Checks that a value is a multiple of `of`.
pub fn multiple(key: &str, value: usize, of: usize) -> Result<(), ConfigError> {
    match value % of {
        0 => Ok(()),
        _ => Err(ConfigError::value(key, value, format!("a multiple of {of}"))),
    }
}
