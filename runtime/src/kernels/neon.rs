//! NEON, of every 64-bit ARM processor.
//!
//! Two registers of 128 bits hold a tile's eight rows: the first four, the last four.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{Isa, Kernel};

/// Proof that this CPU has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// Asks the CPU.
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// Runs a kernel compiled for these instructions.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn compiled<K: Kernel>(isa: Neon, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` exists only where `detect` found the instructions.
        unsafe { compiled(self, kernel) }
    }
}

/// Intrinsics on values, or on memory that a reference of the right size vouches for.
macro_rules! neon {
    ($($body:tt)*) => {
        // SAFETY: the receiver is proof that the CPU has the instructions, and each pointer comes from a
        // reference to an array of the size that is read or written.
        unsafe { $($body)* }
    };
}

/// The same for both registers.
macro_rules! both {
    ($op:ident($($arg:expr),*)) => {
        neon!(($op($($arg.0),*), $op($($arg.1),*)))
    };
}

pub(super) type F32x8 = (float32x4_t, float32x4_t);
pub(super) type I32x8 = (int32x4_t, int32x4_t);
pub(super) type U8x32 = (uint8x16_t, uint8x16_t);

/// Four activations, for two rows.
#[inline(always)]
fn four(a: &[i8; 4]) -> int8x8_t {
    neon!(vreinterpret_s8_s32(vdup_n_s32(i32::from_le_bytes(a.map(|a| a as u8)))))
}

/// Four half-precision numbers as single ones.
#[inline(always)]
fn widen_f16(from: uint16x4_t) -> float32x4_t {
    let to: float32x4_t;
    // SAFETY: FCVTL is in every 64-bit ARM processor with floating point.
    unsafe {
        asm!("fcvtl {to:v}.4s, {from:v}.4h", to = out(vreg) to, from = in(vreg) from,
            options(pure, nomem, nostack, preserves_flags));
    }
    to
}

/// The products of the weights of four rows with activations, `STEP` registers of them added in 16 bits, which
/// must hold them.
#[inline(always)]
fn products<const STEP: usize>(weights: [uint8x16_t; 8], a: &[[i8; 4]; 8]) -> int32x4_t {
    neon!({
        // Pairs of each row: rows 0 and 1, rows 2 and 3.
        let (mut low, mut high) = (vdupq_n_s32(0), vdupq_n_s32(0));
        let mut at = 0;
        while at < 8 {
            let (w, x) = (vreinterpretq_s8_u8(weights[at]), four(&a[at]));
            let mut first = vmull_s8(vget_low_s8(w), x);
            let mut second = vmull_s8(vget_high_s8(w), x);
            let mut next = at + 1;
            while next < at + STEP {
                let (w, x) = (vreinterpretq_s8_u8(weights[next]), four(&a[next]));
                first = vmlal_s8(first, vget_low_s8(w), x);
                second = vmlal_s8(second, vget_high_s8(w), x);
                next += 1;
            }
            low = vpadalq_s16(low, first);
            high = vpadalq_s16(high, second);
            at += STEP;
        }
        vpaddq_s32(low, high)
    })
}

#[inline(always)]
pub(super) fn firsts(weights: &[U8x32; 8]) -> [uint8x16_t; 8] {
    let [a, b, c, d, e, f, g, h] = *weights;
    [a.0, b.0, c.0, d.0, e.0, f.0, g.0, h.0]
}

#[inline(always)]
pub(super) fn seconds(weights: &[U8x32; 8]) -> [uint8x16_t; 8] {
    let [a, b, c, d, e, f, g, h] = *weights;
    [a.1, b.1, c.1, d.1, e.1, f.1, g.1, h.1]
}

impl Isa for Neon {
    type F32x8 = F32x8;
    type I32x8 = I32x8;
    type U8x32 = U8x32;
    type Table = int8x16_t;

    const TABLE_BIAS: i32 = 0;
    const BYTE_BIAS: i32 = 0;
    const TOKENS: usize = 4;

    type Wide = Self;

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F32x8 {
        neon!((vdupq_n_f32(x), vdupq_n_f32(x)))
    }

