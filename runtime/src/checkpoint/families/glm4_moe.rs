//! GLM-4.5, 4.6 and 4.7 (arXiv 2508.06471): DeepSeek-V3's experts behind grouped-query attention,
//! of which half of each head is rotated.

use super::grouped::{
    ATTENTION_BIAS, Experts, Grouped, LLAMA_NAMES, Mtp, Names, PLAIN, SIGMOID_EXPERTS,
    SharedExperts,
};
use crate::checkpoint::config::QkNorm;

/// The family of GLM-4.5, GLM-4.5-Air, GLM-4.6 and GLM-4.7.
pub static GLM4_MOE: Grouped = Grouped {
    name: "GLM-4-MoE",
    model_types: &["glm4_moe"],
    architecture: "glm4moe",
    moe: Some(Experts {
        shared: Some(SharedExperts {
            prefix: "mlp.shared_experts",
            gated: false,
            counted: true,
            optional: false,
        }),
        gguf_norm: false,
        ..SIGMOID_EXPERTS
    }),
    qkv_bias: ATTENTION_BIAS,
    qk_norm: QkNorm::PerHeadIfStored,
    partial_rotary: true,
    mtp: Mtp::Layers,
    names: Names {
        gguf_ffn_norm: "post_attention_norm",
        correction: "mlp.gate.e_score_correction_bias",
        ..LLAMA_NAMES
    },
    ..PLAIN
};
