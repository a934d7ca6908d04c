//! SmolLM3: Llama with tied embeddings, in which every fourth layer is not rotated (arXiv
//! 2501.18795).

use super::grouped::{ATTENTION_BIAS, BiasKey, Grouped, PLAIN, Pairs};
use crate::checkpoint::config::Bias;

/// The family of SmolLM3-3B.
pub static SMOLLM3: Grouped = Grouped {
    name: "SmolLM3",
    model_types: &["smollm3"],
    architecture: "smollm3",
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    mlp_bias: BiasKey::Stated { key: "mlp_bias", otherwise: Bias::IfStored },
    pairs: Pairs::NeighboursInGguf,
    no_rope_interval: Some(4),
    ..PLAIN
};
