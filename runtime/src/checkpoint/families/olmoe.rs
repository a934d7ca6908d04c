//! OLMoE (arXiv 2409.02060): queries and keys are normalized over all heads together.

use super::grouped::{Experts, Grouped, PLAIN, SOFTMAX_EXPERTS};
use crate::checkpoint::config::QkNorm;

/// The family of OLMoE.
pub static OLMOE: Grouped = Grouped {
    name: "OLMoE",
    model_types: &["olmoe"],
    architecture: "olmoe",
    moe: Some(Experts { norm_topk_prob: false, ..SOFTMAX_EXPERTS }),
    qk_norm: QkNorm::Whole,
    ..PLAIN
};
