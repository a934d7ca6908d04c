//! NEON, which every 64-bit ARM processor has.
//!
//! Two registers of 128 bits hold the eight rows of a tile: the first four, and the last four.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use crate::isa::{Isa, Kernel, MOST_TILES, TileSimd};

/// Proof that this CPU has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// Detects CPU support.
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// Runs a kernel compiled for these instructions.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn compiled<K: Kernel>(isa: Neon, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` exists only if `detect` found the instructions.
        unsafe { compiled(self, kernel) }
    }
}

/// Wraps intrinsics on values, or on memory behind a reference of the right size.
macro_rules! neon {
    ($($body:tt)*) => {
        // SAFETY: the receiver is proof that the CPU has the instructions, and each pointer comes
        // from a reference to an array of the size that is read or written.
        unsafe { $($body)* }
    };
}

/// Applies an intrinsic to both registers.
macro_rules! both {
    ($op:ident$(::<$number:literal>)?($($arg:expr),*)) => {
        neon!(($op$(::<$number>)?($($arg.0),*), $op$(::<$number>)?($($arg.1),*)))
    };
}

pub(super) type F32x8 = (float32x4_t, float32x4_t);
pub(super) type I32x8 = (int32x4_t, int32x4_t);
pub(super) type U8x32 = (uint8x16_t, uint8x16_t);

/// Four activations, repeated for two rows.
#[inline(always)]
fn four(a: &[i8; 4]) -> int8x8_t {
    neon!(vreinterpret_s8_s32(vdup_n_s32(i32::from_le_bytes(a.map(|a| a as u8)))))
}

/// Groups of four activations, each repeated for four rows.
#[inline(always)]
fn fours<const N: usize>(a: &[[i8; 4]; N]) -> [int8x16_t; N] {
    let mut fours = [neon!(vdupq_n_s8(0)); N];
    for (fours, a) in fours.as_chunks_mut::<4>().0.iter_mut().zip(a.as_chunks::<4>().0) {
        *fours = neon!({
            let a = vld1q_s32(a.as_ptr().cast());
            [
                vreinterpretq_s8_s32(vdupq_laneq_s32::<0>(a)),
                vreinterpretq_s8_s32(vdupq_laneq_s32::<1>(a)),
                vreinterpretq_s8_s32(vdupq_laneq_s32::<2>(a)),
                vreinterpretq_s8_s32(vdupq_laneq_s32::<3>(a)),
            ]
        });
    }
    fours
}

/// Transposes sixteen bytes of each of four rows: register `k` contains their bytes `4 k` to `4 k +
/// 3`.
#[inline(always)]
fn transpose([a, b, c, d]: [&[u8; 16]; 4]) -> [uint8x16_t; 4] {
    neon!({
        let load = |row: &[u8; 16]| vreinterpretq_u32_u8(vld1q_u8(row.as_ptr()));
        let (a, b, c, d) = (load(a), load(b), load(c), load(d));
        let (even, odd) = (vtrn1q_u32(a, b), vtrn2q_u32(a, b));
        let (even, odd) = (vreinterpretq_u64_u32(even), vreinterpretq_u64_u32(odd));
        let (other_even, other_odd) = (vtrn1q_u32(c, d), vtrn2q_u32(c, d));
        let other_even = vreinterpretq_u64_u32(other_even);
        let other_odd = vreinterpretq_u64_u32(other_odd);
        [
            vreinterpretq_u8_u64(vtrn1q_u64(even, other_even)),
            vreinterpretq_u8_u64(vtrn1q_u64(odd, other_odd)),
            vreinterpretq_u8_u64(vtrn2q_u64(even, other_even)),
            vreinterpretq_u8_u64(vtrn2q_u64(odd, other_odd)),
        ]
    })
}

/// Eight bytes of each of four rows: register `k` has their bytes `4 k` to `4 k + 3`.
#[inline(always)]
fn transpose_eights([a, b, c, d]: [&[u8; 8]; 4]) -> [uint8x16_t; 2] {
    neon!({
        let load = |row: &[u8; 8]| vld1_u8(row.as_ptr());
        let ab = vreinterpretq_u32_u8(vcombine_u8(load(a), load(b)));
        let cd = vreinterpretq_u32_u8(vcombine_u8(load(c), load(d)));
        [vreinterpretq_u8_u32(vuzp1q_u32(ab, cd)), vreinterpretq_u8_u32(vuzp2q_u32(ab, cd))]
    })
}

