//! Arithmetic of the runtime, each kernel written once over the instruction sets of [`crate::isa`].
//!
//! The contract (docs/decisions.md, "One answer"): integer products within a group are exact; float
//! sums run in group order in the lane of their row, or over eight lanes with one fixed reduction
//! tree; every fused multiply-add is explicit; nothing depends on how work is divided among threads
//! or tokens.

pub mod activations;
pub mod attention;
pub mod cached;
mod coded;
mod codes;
pub mod decay;
pub mod delta;
mod disjoint;
mod ggml;
mod ggml_grid;
mod ggml_row;
pub mod matmul;
mod plain;
pub mod rotary;
pub mod scan;
pub mod ssd;
pub mod vector;

pub use activations::Activations;
pub use matmul::{Product, matmul, matmul_all, matmul_per_head};
