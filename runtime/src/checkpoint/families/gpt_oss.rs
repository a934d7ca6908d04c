//! gpt-oss (arXiv 2508.10925): biases everywhere, attention sinks, a sliding window in every second
//! layer, and a clamped SwiGLU.

use super::grouped::{
    BiasKey, ExpertLayout, Experts, Grouped, LLAMA_NAMES, Names, PLAIN, SOFTMAX_EXPERTS,
};
use crate::checkpoint::config::{Activation, Bias, LayerType};

const ATTENTION_BIAS: BiasKey =
    BiasKey::Stated { key: "attention_bias", otherwise: Bias::Required };

/// The family of gpt-oss-20b and 120b.
pub static GPT_OSS: Grouped = Grouped {
    name: "gpt-oss",
    model_types: &["gpt_oss"],
    architecture: "gpt-oss",
    moe: Some(Experts { bias: true, layout: ExpertLayout::Stacked, ..SOFTMAX_EXPERTS }),
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    sinks: true,
    truncated_yarn: false,
    layer_type: Some(|layer| if layer % 2 == 0 { LayerType::Sliding } else { LayerType::Full }),
    activation: Activation::ClampedSwiGlu { alpha: 1.702, limit: 7.0 },
    names: Names { gguf_ffn_norm: "post_attention_norm", router: "mlp.router", ..LLAMA_NAMES },
    ..PLAIN
};