/// Four bytes of each of four rows.
#[inline(always)]
fn load_fours([a, b, c, d]: [&[u8; 4]; 4]) -> uint8x16_t {
    neon!({
        let fours = vdupq_n_u32(u32::from_le_bytes(*a));
        let fours = vsetq_lane_u32::<1>(u32::from_le_bytes(*b), fours);
        let fours = vsetq_lane_u32::<2>(u32::from_le_bytes(*c), fours);
        vreinterpretq_u8_u32(vsetq_lane_u32::<3>(u32::from_le_bytes(*d), fours))
    })
}

/// Byte `AT` of each of four rows, four times.
#[inline(always)]
fn repeat<const AT: i32>(a: uint8x16_t) -> uint8x16_t {
    neon!({
        let rows = [0, 4, 8, 12].map(|row| 0x0101_0101 * (row + AT as u32));
        vqtbl1q_u8(a, vreinterpretq_u8_u32(vld1q_u32(rows.as_ptr())))
    })
}

/// The four 7-bit numbers in the low 28 bits of each of four rows, as bytes.
#[inline(always)]
fn sevens(a: uint8x16_t) -> uint8x16_t {
    neon!({
        // Each insertion replaces a byte and those above it; the mask clears the eighth bits.
        let a = vreinterpretq_u32_u8(a);
        let second = vsliq_n_u32::<8>(a, vshrq_n_u32::<7>(a));
        let third = vsliq_n_u32::<16>(second, vshrq_n_u32::<14>(a));
        let fourth = vsliq_n_u32::<24>(third, vshrq_n_u32::<21>(a));
        vandq_u8(vreinterpretq_u8_u32(fourth), vdupq_n_u8(127))
    })
}

/// The first and the second half of a group's activations.
#[inline(always)]
pub(super) fn halves_of(a: &[[i8; 4]; 8]) -> [int8x16_t; 2] {
    let a = a.as_flattened();
    neon!([vld1q_s8(a[..16].as_ptr()), vld1q_s8(a[16..].as_ptr())])
}

/// Products of sixteen codes with activations, codes `i` and `i + 8` added: at most 2 * 127 * 127
/// in 16 bits.
#[inline(always)]
fn pairs(codes: uint8x16_t, a: int8x16_t) -> int16x8_t {
    neon!({
        let codes = vreinterpretq_s8_u8(codes);
        let low = vmull_s8(vget_low_s8(codes), vget_low_s8(a));
        vmlal_s8(low, vget_high_s8(codes), vget_high_s8(a))
    })
}

/// The sum of each row's lanes, a lane per row.
#[inline(always)]
pub(super) fn row_sums([a, b, c, d, e, f, g, h]: [int32x4_t; 8]) -> I32x8 {
    neon!({
        let low = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
        (low, vpaddq_s32(vpaddq_s32(e, f), vpaddq_s32(g, h)))
    })
}

/// Loads a half-precision number of each of four rows.
#[inline(always)]
fn halves([a, b, c, d]: [&[u8; 2]; 4]) -> float32x4_t {
    widen_f16(neon!({
        let halves = vdup_n_u16(u16::from_le_bytes(*a));
        let halves = vset_lane_u16::<1>(u16::from_le_bytes(*b), halves);
        let halves = vset_lane_u16::<2>(u16::from_le_bytes(*c), halves);
        vset_lane_u16::<3>(u16::from_le_bytes(*d), halves)
    }))
}

/// Bits of `b` where `mask` is set, of `a` elsewhere. (The compiler turns `vbsl` with a constant
/// mask into three instructions.)
#[inline(always)]
fn bit(mut a: uint8x16_t, b: uint8x16_t, mask: uint8x16_t) -> uint8x16_t {
    // SAFETY: every 64-bit ARM processor with NEON has the instruction.
    unsafe {
        asm!("bit {a:v}.16b, {b:v}.16b, {mask:v}.16b", a = inout(vreg) a, b = in(vreg) b,
            mask = in(vreg) mask, options(pure, nomem, nostack, preserves_flags));
    }
    a
}

