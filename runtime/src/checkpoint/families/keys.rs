//! Keys and limits that all families share, and the readers of `config.json` and of GGUF metadata.

use std::collections::HashSet;

use super::ConfigError;
pub use super::config_reader::ConfigReader;
use super::metadata_reader::{GATING_SIGMOID, GATING_SOFTMAX};
pub use super::metadata_reader::{MULTIPLIERS, MetadataReader};
use crate::checkpoint::config::{Config, RopeScaling, Scoring, TopkMethod};
use crate::gguf::Metadata;

/// Key of all tokens that end an answer, for models with several (Llama 3).
const EOS_TOKEN_IDS: &str = "vaquita.eos_token_ids";

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

/// A size within a range.
pub fn in_range(
    key: &str,
    size: Option<usize>,
    found: impl ToString,
    [low, high]: [usize; 2],
) -> Result<usize, ConfigError> {
    size.filter(|size| (low..=high).contains(size))
        .ok_or_else(|| ConfigError::value(key, found, format!("{low} to {high}")))
}
