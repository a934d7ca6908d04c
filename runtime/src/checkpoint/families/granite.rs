//! Granite 4 (IBM, 2025): Mamba-2 in most layers, attention without positions in the others, a
//! shared feed-forward beside the experts or in place of them, and constant multipliers.

use super::grouped::{
    ATTENTION_BIAS, ExpertLayout, Experts, Grouped, LLAMA_NAMES, Names, PLAIN, Pairs,
    SOFTMAX_EXPERTS, ScoreScale, SharedExperts,
};

/// The family of Granite 4, with and without Mamba layers and experts.
pub static GRANITE_4: Grouped = Grouped {
    name: "Granite 4",
    model_types: &["granitemoehybrid"],
    architecture: "granitehybrid",
    moe: Some(Experts {
        optional: true,
        shared: Some(SharedExperts { prefix: "shared_mlp", gated: false, counted: false }),
        layout: ExpertLayout::Joined([
            "block_sparse_moe.input_linear.weight",
            "block_sparse_moe.output_linear.weight",
        ]),
        ..SOFTMAX_EXPERTS
    }),
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    pairs: Pairs::NeighboursInGguf,
    optional_rope: true,
    mamba: true,
    multipliers: true,
    score_scale: ScoreScale::Stated,
    names: Names {
        mlp: "shared_mlp",
        router: "block_sparse_moe.router.layer",
        projections: ["input_linear", "input_linear", "output_linear"],
        ..LLAMA_NAMES
    },
    ..PLAIN
};
