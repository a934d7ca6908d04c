//! Qwen2 (arXiv 2407.10671), the R1 distills built on it, and Qwen2-MoE.

use super::grouped::{
    BiasKey, Experts, GATED_SHARED_EXPERT, Grouped, PLAIN, SOFTMAX_EXPERTS, Window,
};
use crate::checkpoint::config::Bias;

/// The family of Qwen2 and Qwen2.5.
pub static QWEN2: Grouped = Grouped {
    name: "Qwen2",
    model_types: &["qwen2"],
    architecture: "qwen2",
    qkv_bias: BiasKey::Fixed(Bias::Required),
    window: Some(Window::FromMaxWindowLayers),
    ..PLAIN
};

/// The family of Qwen1.5-MoE and Qwen2-57B-A14B: a shared expert with its own gate.
pub static QWEN2_MOE: Grouped = Grouped {
    name: "Qwen2-MoE",
    model_types: &["qwen2_moe"],
    architecture: "qwen2moe",
    moe: Some(Experts {
        norm_topk_prob: false,
        gguf_norm: false,
        divided_width: true,
        shared: Some(GATED_SHARED_EXPERT),
        ..SOFTMAX_EXPERTS
    }),
    qkv_bias: BiasKey::Stated { key: "qkv_bias", otherwise: Bias::Required },
    window: Some(Window::AlternateBeforeMaxWindowLayers),
    ..PLAIN
};
