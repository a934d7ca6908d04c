//! NEON with the matrix products of ARMv8.6 (Neoverse V1, Cortex-X2, Apple M2): two rows with two
//! tokens per instruction, for prompts. They do not help with a single token.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::dotprod::Dotprod;
use super::neon::{F32x8, I32x8, U8x32, firsts, neon, seconds};
use crate::isa::forward::forward;
use crate::isa::{Features, Isa, Kernel, MOST_TILES, TileSimd};

/// Proof that this CPU has NEON, its dot products and its matrix products.
#[derive(Clone, Copy, Debug)]
pub struct I8mm(Dotprod);

impl I8mm {
    /// Detects CPU support.
    pub fn detect() -> Option<Self> {
        Dotprod::detect().filter(|_| is_aarch64_feature_detected!("i8mm")).map(Self)
    }

    /// Runs a kernel compiled for these instructions.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod,i8mm")]
        fn compiled<K: Kernel>(isa: I8mm, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        if !matches!(K::FEATURES, Features::Products) {
            return self.0.run(kernel);
        }
        // SAFETY: `self` exists only if `detect` found the instructions.
        unsafe { compiled(self, kernel) }
    }
}

/// `acc + a b^T` for matrices of two rows of eight signed bytes: `[a0 b0, a0 b1, a1 b0, a1 b1]`.
///
/// # Safety
/// The CPU must have the matrix products of ARMv8.6.
#[inline(always)]
unsafe fn smmla(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the caller guarantees the instruction, whose intrinsic is not stable yet.
    unsafe {
        asm!("smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b", acc = inout(vreg) acc,
            a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// A group's products of four rows with two tokens, by token. `x` alternates eight activations of
/// the first token and eight of the second.
///
/// # Safety
/// See [`smmla`].
#[inline(always)]
unsafe fn four_rows(weights: [uint8x16_t; 8], x: &[int8x16_t; 4]) -> [int32x4_t; 2] {
    // SAFETY: the caller guarantees the instructions.
    unsafe {
        let (mut upper, mut lower) = (vdupq_n_s32(0), vdupq_n_s32(0));
        for (s, x) in x.iter().enumerate() {
            // Four weights of each row and the next four, as eight weights of two rows each.
            let first = vreinterpretq_s32_u8(weights[2 * s]);
            let second = vreinterpretq_s32_u8(weights[2 * s + 1]);
            upper = smmla(upper, vreinterpretq_s8_s32(vzip1q_s32(first, second)), *x);
            lower = smmla(lower, vreinterpretq_s8_s32(vzip2q_s32(first, second)), *x);
        }
        [vuzp1q_s32(upper, lower), vuzp2q_s32(upper, lower)]
    }
}

impl TileSimd for I8mm {
    const TILES: usize = 1;
    type F32 = F32x8;
    type I32 = I32x8;
    type U8 = U8x32;
    type Table = int8x16_t;

    const TABLE_BIAS: i32 = 0;
    const BYTE_BIAS: i32 = 0;
    const TOKENS: usize = 4;
    const MANY_FROM: usize = 5;
    const PAIRS: bool = true;

    forward! {
        fn splat(x: f32) -> F32x8;
        fn load_tiles(from: [&[f32; 8]; MOST_TILES]) -> F32x8;
        fn load_f16_tiles(from: [&[u8; 16]; MOST_TILES]) -> F32x8;
        fn load_scaled_tiles(
            bytes: [&[u8; 8]; MOST_TILES],
            scales: [&[u8; 2]; MOST_TILES]
        ) -> F32x8;
        fn store_tiles(x: F32x8, to: &mut [f32]) -> ();
        fn mul(a: F32x8, b: F32x8) -> F32x8;
        fn fma(a: F32x8, b: F32x8, c: F32x8) -> F32x8;
        fn to_f32(a: I32x8) -> F32x8;
        fn splat_i32(x: i32) -> I32x8;
        fn load_bytes_tiles(from: [&[u8; 32]; MOST_TILES]) -> U8x32;
        fn shift_and<const SHIFT: i32>(a: U8x32, mask: u8) -> U8x32;
        fn insert<const SHIFT: i32>(a: U8x32, b: U8x32, mask: u8) -> U8x32;
        fn table(entries: &[i8; 16]) -> int8x16_t;
        fn lookup(table: int8x16_t, codes: U8x32) -> U8x32;
        fn load_weights_tiles(from: [&[u8; 32]; MOST_TILES]) -> U8x32;
        fn scales_tiles(bytes: [&[u8; 8]; MOST_TILES]) -> F32x8;
        fn dot4_table(acc: I32x8, weights: U8x32, a: &[i8; 4]) -> I32x8;
        fn dot4_bytes(acc: I32x8, weights: U8x32, a: &[i8; 4]) -> I32x8;
        fn dot_table<const N: usize>(acc: I32x8, weights: &[U8x32; N], a: &[[i8; 4]; N]) -> I32x8;
        fn dot_bytes<const N: usize>(acc: I32x8, weights: &[U8x32; N], a: &[[i8; 4]; N]) -> I32x8;
    }

    #[inline(always)]
    fn dot_table_pair(
        self,
        acc: [I32x8; 2],
        weights: &[U8x32; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [I32x8; 2] {
        neon!({
            let (first, second) = (a[0].as_ptr().cast::<i64>(), a[1].as_ptr().cast::<i64>());
            let first = (vld1q_s64(first), vld1q_s64(first.add(2)));
            let second = (vld1q_s64(second), vld1q_s64(second.add(2)));
            let x = [
                vreinterpretq_s8_s64(vzip1q_s64(first.0, second.0)),
                vreinterpretq_s8_s64(vzip2q_s64(first.0, second.0)),
                vreinterpretq_s8_s64(vzip1q_s64(first.1, second.1)),
                vreinterpretq_s8_s64(vzip2q_s64(first.1, second.1)),
            ];
            let low = four_rows(firsts(weights), &x);
            let high = four_rows(seconds(weights), &x);
            [
                (vaddq_s32(acc[0].0, low[0]), vaddq_s32(acc[0].1, high[0])),
                (vaddq_s32(acc[1].0, low[1]), vaddq_s32(acc[1].1, high[1])),
            ]
        })
    }

    #[inline(always)]
    fn dot_bytes_pair(
        self,
        acc: [I32x8; 2],
        weights: &[U8x32; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [I32x8; 2] {
        self.dot_table_pair(acc, weights, a)
    }
}

impl Isa for I8mm {
    type Wide = Self;

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }

    forward! {
        fn load_bf16(from: &[u8; 16]) -> F32x8;
        fn add(a: F32x8, b: F32x8) -> F32x8;
        fn sub(a: F32x8, b: F32x8) -> F32x8;
        fn div(a: F32x8, b: F32x8) -> F32x8;
        fn max(a: F32x8, b: F32x8) -> F32x8;
        fn min(a: F32x8, b: F32x8) -> F32x8;
        fn abs(a: F32x8) -> F32x8;
        fn round(a: F32x8) -> I32x8;
        fn exp2i(n: I32x8) -> F32x8;
        fn store_i8(a: I32x8, to: &mut [i8; 8]) -> ();
        fn sum(a: F32x8) -> f32;
        fn sums(a: [F32x8; 8]) -> F32x8;
        fn prefetch<const AHEAD: usize>(at: *const u8) -> ();
        fn store_bytes(a: U8x32, to: &mut [u8; 32]) -> ();
        fn transpose(rows: [&[u8; 16]; 8]) -> [U8x32; 4];
        fn load_halves(rows: [&[u8; 2]; 8]) -> F32x8;
        fn byte<const AT: i32>(a: U8x32) -> I32x8;
        fn bits(a: U8x32, at: u32, count: u32) -> I32x8;
        fn join(low: I32x8, high: I32x8, by: u32) -> I32x8;
        fn lanes(a: I32x8) -> [i32; 8];
        fn spread<const AT: i32>(a: U8x32) -> U8x32;
        fn transpose_eights(rows: [&[u8; 8]; 8]) -> [U8x32; 2];
        fn load_fours(rows: [&[u8; 4]; 8]) -> U8x32;
        fn repeat<const AT: i32>(a: U8x32) -> U8x32;
        fn twos<const AT: i32>(a: U8x32) -> U8x32;
        fn sevens(a: U8x32) -> U8x32;
        fn splat_bytes(x: u8) -> U8x32;
        fn add_bytes(a: U8x32, b: U8x32) -> U8x32;
        fn and_bytes(a: U8x32, b: U8x32) -> U8x32;
        fn negate_where(a: U8x32, mask: U8x32) -> U8x32;
        fn at_least(a: U8x32, least: u8) -> U8x32;
        fn field(a: U8x32, at: u32, mask: u8) -> U8x32;
        fn append<const SHIFT: i32>(low: U8x32, high: U8x32) -> U8x32;
        fn nibbles(from: &[u8; 16]) -> U8x32;
        fn masks(bits: &[u8; 4]) -> U8x32;
        fn quarters(from: &[u8; 8]) -> U8x32;
        fn dot_row_halves<const MOST: u8>(rows: [U8x32; 8], a: &[[i8; 4]; 8]) -> [I32x8; 2];
        fn dot_rows<const MOST: u8>(rows: [U8x32; 8], a: &[[i8; 4]; 8]) -> I32x8;
    }
}
