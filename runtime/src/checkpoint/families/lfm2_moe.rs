//! LFM2-MoE (arXiv 2511.23404): short convolutions in most layers, attention in the others.

use super::grouped::{Grouped, LLAMA_NAMES, Names, PLAIN, SIGMOID_EXPERTS};
use crate::checkpoint::config::QkNorm;

/// The family of LFM2-8B-A1B.
pub static LFM2_MOE: Grouped = Grouped {
    name: "LFM2-MoE",
    model_types: &["lfm2_moe"],
    architecture: "lfm2moe",
    moe: Some(SIGMOID_EXPERTS),
    qk_norm: QkNorm::PerHead,
    names: Names {
        mixer_norm: "operator_norm",
        ffn_norm: "ffn_norm",
        q_norm: "q_layernorm",
        output: "out_proj",
        mlp: "feed_forward",
        router: "feed_forward.gate",
        correction: "feed_forward.expert_bias",
        experts: "feed_forward.experts",
        projections: ["w1", "w3", "w2"],
        output_norm: "embedding_norm",
        gguf_output_norm: "token_embd_norm",
        ..LLAMA_NAMES
    },
    ..PLAIN
};
