//! AVX2 with the dot products of VNNI: four unsigned bytes times four signed bytes, accumulated
//! exactly in 32 bits.
//!
//! The instructions have two encodings: AVX-512's, with more registers, and AVX-VNNI's, for CPUs
//! without AVX-512. In both, vectors have 256 bits, the eight rows of a tile. All other operations
//! are [`Avx2`]'s, except that AVX-512 multiplies coded weights two tiles at a time.

use std::arch::x86_64::*;

use super::avx2::{Avx2, four, half_sums, magnitudes};
use crate::isa::forward::forward;
use crate::isa::{HighBits, Isa, Kernel, MOST_TILES, TileSimd};

macro_rules! vnni {
    (
        $(#[$doc:meta])* $tier:ident, tokens $tokens:literal, wide $wide:ident, dot $dpbusd:ident,
        has $has:expr, features $features:literal
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $tier(Avx2);

        impl $tier {
            /// Detects CPU support.
            pub fn detect() -> Option<Self> {
                Avx2::detect().filter(|_| $has).map(Self)
            }

            /// Runs a kernel compiled for these instructions.
            pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
                #[target_feature(enable = $features)]
                fn compiled<K: Kernel>(isa: $tier, kernel: K) -> K::Output {
                    kernel.run(isa)
                }
                // SAFETY: `self` exists only if `detect` found the instructions.
                unsafe { compiled(self, kernel) }
            }
        }

        impl TileSimd for $tier {
            const TILES: usize = 1;
            type F32 = __m256;
            type I32 = __m256i;
            type U8 = __m256i;
            type Table = __m256i;

            const TABLE_BIAS: i32 = Avx2::TABLE_BIAS;
            const BYTE_BIAS: i32 = 2 * $crate::isa::BIAS;
            const TOKENS: usize = $tokens;

            forward! {
                fn splat(x: f32) -> __m256;
                fn load_tiles(from: [&[f32; 8]; MOST_TILES]) -> __m256;
                fn load_f16_tiles(from: [&[u8; 16]; MOST_TILES]) -> __m256;
                fn load_scaled_tiles(
                    bytes: [&[u8; 8]; MOST_TILES],
                    scales: [&[u8; 2]; MOST_TILES]
                ) -> __m256;
                fn store_tiles(x: __m256, to: &mut [f32]) -> ();
                fn mul(a: __m256, b: __m256) -> __m256;
                fn fma(a: __m256, b: __m256, c: __m256) -> __m256;
                fn to_f32(a: __m256i) -> __m256;
                fn splat_i32(x: i32) -> __m256i;
                fn load_bytes_tiles(from: [&[u8; 32]; MOST_TILES]) -> __m256i;
                fn shift_and<const SHIFT: i32>(a: __m256i, mask: u8) -> __m256i;
                fn insert<const SHIFT: i32>(a: __m256i, b: __m256i, mask: u8) -> __m256i;
                fn table(entries: &[i8; 16]) -> __m256i;
                fn lookup(table: __m256i, codes: __m256i) -> __m256i;
                fn scales_tiles(bytes: [&[u8; 8]; MOST_TILES]) -> __m256;
            }

            #[inline(always)]
            fn load_weights_tiles(self, [from, _]: [&[u8; 32]; MOST_TILES]) -> __m256i {
                // SAFETY: the receiver is proof that the CPU has AVX2.
                unsafe { _mm256_xor_si256(self.load_bytes(from), _mm256_set1_epi8(-128)) }
            }

            #[inline(always)]
            fn dot4_table(self, acc: __m256i, weights: __m256i, a: &[i8; 4]) -> __m256i {
                // SAFETY: the receiver is proof that the CPU has these instructions.
                unsafe { $dpbusd(acc, weights, four(a)) }
            }

            #[inline(always)]
            fn dot4_bytes(self, acc: __m256i, weights: __m256i, a: &[i8; 4]) -> __m256i {
                self.dot4_table(acc, weights, a)
            }
        }

        impl Isa for $tier {
            type Wide = $wide;

            #[inline(always)]
            fn wide(self) -> $wide {
                self.into()
            }

            forward! {
                fn load_bf16(from: &[u8; 16]) -> __m256;
                fn add(a: __m256, b: __m256) -> __m256;
                fn sub(a: __m256, b: __m256) -> __m256;
                fn div(a: __m256, b: __m256) -> __m256;
                fn max(a: __m256, b: __m256) -> __m256;
                fn min(a: __m256, b: __m256) -> __m256;
                fn abs(a: __m256) -> __m256;
                fn round(a: __m256) -> __m256i;
                fn exp2i(n: __m256i) -> __m256;
                fn store_i8(a: __m256i, to: &mut [i8; 8]) -> ();
                fn sum(a: __m256) -> f32;
                fn sums(a: [__m256; 8]) -> __m256;
                fn max_lane(a: __m256) -> f32;
                fn prefetch<const AHEAD: usize>(at: *const u8) -> ();
                fn store_bytes(a: __m256i, to: &mut [u8; 32]) -> ();
                fn transpose(rows: [&[u8; 16]; 8]) -> [__m256i; 4];
                fn load_halves(rows: [&[u8; 2]; 8]) -> __m256;
                fn byte<const AT: i32>(a: __m256i) -> __m256i;
                fn bits(a: __m256i, at: u32, count: u32) -> __m256i;
                fn join(low: __m256i, high: __m256i, by: u32) -> __m256i;
                fn lanes(a: __m256i) -> [i32; 8];
                fn spread<const AT: i32>(a: __m256i) -> __m256i;
                fn transpose_eights(rows: [&[u8; 8]; 8]) -> [__m256i; 2];
                fn load_fours(rows: [&[u8; 4]; 8]) -> __m256i;
                fn repeat<const AT: i32>(a: __m256i) -> __m256i;
                fn twos<const AT: i32>(a: __m256i) -> __m256i;
                fn sevens(a: __m256i) -> __m256i;
                fn splat_bytes(x: u8) -> __m256i;
                fn add_bytes(a: __m256i, b: __m256i) -> __m256i;
                fn and_bytes(a: __m256i, b: __m256i) -> __m256i;
                fn negate_where(a: __m256i, mask: __m256i) -> __m256i;
                fn at_least(a: __m256i, least: u8) -> __m256i;
                fn field(a: __m256i, at: u32, mask: u8) -> __m256i;
                fn append<const SHIFT: i32>(low: __m256i, high: __m256i) -> __m256i;
                fn nibbles(from: &[u8; 16]) -> __m256i;
                fn masks(bits: &[u8; 4]) -> __m256i;
                fn load_eights(from: [&[u8; 8]; 4]) -> __m256i;
                fn odd_bytes(from: &[u8; 64]) -> __m256i;
                fn extended(low: &[u8; 16], high: &[u8; 16], bits: &HighBits) -> [u16; 16];
                fn transpose_lanes(rows: [__m256; 8]) -> [__m256; 8];
                fn quarters(from: &[u8; 8]) -> __m256i;
            }

            #[inline(always)]
            fn dot_groups(
                self,
                codes: [__m256i; 8],
                signs: Option<&[[u8; 4]; 8]>,
                a: &[[[i8; 4]; 8]; 8],
            ) -> [__m256; 2] {
                // SAFETY: the receiver is proof that the CPU has these instructions.
                unsafe {
                    let (magnitudes, a) = magnitudes(codes, signs, a);
                    let mut products = magnitudes;
                    for (products, a) in products.iter_mut().zip(a) {
                        *products = $dpbusd(_mm256_setzero_si256(), *products, a);
                    }
                    let [first, second] = half_sums::<{ $crate::isa::EITHER_SIGN }>(products);
                    [_mm256_cvtepi32_ps(first), _mm256_cvtepi32_ps(second)]
                }
            }

            #[inline(always)]
            fn dot_row_halves<const MOST: u8>(
                self,
                rows: [__m256i; 8],
                a: &[[i8; 4]; 8],
            ) -> [__m256i; 2] {
                // SAFETY: the receiver is proof that the CPU has these instructions, and what is
                // loaded is behind a reference.
                unsafe {
                    let a = _mm256_loadu_si256(a.as_ptr().cast());
                    let mut products = rows;
                    for row in &mut products {
                        let (codes, a) = if MOST == $crate::isa::EITHER_SIGN {
                            (_mm256_abs_epi8(*row), _mm256_sign_epi8(a, *row))
                        } else {
                            (*row, a)
                        };
                        *row = $dpbusd(_mm256_setzero_si256(), codes, a);
                    }
                    half_sums::<{ $crate::isa::EITHER_SIGN }>(products)
                }
            }
        }
    };
}

vnni! {
    /// AVX-VNNI: Alder Lake and later, Zen 5.
    AvxVnni, tokens 4, wide AvxVnni, dot _mm256_dpbusd_avx_epi32,
    has is_x86_feature_detected!("avxvnni"),
    features "avx2,fma,f16c,avxvnni"
}

pub(super) use vnni;
