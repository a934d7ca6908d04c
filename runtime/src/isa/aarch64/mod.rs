//! Instruction sets of 64-bit ARM.

pub mod dotprod;
pub mod i8mm;
pub mod neon;
