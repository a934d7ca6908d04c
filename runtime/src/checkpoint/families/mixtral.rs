//! Mixtral (arXiv 2401.04088): Llama with experts, in GGUF under Llama's name.

use super::grouped::{Grouped, LLAMA_NAMES, Names, PLAIN, Pairs, SOFTMAX_EXPERTS, Window};

/// The family of Mixtral.
pub static MIXTRAL: Grouped = Grouped {
    name: "Mixtral",
    model_types: &["mixtral"],
    architecture: "llama",
    moe: Some(SOFTMAX_EXPERTS),
    window: Some(Window::All),
    pairs: Pairs::NeighboursInGguf,
    names: Names {
        router: "block_sparse_moe.gate",
        experts: "block_sparse_moe.experts",
        projections: ["w1", "w3", "w2"],
        ..LLAMA_NAMES
    },
    ..PLAIN
};
