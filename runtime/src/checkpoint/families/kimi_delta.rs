//! Layers with Kimi Delta Attention of Kimi-Linear and Ling 3: configuration and tensors.

use super::ConfigError;
use super::keys::{MetadataReader, limits, multiple};
use crate::checkpoint::config::{
    AttentionConfig, Config, DecayGate, KimiDeltaConfig, LayerType, Recurrence,
};
use crate::checkpoint::spec::{Function, HfTensor, Role};
use crate::gguf::Metadata;

/// Longest convolution.
pub const TAPS: usize = 64;

/// How a family stores these layers.
#[derive(Clone, Copy, Debug)]
pub struct KimiDelta {
    /// Whether gates have projections of low rank, in two tensors each, instead of one.
    pub low_rank: bool,
    /// Function from `A_log` to the rates in GGUF.
    pub rates: Function,
}

impl KimiDelta {
    /// Names in GGUF, below the layer, and in checkpoints, below the mixer, with shape and role.
    /// `output` is that of the output projection in checkpoints.
    pub fn tensors(
        &self,
        config: &Config,
        output: &str,
        mut add: impl FnMut(&str, [usize; 2], Role, &dyn Fn(String) -> HfTensor, &str),
    ) {
        let Some(Recurrence::KimiDelta(delta)) = &config.recurrence else { return };
        let (hidden, inner) = (config.hidden_size, delta.inner_dim());
        let (heads, width) = (delta.num_heads, delta.head_dim);
        let whole = &HfTensor::Whole;
        let rates = |name| HfTensor::Applied(name, self.rates, Vec::new());
        for x in ["q", "k", "v"] {
            let (name, from) = (format!("attn_{x}.weight"), format!("{x}_proj.weight"));
            add(&name, [inner, hidden], Role::Attention, whole, &from);
        }
        for x in ["q", "k", "v"] {
            let (name, from) = (format!("ssm_conv1d_{x}.weight"), format!("{x}_conv1d.weight"));
            add(&name, [inner, delta.conv_kernel_dim], Role::Vector, whole, &from);
        }
        for gate in ["f", "g"] {
            let name = |part: &str| format!("ssm_{gate}_{part}.weight");
            let from = |part: &str| format!("{gate}{part}_proj.weight");
            let role = Role::Attention;
            if self.low_rank {
                add(&name("a"), [width, hidden], role, whole, &from("_a"));
                add(&name("b"), [inner, width], role, whole, &from("_b"));
            } else {
                add(&name("a"), [inner, hidden], role, whole, &from(""));
            }
        }
        add("ssm_beta.weight", [heads, hidden], Role::Router, whole, "b_proj.weight");
        add("ssm_a", [heads, 1], Role::Vector, &rates, "A_log");
        add("ssm_dt.bias", [1, inner], Role::Vector, whole, "dt_bias");
        add("ssm_norm.weight", [1, width], Role::Vector, whole, "o_norm.weight");
        let output = format!("{output}.weight");
        add("attn_output.weight", [hidden, inner], Role::Attention, whole, &output);
    }
}

/// Adds recurrent layers to a configuration with MLA in all layers.
pub fn with_layers(
    mut config: Config,
    delta: KimiDeltaConfig,
    layer_types: Vec<LayerType>,
) -> Result<Config, ConfigError> {
    let AttentionConfig::Mla(mla) = &mut config.attention else { return Ok(config) };
    multiple("head_dim", delta.head_dim, 8)?;
    // GGUF has one key for both.
    if delta.num_heads != mla.num_attention_heads {
        let allowed = format!("num_attention_heads, {}", mla.num_attention_heads);
        return Err(ConfigError::value("num_heads", delta.num_heads, allowed));
    }
    let state = delta.inner_dim().saturating_mul(delta.head_dim);
    if state > limits::STATE {
        let allowed = format!("at most {} numbers", limits::STATE);
        return Err(ConfigError::value("linear state", state, allowed));
    }
    if layer_types.len() != config.num_hidden_layers {
        let allowed = format!("{} layers", config.num_hidden_layers);
        return Err(ConfigError::value("layer_types", layer_types.len(), allowed));
    }
    let known = [LayerType::Full, LayerType::Recurrent];
    if let Some(other) = layer_types.iter().find(|ty| !known.contains(ty)) {
        let allowed = known.map(LayerType::name).join(", ");
        return Err(ConfigError::value("layer_types", other.name(), allowed));
    }
    mla.layer_types = layer_types;
    config.recurrence = Some(Recurrence::KimiDelta(delta));
    Ok(config)
}

/// Types of layers by their names.
pub fn layer_types(names: &[&str]) -> Result<Vec<LayerType>, ConfigError> {
    let ty = |name: &&str| {
        let allowed = || LayerType::NAMES.map(|(_, name)| name).join(", ");
        LayerType::from_name(name).ok_or_else(|| ConfigError::value("layer_types", name, allowed()))
    };
    names.iter().map(ty).collect()
}

/// Adds recurrent layers by llama.cpp's keys: those without key-value heads.
pub fn with_layers_from_gguf(
    config: Config,
    k: &MetadataReader,
    decay_gate: DecayGate,
) -> Result<Config, ConfigError> {
    let delta = KimiDeltaConfig {
        num_heads: config.attention.num_attention_heads(),
        head_dim: k.size("kda.head_dim", [1, limits::WIDTH])?,
        conv_kernel_dim: k.size("ssm.conv_kernel", [1, TAPS])?,
        decay_gate,
    };
    let key = k.key("attention.head_count_kv");
    let heads = k.metadata.u32s(&key)?.ok_or(ConfigError::Missing { key })?;
    let ty = |heads: &u32| if *heads == 0 { LayerType::Recurrent } else { LayerType::Full };
    let types = heads.iter().take(config.num_hidden_layers).map(ty).collect();
    with_layers(config, delta, types)
}

/// Writes llama.cpp's keys.
pub fn write_metadata(architecture: &str, config: &Config, metadata: &mut Metadata) {
    let Some(Recurrence::KimiDelta(delta)) = &config.recurrence else { return };
    let key = |name: &str| format!("{architecture}.{name}");
    metadata.insert(key("ssm.conv_kernel"), delta.conv_kernel_dim as u32);
    metadata.insert(key("kda.head_dim"), delta.head_dim as u32);
    if let DecayGate::Bounded(bound) = delta.decay_gate {
        metadata.insert(key("kda.safe_gate"), true);
        metadata.insert(key("kda.gate_lower_bound"), bound);
    }
}
