//! Granite (IBM): Llama or Mixtral with constant multipliers, from Granite 4 on also Mamba-2 in most
//! layers, attention without positions in the others, and a shared feed-forward beside the experts
//! or in place of them.

use super::grouped::{
    ATTENTION_BIAS, BiasKey, ExpertLayout, Experts, Grouped, LLAMA_NAMES, Names, PLAIN, Pairs,
    SOFTMAX_EXPERTS, ScoreScale, SharedExperts,
};
use crate::checkpoint::config::Bias;

/// The family of Granite 4, with and without Mamba layers and experts.
pub static GRANITE_4: Grouped = Grouped {
    name: "Granite 4",
    model_types: &["granitemoehybrid"],
    architecture: "granitehybrid",
    moe: Some(Experts {
        optional: true,
        shared: Some(SharedExperts { optional: false, ..SHARED }),
        ..EXPERTS
    }),
    optional_rope: true,
    mamba: true,
    names: NAMES,
    ..MULTIPLIED
};

/// The family of Granite 3 without experts, and of Granite 4.1.
pub static GRANITE: Grouped = Grouped {
    name: "Granite 3",
    model_types: &["granite"],
    architecture: "granite",
    mlp_bias: BiasKey::Stated { key: "mlp_bias", otherwise: Bias::IfStored },
    optional_rope: true,
    ..MULTIPLIED
};

/// The family of Granite 3 with experts, and shared ones in some checkpoints.
pub static GRANITE_MOE: Grouped = Grouped {
    name: "Granite 3 MoE",
    model_types: &["granitemoe", "granitemoeshared"],
    architecture: "granitemoe",
    moe: Some(EXPERTS),
    names: NAMES,
    ..MULTIPLIED
};

/// What all have in common.
const MULTIPLIED: Grouped = Grouped {
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    pairs: Pairs::NeighboursInGguf,
    multipliers: true,
    score_scale: ScoreScale::Stated,
    ..PLAIN
};

const SHARED: SharedExperts =
    SharedExperts { prefix: "shared_mlp", gated: false, counted: false, optional: true };

const EXPERTS: Experts = Experts {
    shared: Some(SHARED),
    layout: ExpertLayout::Joined([
        "block_sparse_moe.input_linear.weight",
        "block_sparse_moe.output_linear.weight",
    ]),
    ..SOFTMAX_EXPERTS
};

const NAMES: Names = Names {
    mlp: "shared_mlp",
    router: "block_sparse_moe.router.layer",
    projections: ["input_linear", "input_linear", "output_linear"],
    ..LLAMA_NAMES
};
