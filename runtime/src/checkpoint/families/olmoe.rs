//! OLMoE (arXiv 2409.02060): queries and keys are normalized over all heads together.

use super::grouped::{ATTENTION_BIAS, Experts, Grouped, PLAIN, SOFTMAX_EXPERTS};
use crate::checkpoint::config::QkNorm;

/// The family of OLMoE.
pub static OLMOE: Grouped = Grouped {
    name: "OLMoE",
    model_types: &["olmoe"],
    architecture: "olmoe",
    moe: Some(Experts { norm_topk_prob: false, gguf_norm: false, ..SOFTMAX_EXPERTS }),
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    clip_qkv: Some(["clip_qkv", "attention.clamp_kqv"]),
    qk_norm: QkNorm::Whole,
    ..PLAIN
};
