//! Qwen3-Next, and Qwen3.5 and 3.6, dense and with experts: Gated DeltaNet in three of four layers,
//! attention with an output gate in the others, norms with weights around zero.

use super::gated_delta::DeltaLayout;
use super::grouped::{
    ATTENTION_BIAS, Experts, GATED_SHARED_EXPERT, Gate, Grouped, LLAMA_NAMES, Mtp, Names, PLAIN,
    SOFTMAX_EXPERTS,
};
use crate::checkpoint::config::QkNorm;

const EXPERTS: Experts =
    Experts { divided_width: true, shared: Some(GATED_SHARED_EXPERT), ..SOFTMAX_EXPERTS };

const NEXT: Grouped = Grouped {
    name: "Qwen3-Next",
    model_types: &["qwen3_next"],
    architecture: "qwen3next",
    moe: Some(EXPERTS),
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    qk_norm: QkNorm::PerHead,
    output_gate: Gate::SigmoidInQuery,
    partial_rotary: true,
    delta: Some(DeltaLayout::Joined),
    zero_centred: true,
    mtp: Mtp::Module,
    names: Names { gguf_ffn_norm: "post_attention_norm", ..LLAMA_NAMES },
    ..PLAIN
};

/// The family of Qwen3-Next-80B-A3B and Qwen3-Coder-Next.
pub static QWEN3_NEXT: Grouped = NEXT;

/// The family of Qwen3.5-35B-A3B, Qwen3.6-35B-A3B and their larger siblings.
pub static QWEN3_5_MOE: Grouped = Grouped {
    name: "Qwen3.5-MoE",
    model_types: &["qwen3_5_moe_text", "qwen3_5_moe"],
    architecture: "qwen35moe",
    delta: Some(DeltaLayout::Separate),
    ..NEXT
};

/// The family of the dense Qwen3.5, 3.6 and 3.8.
pub static QWEN3_5: Grouped = Grouped {
    name: "Qwen3.5",
    model_types: &["qwen3_5_text", "qwen3_5"],
    architecture: "qwen35",
    moe: None,
    delta: Some(DeltaLayout::Separate),
    ..NEXT
};
