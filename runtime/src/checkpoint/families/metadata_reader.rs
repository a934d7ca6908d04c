//! Reads configuration values from GGUF metadata, within limits.

use super::ConfigError;
use super::keys::{in_range, limits};
use crate::checkpoint::config::Scoring;
use crate::gguf::Metadata;

/// llama.cpp's codes for scoring functions.
const GATING_NONE: u32 = 0;
pub const GATING_SOFTMAX: u32 = 1;
pub const GATING_SIGMOID: u32 = 2;
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
}
