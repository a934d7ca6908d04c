//! Kimi-Linear (arXiv 2510.26692): Kimi Delta Attention, MLA without positions in every fourth
//! layer, and DeepSeek-V3's experts.

use serde_json::Value as Json;

use super::keys::{ConfigReader, MetadataReader, limits};
use super::kimi_delta::{self, KimiDelta, TAPS};
use super::mla_moe::{self, DEEPSEEK_NAMES, Layout, Names};
use super::{ConfigError, Family, mla_tensors};
use crate::checkpoint::config::{
    Config, DecayGate, KimiDeltaConfig, LayerType, Scoring, TopkMethod,
};
use crate::checkpoint::spec::{ExpertId, ExpertSpec, Function, LayerId, TensorSpec};
use crate::gguf::Metadata;

const LAYOUT: Layout = Layout {
    architecture: "kimi-linear",
    rotates: false,
    output_gate: false,
    gguf_norm: true,
    delta: Some(KimiDelta { low_rank: true, rates: Function::NegativeExp }),
    names: Names { moe: "block_sparse_moe", experts: ["w1", "w3", "w2"], ..DEEPSEEK_NAMES },
};

/// The family of Kimi-Linear-48B-A3B.
#[derive(Debug)]
pub struct KimiLinear;

impl Family for KimiLinear {
    fn name(&self) -> &'static str {
        "Kimi-Linear"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["kimi_linear"]
    }

    fn architecture(&self) -> &'static str {
        LAYOUT.architecture
    }

    fn matches_gguf(&self, _: &Metadata, _: bool) -> bool {
        true
    }

    fn config_from_hf(&'static self, json: &Json) -> Result<Config, ConfigError> {
        let r = ConfigReader(json);
        r.expect("moe_router_activation_func", "sigmoid")?;
        r.expect_bool("mla_use_nope", true)?;
        let (scoring, method) = (Scoring::Sigmoid, TopkMethod::NoauxTc);
        let config = mla_moe::config_from_hf(self, &LAYOUT, json, scoring, method)?;
        // transformers' names, and those of the published configuration.
        let own = r.get("linear_attn_config").map(ConfigReader);
        let size = |key: &str, published: &str, range| match &own {
            Some(own) if own.get(published).is_some() => own.size(published, range),
            _ => r.size(key, range),
        };
        let delta = KimiDeltaConfig {
            num_heads: size("linear_num_heads", "num_heads", [1, limits::HEADS])?,
            head_dim: size("linear_head_dim", "head_dim", [1, limits::WIDTH])?,
            conv_kernel_dim: size("linear_conv_kernel_dim", "short_conv_kernel_size", [1, TAPS])?,
            decay_gate: DecayGate::Softplus,
        };
        let layers = config.num_hidden_layers;
        let types = match (r.strings("layer_types")?, own) {
            (Some(names), _) => kimi_delta::layer_types(&names)?,
            (None, Some(own)) => published_types(&own, layers)?,
            (None, None) => (0..layers).map(default_type).collect(),
        };
        kimi_delta::with_layers(config, delta, types)
    }

    fn config_from_gguf(&'static self, metadata: &Metadata) -> Result<Config, ConfigError> {
        let (scoring, method) = (Scoring::Sigmoid, TopkMethod::NoauxTc);
        let config = mla_moe::config_from_gguf(self, &LAYOUT, metadata, scoring, method)?;
        let k = MetadataReader { metadata, architecture: LAYOUT.architecture };
        kimi_delta::with_layers_from_gguf(config, &k, DecayGate::Softplus)
    }

    fn write_metadata(&self, config: &Config, metadata: &mut Metadata) {
        mla_moe::write_metadata(&LAYOUT, config, metadata);
        kimi_delta::write_metadata(LAYOUT.architecture, config, metadata);
    }

    fn tensors(&self, config: &Config) -> Vec<TensorSpec> {
        mla_tensors::tensors(&LAYOUT, config)
    }

    fn expert(&self, config: &Config, layer: LayerId, expert: ExpertId) -> ExpertSpec {
        mla_tensors::expert(&LAYOUT, config, layer, expert)
    }
}

/// Types by the lists of layers, which count from 1.
fn published_types(own: &ConfigReader, layers: usize) -> Result<Vec<LayerType>, ConfigError> {
    let list = |key: &str| {
        let missing = || ConfigError::Missing { key: format!("linear_attn_config.{key}") };
        own.indices(key, layers + 1)?.ok_or_else(missing)
    };
    let (full, recurrent) = (list("full_attn_layers")?, list("kda_layers")?);
    let mut types = vec![None; layers + 1];
    let all = full.iter().map(|layer| (layer, LayerType::Full));
    for (layer, ty) in all.chain(recurrent.iter().map(|layer| (layer, LayerType::Recurrent))) {
        types[*layer] = Some(ty);
    }
    let types: Option<Vec<LayerType>> = types.into_iter().skip(1).collect();
    let found = format!("{full:?} and {recurrent:?}");
    let key = "linear_attn_config: full_attn_layers and kda_layers";
    types.ok_or_else(|| ConfigError::value(key, found, format!("together 1 to {layers}")))
}

/// transformers' default.
fn default_type(layer: usize) -> LayerType {
    match layer > 0 && layer.is_multiple_of(4) {
        true => LayerType::Full,
        false => LayerType::Recurrent,
    }
}
