//! Instruction sets: the small operations that block types and kernels are written in.
//!
//! A kernel is a struct that implements [`Kernel`], generic over [`Isa`], whose operations work on
//! eight lanes. An instruction set is one file that implements `Isa`; [`scalar`] is the reference,
//! and the others return the same bits. [`Tier`] is the only place where an instruction set is
//! selected.

mod forward;
mod operations;
pub mod scalar;
mod tier;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use operations::{BIAS, EITHER_SIGN, MOST_TILES};
pub use operations::{Features, HighBits, Isa, Kernel, TileSimd};
pub use tier::Tier;
