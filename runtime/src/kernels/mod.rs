//! The runtime's arithmetic, each piece written once.
//!
//! A kernel is a struct that implements [`Kernel`]: generic over [`Isa`], eight lanes of a few small
//! operations. An instruction set is one file that implements `Isa`; `scalar` is the definition, and
//! the others give the same bits. [`Tier`] is the one place where the choice is made.
//!
//! The contract (docs/decisions.md, "One answer"): integer products of a group are exact; float sums
//! run in group order in the lane of their row, or over eight lanes with one fixed tree; every fused
//! multiply-add is explicit; nothing depends on how work is divided among threads or tokens.

pub mod activations;
pub mod attention;
pub mod cached;
mod coded;
mod codes;
mod disjoint;
mod forward;
mod ggml;
mod isa;
pub mod matmul;
mod plain;
mod scalar;
pub mod vector;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod dotprod;
#[cfg(target_arch = "aarch64")]
mod i8mm;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub use activations::Activations;
pub use isa::{Isa, Kernel, Needs, Wide};
pub use matmul::{Product, matmul, matmul_all, matmul_per_head};

/// The instruction set in use.
#[derive(Clone, Copy, Debug)]
pub enum Tier {
    /// Plain Rust: the definition.
    Scalar(scalar::Scalar),
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    /// AVX2 with AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(vnni::AvxVnni),
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(vnni::Avx512),
    /// NEON of ARMv8.0.
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    /// NEON with the dot products of ARMv8.2.
    #[cfg(target_arch = "aarch64")]
    Dotprod(dotprod::Dotprod),
    /// The same with the matrix products of ARMv8.6.
    #[cfg(target_arch = "aarch64")]
    I8mm(i8mm::I8mm),
}

impl Tier {
    /// Every tier this CPU has, slowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut tiers = vec![Self::Scalar(scalar::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            tiers.extend(avx2::Avx2::detect().map(Self::Avx2));
            tiers.extend(vnni::AvxVnni::detect().map(Self::AvxVnni));
            tiers.extend(vnni::Avx512::detect().map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        {
            tiers.extend(neon::Neon::detect().map(Self::Neon));
            tiers.extend(dotprod::Dotprod::detect().map(Self::Dotprod));
            tiers.extend(i8mm::I8mm::detect().map(Self::I8mm));
        }
        tiers
    }

    /// The fastest tier this CPU has.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar(scalar::Scalar))
    }

    /// The tier of that name, if this CPU has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|tier| tier.name() == name)
    }

    /// Its name, as `--isa` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Self::Dotprod(_) => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Self::I8mm(_) => "i8mm",
        }
    }

    /// Runs a kernel on this tier.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Scalar(isa) => kernel.run(isa),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => isa.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(isa) => isa.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(isa) => isa.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(isa) => isa.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Dotprod(isa) => isa.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::I8mm(isa) => isa.run(kernel),
        }
    }
}