/// Bits of `b` where `mask` is clear, of `a` elsewhere.
#[inline(always)]
fn bif(mut a: uint8x16_t, b: uint8x16_t, mask: uint8x16_t) -> uint8x16_t {
    // SAFETY: every 64-bit ARM processor with NEON has the instruction.
    unsafe {
        asm!("bif {a:v}.16b, {b:v}.16b, {mask:v}.16b", a = inout(vreg) a, b = in(vreg) b,
            mask = in(vreg) mask, options(pure, nomem, nostack, preserves_flags));
    }
    a
}

/// Shifts each byte right.
#[inline(always)]
fn right<const BY: i32>(a: uint8x16_t) -> uint8x16_t {
    // The intrinsics for constant shifts do not allow a shift by 0.
    neon!(match BY {
        0 => a,
        2 => vshrq_n_u8::<2>(a),
        4 => vshrq_n_u8::<4>(a),
        6 => vshrq_n_u8::<6>(a),
        _ => vshlq_u8(a, vdupq_n_s8(-BY as i8)),
    })
}

/// Shifts each byte left, or right by a negative count.
#[inline(always)]
fn left<const BY: i32>(a: uint8x16_t) -> uint8x16_t {
    neon!(match BY {
        0 => a,
        2 => vshlq_n_u8::<2>(a),
        -2 => right::<2>(a),
        -4 => right::<4>(a),
        -6 => right::<6>(a),
        _ => vshlq_u8(a, vdupq_n_s8(BY as i8)),
    })
}

/// Converts four half-precision numbers to single precision.
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

