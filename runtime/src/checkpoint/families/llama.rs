//! Llama 3 (arXiv 2407.21783) and models with its architecture, including the smallest and the
//! largest R1 distill.

use super::grouped::{ATTENTION_BIAS, BiasKey, Grouped, PLAIN, Pairs, Window};
use crate::checkpoint::config::Bias;

/// The family of Llama.
pub static LLAMA: Grouped = Grouped {
    name: "Llama",
    model_types: &["llama", "mistral"],
    architecture: "llama",
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    mlp_bias: BiasKey::Stated { key: "mlp_bias", otherwise: Bias::IfStored },
    window: Some(Window::All),
    pairs: Pairs::NeighboursInGguf,
    ..PLAIN
};
