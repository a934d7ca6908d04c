//! Laguna (poolside): attention with an output gate, of which layers with a sliding window have more
//! heads and a rotary embedding of their own; experts selected by sigmoid scores.

use super::grouped::{
    ATTENTION_BIAS, Experts, Gate, Grouped, LLAMA_NAMES, Names, PLAIN, SIGMOID_EXPERTS,
    SharedExperts, SlidingPeriod,
};
use crate::checkpoint::config::QkNorm;

/// The family of Laguna XS and M.
pub static LAGUNA: Grouped = Grouped {
    name: "Laguna",
    model_types: &["laguna"],
    architecture: "laguna",
    moe: Some(Experts {
        shared: Some(SharedExperts {
            prefix: "mlp.shared_expert",
            gated: false,
            counted: false,
            optional: false,
        }),
        gguf_norm: false,
        ..SIGMOID_EXPERTS
    }),
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    qk_norm: QkNorm::PerHead,
    output_gate: Gate::Softplus,
    partial_rotary: true,
    sliding_rope: true,
    sliding_period: Some(SlidingPeriod { layers: 4, full_first: true }),
    names: Names { correction: "mlp.experts.e_score_correction_bias", ..LLAMA_NAMES },
    ..PLAIN
};
