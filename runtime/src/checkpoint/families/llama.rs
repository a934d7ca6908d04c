//! Llama 3 (arXiv 2407.21783) and models with its architecture, including the smallest and the
//! largest R1 distill; and Mistral (arXiv 2310.06825), which never has biases, in GGUF under Llama's
//! name.

use super::grouped::{ATTENTION_BIAS, BiasKey, Grouped, PLAIN, Pairs, Window};
use crate::checkpoint::config::Bias;

/// The family of Llama.
pub static LLAMA: Grouped = Grouped {
    name: "Llama",
    model_types: &["llama"],
    architecture: "llama",
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    mlp_bias: BiasKey::Stated { key: "mlp_bias", otherwise: Bias::IfStored },
    window: Some(Window::All),
    pairs: Pairs::NeighboursInGguf,
    ..PLAIN
};

/// The family of Mistral 7B, Nemo, Small and Large.
pub static MISTRAL: Grouped = Grouped {
    name: "Mistral",
    model_types: &["mistral"],
    architecture: "llama",
    window: Some(Window::All),
    pairs: Pairs::NeighboursInGguf,
    ..PLAIN
};
