//! MiniMax-M2: queries and keys are normalized over all heads together and half rotated; every layer
//! has experts, selected by sigmoid scores.

use super::grouped::{Grouped, LLAMA_NAMES, Names, PLAIN, SIGMOID_EXPERTS};
use crate::checkpoint::config::QkNorm;

/// The family of MiniMax-M2 and its successors with the same architecture.
pub static MINIMAX_M2: Grouped = Grouped {
    name: "MiniMax-M2",
    model_types: &["minimax_m2"],
    architecture: "minimax-m2",
    moe: Some(SIGMOID_EXPERTS),
    qk_norm: QkNorm::Whole,
    partial_rotary: true,
    names: Names {
        router: "block_sparse_moe.gate",
        correction: "block_sparse_moe.e_score_correction_bias",
        experts: "block_sparse_moe.experts",
        projections: ["w1", "w3", "w2"],
        ..LLAMA_NAMES
    },
    ..PLAIN
};