/// Products of the weights of four rows with activations, accumulated over `STEP` registers in 16
/// bits, which must not overflow.
#[inline(always)]
fn products<const STEP: usize, const N: usize>(
    weights: [uint8x16_t; N],
    a: &[int8x16_t; N],
) -> int32x4_t {
    neon!({
        // Pairwise sums of each row: rows 0 and 1, rows 2 and 3.
        let (mut low, mut high) = (vdupq_n_s32(0), vdupq_n_s32(0));
        let mut at = 0;
        while at < N {
            let (w, x) = (vreinterpretq_s8_u8(weights[at]), a[at]);
            let mut first = vmull_s8(vget_low_s8(w), vget_low_s8(x));
            let mut second = vmull_high_s8(w, x);
            let mut next = at + 1;
            while next < at + STEP {
                let (w, x) = (vreinterpretq_s8_u8(weights[next]), a[next]);
                first = vmlal_s8(first, vget_low_s8(w), vget_low_s8(x));
                second = vmlal_high_s8(second, w, x);
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
pub(super) fn firsts<const N: usize>(weights: &[U8x32; N]) -> [uint8x16_t; N] {
    let mut firsts = [weights[0].0; N];
    for (first, weights) in firsts.iter_mut().zip(weights) {
        *first = weights.0;
    }
    firsts
}

#[inline(always)]
pub(super) fn seconds<const N: usize>(weights: &[U8x32; N]) -> [uint8x16_t; N] {
    let mut seconds = [weights[0].1; N];
    for (second, weights) in seconds.iter_mut().zip(weights) {
        *second = weights.1;
    }
    seconds
}

impl TileSimd for Neon {
    const TILES: usize = 1;
    type F32 = F32x8;
    type I32 = I32x8;
    type U8 = U8x32;
    type Table = int8x16_t;

    const TABLE_BIAS: i32 = 0;
    const BYTE_BIAS: i32 = 0;
    const TOKENS: usize = 4;
    const FEWEST_BITS: u32 = 5;

    #[inline(always)]
    fn splat(self, x: f32) -> F32x8 {
        neon!((vdupq_n_f32(x), vdupq_n_f32(x)))
    }

    #[inline(always)]
    fn load_tiles(self, [from, _]: [&[f32; 8]; MOST_TILES]) -> F32x8 {
        neon!((vld1q_f32(from.as_ptr()), vld1q_f32(from.as_ptr().add(4))))
    }

    #[inline(always)]
    fn load_f16_tiles(self, [from, _]: [&[u8; 16]; MOST_TILES]) -> F32x8 {
        neon!({
            let halves = vreinterpretq_u16_u8(vld1q_u8(from.as_ptr()));
            (widen_f16(vget_low_u16(halves)), widen_f16(vget_high_u16(halves)))
        })
    }

    #[inline(always)]
    fn load_scaled_tiles(
        self,
        [bytes, _]: [&[u8; 8]; MOST_TILES],
        [scale, _]: [&[u8; 2]; MOST_TILES],
    ) -> F32x8 {
        neon!({
            let bytes = vmovl_s8(vld1_s8(bytes.as_ptr().cast()));
            let low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(bytes)));
            let high = vcvtq_f32_s32(vmovl_s16(vget_high_s16(bytes)));
            let scale = f32::from_bits(u32::from(u16::from_le_bytes(*scale)) << 16);
            (vmulq_n_f32(low, scale), vmulq_n_f32(high, scale))
        })
    }

    #[inline(always)]
    fn store_tiles(self, x: F32x8, to: &mut [f32]) {
        let to: &mut [f32; 8] = to.first_chunk_mut().expect("a tile has eight rows");
        neon!({
            vst1q_f32(to.as_mut_ptr(), x.0);
            vst1q_f32(to.as_mut_ptr().add(4), x.1);
        })
    }

    #[inline(always)]
    fn mul(self, a: F32x8, b: F32x8) -> F32x8 {
        both!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, a: F32x8, b: F32x8, c: F32x8) -> F32x8 {
        both!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn to_f32(self, a: I32x8) -> F32x8 {
        both!(vcvtq_f32_s32(a))
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> I32x8 {
        neon!((vdupq_n_s32(x), vdupq_n_s32(x)))
    }

    #[inline(always)]
    fn load_bytes_tiles(self, [from, _]: [&[u8; 32]; MOST_TILES]) -> U8x32 {
        neon!((vld1q_u8(from.as_ptr()), vld1q_u8(from.as_ptr().add(16))))
    }

    #[inline(always)]
    fn shift_and<const SHIFT: i32>(self, a: U8x32, mask: u8) -> U8x32 {
        neon!({
            let mask = vdupq_n_u8(mask);
            (vandq_u8(right::<SHIFT>(a.0), mask), vandq_u8(right::<SHIFT>(a.1), mask))
        })
    }

    #[inline(always)]
    fn insert<const SHIFT: i32>(self, a: U8x32, b: U8x32, mask: u8) -> U8x32 {
        neon!({
            // The operand whose register becomes the result should not be needed again. E3 has bit
            // 2 first, then bit 1.
            let (b, bits) = ((left::<SHIFT>(b.0), left::<SHIFT>(b.1)), vdupq_n_u8(mask));
            if mask == 4 {
                (bif(b.0, a.0, bits), bif(b.1, a.1, bits))
            } else {
                (bit(a.0, b.0, bits), bit(a.1, b.1, bits))
            }
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
    fn load_weights_tiles(self, [from, _]: [&[u8; 32]; MOST_TILES]) -> U8x32 {
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
    fn dot_table<const N: usize>(
        self,
        acc: I32x8,
        weights: &[U8x32; N],
        a: &[[i8; 4]; N],
    ) -> I32x8 {
        // 4 products of at most 64 * 127 fit 16 bits.
        let a = fours(a);
        let sums = (products::<4, N>(firsts(weights), &a), products::<4, N>(seconds(weights), &a));
        both!(vaddq_s32(acc, sums))
    }

    #[inline(always)]
    fn dot_unsigned<const N: usize, const MOST: u8>(
        self,
        acc: I32x8,
        weights: &[U8x32; N],
        a: &[[i8; 4]; N],
    ) -> I32x8 {
        if MOST > 31 {
            return self.dot_table(acc, weights, a);
        }
        // 8 products of at most 31 * 127 fit 16 bits.
        let a = fours(a);
        let sums = (products::<N, N>(firsts(weights), &a), products::<N, N>(seconds(weights), &a));
        both!(vaddq_s32(acc, sums))
    }

    #[inline(always)]
    fn dot_bytes<const N: usize>(
        self,
        acc: I32x8,
        weights: &[U8x32; N],
        a: &[[i8; 4]; N],
    ) -> I32x8 {
        // 2 products of at most 128 * 127 fit 16 bits.
        let a = fours(a);
        let sums = (products::<2, N>(firsts(weights), &a), products::<2, N>(seconds(weights), &a));
        both!(vaddq_s32(acc, sums))
    }

    #[inline(always)]
    fn scales_tiles(self, [bytes, _]: [&[u8; 8]; MOST_TILES]) -> F32x8 {
        neon!({
            // Upper halves of floats: the sign, the exponent field plus 112, the mantissa.
            let fields = vshll_n_s8::<4>(vreinterpret_s8_u8(vld1_u8(bytes.as_ptr())));
            let fields = vandq_u16(vreinterpretq_u16_s16(fields), vdupq_n_u16(0x87f0));
            let halves = vorrq_u16(fields, vdupq_n_u16(112 << 7));
            (
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(halves))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(halves))),
            )
        })
    }
}

impl Isa for Neon {
    type Wide = Self;
    const LARGEST_BY_ROW: usize = 0;

    #[inline(always)]
    fn wide(self) -> Self {
        self
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
    fn add(self, a: F32x8, b: F32x8) -> F32x8 {
        both!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: F32x8, b: F32x8) -> F32x8 {
        both!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: F32x8, b: F32x8) -> F32x8 {
        both!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn max(self, a: F32x8, b: F32x8) -> F32x8 {
        // FMAX treats zeros and NaN differently.
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
    fn sum(self, a: F32x8) -> f32 {
        neon!({
            let four = vaddq_f32(a.0, a.1);
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        })
    }

    #[inline(always)]
    fn sums(self, a: [F32x8; 8]) -> F32x8 {
        neon!({
            // Of two registers: (0 + 4) + (2 + 6) and (1 + 5) + (3 + 7) of each.
            let twos = |a: F32x8, b: F32x8| {
                let a = vreinterpretq_f64_f32(vaddq_f32(a.0, a.1));
                let b = vreinterpretq_f64_f32(vaddq_f32(b.0, b.1));
                let first = vreinterpretq_f32_f64(vtrn1q_f64(a, b));
                vaddq_f32(first, vreinterpretq_f32_f64(vtrn2q_f64(a, b)))
            };
            (
                vpaddq_f32(twos(a[0], a[1]), twos(a[2], a[3])),
                vpaddq_f32(twos(a[4], a[5]), twos(a[6], a[7])),
            )
        })
    }

    #[inline(always)]
    fn prefetch<const AHEAD: usize>(self, at: *const u8) {
        // SAFETY: a prefetch has no effect visible to the program, and cannot fault.
        unsafe {
            asm!("prfm pldl1keep, [{at}, {ahead}]", at = in(reg) at, ahead = const AHEAD,
                options(readonly, nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn store_bytes(self, a: U8x32, to: &mut [u8; 32]) {
        neon!({
            vst1q_u8(to.as_mut_ptr(), a.0);
            vst1q_u8(to.as_mut_ptr().add(16), a.1);
        })
    }

    #[inline(always)]
    fn transpose(self, [a, b, c, d, e, f, g, h]: [&[u8; 16]; 8]) -> [U8x32; 4] {
        let (low, high) = (transpose([a, b, c, d]), transpose([e, f, g, h]));
        [(low[0], high[0]), (low[1], high[1]), (low[2], high[2]), (low[3], high[3])]
    }

    #[inline(always)]
    fn load_halves(self, [a, b, c, d, e, f, g, h]: [&[u8; 2]; 8]) -> F32x8 {
        (halves([a, b, c, d]), halves([e, f, g, h]))
    }

    #[inline(always)]
    fn byte<const AT: i32>(self, a: U8x32) -> I32x8 {
        let a = both!(vreinterpretq_u32_u8(a));
        let shifted = match AT {
            0 => a,
            1 => both!(vshrq_n_u32::<8>(a)),
            2 => both!(vshrq_n_u32::<16>(a)),
            _ => both!(vshrq_n_u32::<24>(a)),
        };
        let mask = neon!((vdupq_n_u32(255), vdupq_n_u32(255)));
        let bytes = both!(vandq_u32(shifted, mask));
        both!(vreinterpretq_s32_u32(bytes))
    }

    #[inline(always)]
    fn bits(self, a: U8x32, at: u32, count: u32) -> I32x8 {
        let (by, mask) = neon!((vdupq_n_s32(-(at as i32)), vdupq_n_u32((1 << count) - 1)));
        let (by, mask) = ((by, by), (mask, mask));
        let a = both!(vreinterpretq_u32_u8(a));
        let shifted = both!(vshlq_u32(a, by));
        let bits = both!(vandq_u32(shifted, mask));
        both!(vreinterpretq_s32_u32(bits))
    }

    #[inline(always)]
    fn join(self, low: I32x8, high: I32x8, by: u32) -> I32x8 {
        let by = neon!(vdupq_n_s32(by as i32));
        let by = (by, by);
        let high = both!(vshlq_s32(high, by));
        both!(vaddq_s32(low, high))
    }

    #[inline(always)]
    fn lanes(self, a: I32x8) -> [i32; 8] {
        let mut lanes = [0; 8];
        neon!({
            vst1q_s32(lanes.as_mut_ptr(), a.0);
            vst1q_s32(lanes.as_mut_ptr().add(4), a.1);
        });
        lanes
    }

    #[inline(always)]
    fn spread<const AT: i32>(self, a: U8x32) -> U8x32 {
        neon!({
            // The byte that contains the bits, repeated four times; then one bit of each.
            let rows = [0, 4, 8, 12].map(|row| 0x0101_0101 * (row + AT as u32 / 8));
            let rows = vreinterpretq_u8_u32(vld1q_u32(rows.as_ptr()));
            let bits = vreinterpretq_u8_u32(vdupq_n_u32(0x0804_0201 << (AT % 8)));
            (vtstq_u8(vqtbl1q_u8(a.0, rows), bits), vtstq_u8(vqtbl1q_u8(a.1, rows), bits))
        })
    }

    #[inline(always)]
    fn transpose_eights(self, [a, b, c, d, e, f, g, h]: [&[u8; 8]; 8]) -> [U8x32; 2] {
        let (low, high) = (transpose_eights([a, b, c, d]), transpose_eights([e, f, g, h]));
        [(low[0], high[0]), (low[1], high[1])]
    }

    #[inline(always)]
    fn load_fours(self, [a, b, c, d, e, f, g, h]: [&[u8; 4]; 8]) -> U8x32 {
        (load_fours([a, b, c, d]), load_fours([e, f, g, h]))
    }

    #[inline(always)]
    fn repeat<const AT: i32>(self, a: U8x32) -> U8x32 {
        (repeat::<AT>(a.0), repeat::<AT>(a.1))
    }

    #[inline(always)]
    fn twos<const AT: i32>(self, a: U8x32) -> U8x32 {
        neon!({
            let by = vreinterpretq_s8_u32(vdupq_n_u32(u32::from_le_bytes([0, 254, 252, 250])));
            let (low, high) = (repeat::<AT>(a.0), repeat::<AT>(a.1));
            let mask = vdupq_n_u8(3);
            (vandq_u8(vshlq_u8(low, by), mask), vandq_u8(vshlq_u8(high, by), mask))
        })
    }

    #[inline(always)]
    fn sevens(self, a: U8x32) -> U8x32 {
        (sevens(a.0), sevens(a.1))
    }

    #[inline(always)]
    fn splat_bytes(self, x: u8) -> U8x32 {
        neon!((vdupq_n_u8(x), vdupq_n_u8(x)))
    }

    #[inline(always)]
    fn add_bytes(self, a: U8x32, b: U8x32) -> U8x32 {
        both!(vaddq_u8(a, b))
    }

    #[inline(always)]
    fn and_bytes(self, a: U8x32, b: U8x32) -> U8x32 {
        both!(vandq_u8(a, b))
    }

    #[inline(always)]
    fn negate_where(self, a: U8x32, mask: U8x32) -> U8x32 {
        let flipped = both!(veorq_u8(a, mask));
        both!(vsubq_u8(flipped, mask))
    }

    #[inline(always)]
    fn at_least(self, a: U8x32, least: u8) -> U8x32 {
        let least = self.splat_bytes(least);
        both!(vcgeq_u8(a, least))
    }

    #[inline(always)]
    fn field(self, a: U8x32, at: u32, mask: u8) -> U8x32 {
        let (by, mask) = neon!((vdupq_n_s8(-(at as i8)), vdupq_n_u8(mask)));
        let (by, mask) = ((by, by), (mask, mask));
        let shifted = both!(vshlq_u8(a, by));
        both!(vandq_u8(shifted, mask))
    }

    #[inline(always)]
    fn append<const SHIFT: i32>(self, low: U8x32, high: U8x32) -> U8x32 {
        neon!((vsliq_n_u8::<SHIFT>(low.0, high.0), vsliq_n_u8::<SHIFT>(low.1, high.1)))
    }

    #[inline(always)]
    fn nibbles(self, from: &[u8; 16]) -> U8x32 {
        neon!({
            let bytes = vld1q_u8(from.as_ptr());
            (vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes))
        })
    }

    #[inline(always)]
    fn masks(self, bits: &[u8; 4]) -> U8x32 {
        neon!({
            let bits = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(*bits)));
            let single = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let places = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1));
            let first = vtstq_u8(vqtbl1q_u8(bits, places), single);
            let places = vcombine_u8(vdup_n_u8(2), vdup_n_u8(3));
            let second = vtstq_u8(vqtbl1q_u8(bits, places), single);
            (first, second)
        })
    }

    #[inline(always)]
    fn quarters(self, from: &[u8; 8]) -> U8x32 {
        neon!({
            let bytes = vcombine_u8(vld1_u8(from.as_ptr()), vdup_n_u8(0));
            let by = vreinterpretq_s8_u32(vdupq_n_u32(u32::from_le_bytes([0, 254, 252, 250])));
            let places = vreinterpretq_u8_u64(vdupq_n_u64(0x0101_0101_0000_0000));
            let next = vcombine_u8(vdup_n_u8(0), vdup_n_u8(2));
            let first = vaddq_u8(places, next);
            let second = vaddq_u8(first, vdupq_n_u8(4));
            let (first, second) = (vqtbl1q_u8(bytes, first), vqtbl1q_u8(bytes, second));
            let mask = vdupq_n_u8(3);
            (vandq_u8(vshlq_u8(first, by), mask), vandq_u8(vshlq_u8(second, by), mask))
        })
    }

    #[inline(always)]
    fn dot_row_halves<const MOST: u8>(self, rows: [U8x32; 8], a: &[[i8; 4]; 8]) -> [I32x8; 2] {
        let [first, second] = halves_of(a);
        let mut products = [[neon!(vdupq_n_s32(0)); 8]; 2];
        let [lower, upper] = &mut products;
        for (row, (lower, upper)) in rows.iter().zip(lower.iter_mut().zip(upper)) {
            *lower = neon!(vpaddlq_s16(pairs(row.0, first)));
            *upper = neon!(vpaddlq_s16(pairs(row.1, second)));
        }
        products.map(row_sums)
    }

    #[inline(always)]
    fn dot_rows<const MOST: u8>(self, rows: [U8x32; 8], a: &[[i8; 4]; 8]) -> I32x8 {
        let [first, second] = halves_of(a);
        let mut products = [neon!(vdupq_n_s32(0)); 8];
        for (product, row) in products.iter_mut().zip(rows) {
            *product = neon!(vpadalq_s16(vpaddlq_s16(pairs(row.0, first)), pairs(row.1, second)));
        }
        row_sums(products)
    }
}

pub(super) use neon;
