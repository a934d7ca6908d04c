//! Qwen3 (arXiv 2505.09388), dense and with experts: norms of queries and keys instead of biases.

use super::grouped::{ATTENTION_BIAS, Experts, Grouped, PLAIN, SOFTMAX_EXPERTS, Window};
use crate::checkpoint::config::QkNorm;

/// The family of the dense Qwen3.
pub static QWEN3: Grouped = Grouped {
    name: "Qwen3",
    model_types: &["qwen3"],
    architecture: "qwen3",
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    window: Some(Window::FromMaxWindowLayers),
    qk_norm: QkNorm::PerHead,
    ..PLAIN
};

/// The family of Qwen3-30B-A3B and 235B-A22B.
pub static QWEN3_MOE: Grouped = Grouped {
    name: "Qwen3-MoE",
    model_types: &["qwen3_moe"],
    architecture: "qwen3moe",
    moe: Some(Experts { divided_width: true, ..SOFTMAX_EXPERTS }),
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    window: Some(Window::All),
    qk_norm: QkNorm::PerHead,
    ..PLAIN
};
