//! Selection of the instruction set.

#[cfg(target_arch = "aarch64")]
use super::aarch64::{dotprod, i8mm, neon};
#[cfg(target_arch = "x86_64")]
use super::x86_64::{avx2, avx512, vnni};
use super::{Kernel, scalar};

/// The instruction set in use.
#[derive(Clone, Copy, Debug)]
pub enum Tier {
    /// Plain Rust, the reference.
    Scalar(scalar::Scalar),
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    /// AVX2 with AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(vnni::AvxVnni),
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    /// NEON of ARMv8.0.
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    /// NEON with the dot products of ARMv8.2.
    #[cfg(target_arch = "aarch64")]
    Dotprod(dotprod::Dotprod),
    /// NEON with the matrix products of ARMv8.6 as well.
    #[cfg(target_arch = "aarch64")]
    I8mm(i8mm::I8mm),
}

impl Tier {
    /// All tiers that this CPU supports, slowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut tiers = vec![Self::Scalar(scalar::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            tiers.extend(avx2::Avx2::detect().map(Self::Avx2));
            tiers.extend(vnni::AvxVnni::detect().map(Self::AvxVnni));
            tiers.extend(avx512::Avx512::detect().map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        {
            tiers.extend(neon::Neon::detect().map(Self::Neon));
            tiers.extend(dotprod::Dotprod::detect().map(Self::Dotprod));
            tiers.extend(i8mm::I8mm::detect().map(Self::I8mm));
        }
        tiers
    }

    /// The fastest tier that this CPU supports.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar(scalar::Scalar))
    }

    /// The tier with that name, if this CPU supports it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|tier| tier.name() == name)
    }

    /// Name, as used by `--isa`.
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