    #[inline(always)]
    fn load(self, from: &[f32; 8]) -> F32x8 {
        neon!((vld1q_f32(from.as_ptr()), vld1q_f32(from.as_ptr().add(4))))
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 16]) -> F32x8 {
        neon!({
            let halves = vreinterpretq_u16_u8(vld1q_u8(from.as_ptr()));
            (widen_f16(vget_low_u16(halves)), widen_f16(vget_high_u16(halves)))
        })
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 16]) -> F32x8 {
        neon!({
            let halves = vreinterpretq_u16_u8(vld1q_u8(from.as_ptr()));
            let upper =
                (vshll_n_u16::<16>(vget_low_u16(halves)), vshll_n_u16::<16>(vget_high_u16(halves)));
            (vreinterpretq_f32_u32(upper.0), vreinterpretq_f32_u32(upper.1))
        })
    }

    #[inline(always)]
    fn store(self, x: F32x8, to: &mut [f32; 8]) {
        neon!({
            vst1q_f32(to.as_mut_ptr(), x.0);
            vst1q_f32(to.as_mut_ptr().add(4), x.1);
        })
    }

    #[inline(always)]
    fn add(self, a: F32x8, b: F32x8) -> F32x8 {
        both!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: F32x8, b: F32x8) -> F32x8 {
        both!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: F32x8, b: F32x8) -> F32x8 {
        both!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: F32x8, b: F32x8) -> F32x8 {
        both!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, a: F32x8, b: F32x8, c: F32x8) -> F32x8 {
        both!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn max(self, a: F32x8, b: F32x8) -> F32x8 {
        // FMAX treats zeros and what is no number otherwise.
        let larger = both!(vcgtq_f32(a, b));
        both!(vbslq_f32(larger, a, b))
    }

    #[inline(always)]
    fn min(self, a: F32x8, b: F32x8) -> F32x8 {
        let smaller = both!(vcltq_f32(a, b));
        both!(vbslq_f32(smaller, a, b))
    }

    #[inline(always)]
    fn abs(self, a: F32x8) -> F32x8 {
        both!(vabsq_f32(a))
    }

    #[inline(always)]
    fn round(self, a: F32x8) -> I32x8 {
        both!(vcvtnq_s32_f32(a))
    }

    #[inline(always)]
    fn to_f32(self, a: I32x8) -> F32x8 {
        both!(vcvtq_f32_s32(a))
    }

    #[inline(always)]
    fn exp2i(self, n: I32x8) -> F32x8 {
        neon!({
            let bias = vdupq_n_s32(127);
            let low = vshlq_n_s32::<23>(vaddq_s32(n.0, bias));
            let high = vshlq_n_s32::<23>(vaddq_s32(n.1, bias));
            (vreinterpretq_f32_s32(low), vreinterpretq_f32_s32(high))
        })
    }

    #[inline(always)]
    fn store_i8(self, a: I32x8, to: &mut [i8; 8]) {
        neon!({
            let words = vcombine_s16(vmovn_s32(a.0), vmovn_s32(a.1));
            vst1_s8(to.as_mut_ptr(), vmovn_s16(words));
        })
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> I32x8 {
        neon!((vdupq_n_s32(x), vdupq_n_s32(x)))
    }

    #[inline(always)]
    fn sum(self, a: F32x8) -> f32 {
        neon!({
            let four = vaddq_f32(a.0, a.1);
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        })
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch reads nothing that the program could see, and no address makes it fail.
        unsafe {
            asm!("prfm pldl1keep, [{at}]", at = in(reg) at,
                options(readonly, nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; 32]) -> U8x32 {
        neon!((vld1q_u8(from.as_ptr()), vld1q_u8(from.as_ptr().add(16))))
    }

    #[inline(always)]
    fn shift_and<const SHIFT: i32>(self, a: U8x32, mask: u8) -> U8x32 {
        neon!({
            let (by, mask) = (vdupq_n_s8(-SHIFT as i8), vdupq_n_u8(mask));
            (vandq_u8(vshlq_u8(a.0, by), mask), vandq_u8(vshlq_u8(a.1, by), mask))
        })
    }

    #[inline(always)]
    fn or_shifted<const SHIFT: i32>(self, a: U8x32, b: U8x32) -> U8x32 {
        neon!({
            let by = vdupq_n_s8(SHIFT as i8);
            (vorrq_u8(a.0, vshlq_u8(b.0, by)), vorrq_u8(a.1, vshlq_u8(b.1, by)))
        })
    }

    #[inline(always)]
    fn table(self, entries: &[i8; 16]) -> int8x16_t {
        neon!(vld1q_s8(entries.as_ptr()))
    }

    #[inline(always)]
    fn lookup(self, table: int8x16_t, codes: U8x32) -> U8x32 {
        neon!({
            let (low, high) = (vqtbl1q_s8(table, codes.0), vqtbl1q_s8(table, codes.1));
            (vreinterpretq_u8_s8(low), vreinterpretq_u8_s8(high))
        })
    }

    #[inline(always)]
    fn load_weights(self, from: &[u8; 32]) -> U8x32 {
        self.load_bytes(from)
    }

    #[inline(always)]
    fn dot4_table(self, acc: I32x8, weights: U8x32, a: &[i8; 4]) -> I32x8 {
        neon!({
            let x = four(a);
            let half = |acc: int32x4_t, w: int8x16_t| {
                let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), x));
                let high = vpaddlq_s16(vmull_s8(vget_high_s8(w), x));
                vaddq_s32(acc, vpaddq_s32(low, high))
            };
            (
                half(acc.0, vreinterpretq_s8_u8(weights.0)),
                half(acc.1, vreinterpretq_s8_u8(weights.1)),
            )
        })
    }

    #[inline(always)]
    fn dot4_bytes(self, acc: I32x8, weights: U8x32, a: &[i8; 4]) -> I32x8 {
        self.dot4_table(acc, weights, a)
    }

    #[inline(always)]
    fn dot_table(self, acc: I32x8, weights: &[U8x32; 8], a: &[[i8; 4]; 8]) -> I32x8 {
        // 4 products of at most 64 * 127 fit 16 bits.
        let sums = (products::<4>(firsts(weights), a), products::<4>(seconds(weights), a));
        both!(vaddq_s32(acc, sums))
    }

    #[inline(always)]
    fn dot_bytes(self, acc: I32x8, weights: &[U8x32; 8], a: &[[i8; 4]; 8]) -> I32x8 {
        // 2 products of at most 128 * 127 fit 16 bits.
        let sums = (products::<2>(firsts(weights), a), products::<2>(seconds(weights), a));
        both!(vaddq_s32(acc, sums))
    }

    #[inline(always)]
    fn dot32(self, weights: &[i8; 32], a: &[i8; 32]) -> I32x8 {
        neon!({
            let half = |at: usize| {
                let (w, x) = (vld1q_s8(weights.as_ptr().add(at)), vld1q_s8(a.as_ptr().add(at)));
                let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
                let high = vpaddlq_s16(vmull_s8(vget_high_s8(w), vget_high_s8(x)));
                vpaddq_s32(low, high)
            };
            (half(0), half(16))
        })
    }

    #[inline(always)]
    fn halves(self, low: f32, high: f32) -> F32x8 {
        neon!((vdupq_n_f32(low), vdupq_n_f32(high)))
    }

    #[inline(always)]
    fn scales(self, bytes: &[u8; 8]) -> F32x8 {
        neon!({
            let wide = vmovl_s8(vreinterpret_s8_u8(vld1_u8(bytes.as_ptr())));
            let mask = vdupq_n_s32(0x87f0_0000_u32 as i32);
            let bias = vdupq_n_s32(112 << 23);
            let low = vandq_s32(vshlq_n_s32::<20>(vmovl_s16(vget_low_s16(wide))), mask);
            let high = vandq_s32(vshlq_n_s32::<20>(vmovl_s16(vget_high_s16(wide))), mask);
            (
                vreinterpretq_f32_s32(vaddq_s32(low, bias)),
                vreinterpretq_f32_s32(vaddq_s32(high, bias)),
            )
        })
    }
}

pub(super) use neon;
