//! Llama 3 (arXiv 2407.21783) and what is built like it, the smaller and the larger R1 distill among them.

use super::grouped::{Grouped, PLAIN};

/// The family of Llama.
pub static LLAMA: Grouped = Grouped {
    name: "Llama",
    model_types: &["llama"],
    architecture: "llama",
    qkv_bias: None,
    paired_rows: true,
    ..PLAIN
};
