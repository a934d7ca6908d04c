//! Llama 3 (arXiv 2407.21783) and models with its architecture, including the smallest and the
//! largest R1 distill.

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
