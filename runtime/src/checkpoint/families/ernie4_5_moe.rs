//! ERNIE 4.5 (Baidu, technical report of June 2025): softmax scores, whose correction affects the
//! choice of experts as in DeepSeek-V3.

use super::grouped::{
    BiasKey, Experts, Grouped, LLAMA_NAMES, Names, PLAIN, Pairs, SOFTMAX_EXPERTS, SharedExperts,
};
use crate::checkpoint::config::{Bias, TopkMethod};

const USE_BIAS: BiasKey = BiasKey::Stated { key: "use_bias", otherwise: Bias::IfStored };

/// The family of ERNIE-4.5-21B-A3B and 300B-A47B.
pub static ERNIE_4_5_MOE: Grouped = Grouped {
    name: "ERNIE-4.5-MoE",
    model_types: &["ernie4_5_moe"],
    architecture: "ernie4_5-moe",
    moe: Some(Experts {
        topk_method: TopkMethod::NoauxTc,
        shared: Some(SharedExperts {
            prefix: "mlp.shared_experts",
            gated: false,
            counted: true,
            optional: false,
        }),
        ..SOFTMAX_EXPERTS
    }),
    qkv_bias: USE_BIAS,
    output_bias: USE_BIAS,
    mlp_bias: USE_BIAS,
    pairs: Pairs::Neighbours,
    expert_interval: true,
    names: Names { correction: "mlp.moe_statics.e_score_correction_bias", ..LLAMA_NAMES },
    ..PLAIN
};
