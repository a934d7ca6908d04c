//! NEON with the dot products of ARMv8.2 (Cortex-A76, Neoverse, Apple).

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::neon::{F32x8, I32x8, Neon, U8x32, firsts, halves_of, neon, row_sums, seconds};
use crate::isa::forward::forward;
use crate::isa::{Features, Isa, Kernel, MOST_TILES, TileSimd};

/// Proof that this CPU has NEON and its dot products.
#[derive(Clone, Copy, Debug)]
pub struct Dotprod(Neon);

impl Dotprod {
    /// Detects CPU support.
    pub fn detect() -> Option<Self> {
        Neon::detect().filter(|_| is_aarch64_feature_detected!("dotprod")).map(Self)
    }

    /// Runs a kernel compiled for these instructions.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn compiled<K: Kernel>(isa: Dotprod, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        if matches!(K::FEATURES, Features::Floats) {
            return self.0.run(kernel);
        }
        // SAFETY: `self` exists only if `detect` found the instructions.
        unsafe { compiled(self, kernel) }
    }
}

/// `acc` plus, in each lane, the dot product of four signed bytes.
///
/// # Safety
/// The CPU must have the dot products of ARMv8.2.
#[inline(always)]
unsafe fn sdot(mut acc: int32x4_t, weights: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: the caller guarantees the instruction, whose intrinsic is not stable yet.
    unsafe {
        asm!("sdot {acc:v}.4s, {weights:v}.16b, {a:v}.16b", acc = inout(vreg) acc,
            weights = in(vreg) weights, a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// `acc` plus, in each lane, the dot product of four signed bytes with the four bytes of one lane
/// of `a`.
///
/// # Safety
/// The CPU must have the dot products of ARMv8.2.
#[inline(always)]
unsafe fn sdot_lane<const LANE: i32>(
    mut acc: int32x4_t,
    weights: uint8x16_t,
    a: int8x16_t,
) -> int32x4_t {
    // SAFETY: the caller guarantees the instruction, whose intrinsic is not stable yet.
    unsafe {
        asm!("sdot {acc:v}.4s, {weights:v}.16b, {a:v}.4b[{lane}]", acc = inout(vreg) acc,
            weights = in(vreg) weights, a = in(vreg) a, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// The dot products of sixteen weights per row of four rows with activations.
///
/// # Safety
/// See [`sdot_lane`].
#[inline(always)]
unsafe fn sixteen(acc: int32x4_t, weights: &[uint8x16_t; 4], a: int8x16_t) -> int32x4_t {
    // SAFETY: the caller guarantees the instruction.
    unsafe {
        let acc = sdot_lane::<0>(acc, weights[0], a);
        let acc = sdot_lane::<1>(acc, weights[1], a);
        let acc = sdot_lane::<2>(acc, weights[2], a);
        sdot_lane::<3>(acc, weights[3], a)
    }
}

impl TileSimd for Dotprod {
    const TILES: usize = 1;
    type F32 = F32x8;
    type I32 = I32x8;
    type U8 = U8x32;
    type Table = int8x16_t;

    const TABLE_BIAS: i32 = 0;
    const BYTE_BIAS: i32 = 0;
    const TOKENS: usize = 4;
    const MANY_FROM: usize = 5;
    const MANY_BYTES_FROM: usize = usize::MAX;

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
    }

    #[inline(always)]
    fn dot4_table(self, acc: I32x8, weights: U8x32, a: &[i8; 4]) -> I32x8 {
        neon!({
            let a = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(a.map(|a| a as u8))));
            (
                sdot(acc.0, vreinterpretq_s8_u8(weights.0), a),
                sdot(acc.1, vreinterpretq_s8_u8(weights.1), a),
            )
        })
    }

    #[inline(always)]
    fn dot4_bytes(self, acc: I32x8, weights: U8x32, a: &[i8; 4]) -> I32x8 {
        self.dot4_table(acc, weights, a)
    }

    #[inline(always)]
    fn dot_table<const N: usize>(
        self,
        mut acc: I32x8,
        weights: &[U8x32; N],
        a: &[[i8; 4]; N],
    ) -> I32x8 {
        let (low, high) = (firsts(weights), seconds(weights));
        let weights = low.as_chunks::<4>().0.iter().zip(high.as_chunks::<4>().0);
        for ((low, high), a) in weights.zip(a.as_chunks::<4>().0) {
            acc = neon!({
                let a = vld1q_s8(a.as_ptr().cast());
                (sixteen(acc.0, low, a), sixteen(acc.1, high, a))
            });
        }
        acc
    }

    #[inline(always)]
    fn dot_bytes<const N: usize>(
        self,
        acc: I32x8,
        weights: &[U8x32; N],
        a: &[[i8; 4]; N],
    ) -> I32x8 {
        self.dot_table(acc, weights, a)
    }
}

impl Isa for Dotprod {
    type Wide = Self;
    const LARGEST_BY_ROW: usize = 32;

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
    }

    #[inline(always)]
    fn dot_row_halves<const MOST: u8>(self, rows: [U8x32; 8], a: &[[i8; 4]; 8]) -> [I32x8; 2] {
        let [first, second] = halves_of(a);
        let mut products = [[neon!(vdupq_n_s32(0)); 8]; 2];
        let [lower, upper] = &mut products;
        for (row, (lower, upper)) in rows.iter().zip(lower.iter_mut().zip(upper)) {
            *lower = neon!(sdot(*lower, vreinterpretq_s8_u8(row.0), first));
            *upper = neon!(sdot(*upper, vreinterpretq_s8_u8(row.1), second));
        }
        products.map(row_sums)
    }

    #[inline(always)]
    fn dot_rows<const MOST: u8>(self, rows: [U8x32; 8], a: &[[i8; 4]; 8]) -> I32x8 {
        let [first, second] = halves_of(a);
        let mut products = [neon!(vdupq_n_s32(0)); 8];
        for (product, row) in products.iter_mut().zip(rows) {
            *product = neon!(sdot(*product, vreinterpretq_s8_u8(row.0), first));
            *product = neon!(sdot(*product, vreinterpretq_s8_u8(row.1), second));
        }
        row_sums(products)
    }
}
