//! AVX-512 with VNNI in 512-bit registers, for products with coded weights over two tiles at a
//! time. They double the throughput of multiplication on Zen 5 and Intel's servers; on Zen 4 they
//! save instructions.

use std::arch::x86_64::*;

use super::avx2::{Avx2, four, half_sums, magnitudes};
use super::vnni::vnni;
use crate::isa::forward::forward;
use crate::isa::{HighBits, Isa, Kernel, MOST_TILES, TileSimd};

vnni! {
    /// AVX-512 with VNNI: Ice Lake servers and later, Zen 4.
    Avx512, tokens 8, wide Avx512Pair, dot _mm256_dpbusd_epi32,
    has is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni"),
    features "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni"
}

/// Two tiles in registers of 512 bits: the first tile's rows are the lower lanes.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Pair(Avx512);

impl From<Avx512> for Avx512Pair {
    fn from(isa: Avx512) -> Self {
        Self(isa)
    }
}

/// Wraps intrinsics on values, or on memory behind a slice of the right size.
macro_rules! avx512 {
    ($($body:tt)*) => {
        // SAFETY: the receiver is proof that the CPU has the instructions, and each pointer comes
        // from a slice that was checked to be as long as what is read or written, at any alignment.
        unsafe { $($body)* }
    };
}

impl Avx512Pair {
    /// Loads 32 bytes of each tile.
    #[inline(always)]
    fn two(self, [low, high]: [&[u8; 32]; 2]) -> __m512i {
        avx512!({
            let low = _mm256_loadu_si256(low.as_ptr().cast());
            let high = _mm256_loadu_si256(high.as_ptr().cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        })
    }

    /// The same four activations for every row.
    #[inline(always)]
    fn four(self, a: &[i8; 4]) -> __m512i {
        avx512!(_mm512_set1_epi32(i32::from_le_bytes(a.map(|a| a as u8))))
    }
}

impl TileSimd for Avx512Pair {
    const TILES: usize = 2;
    const TOKENS: usize = <Avx512 as TileSimd>::TOKENS;
    const TABLE_BIAS: i32 = <Avx512 as TileSimd>::TABLE_BIAS;
    const BYTE_BIAS: i32 = <Avx512 as TileSimd>::BYTE_BIAS;
    type F32 = __m512;
    type I32 = __m512i;
    type U8 = __m512i;
    type Table = __m512i;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        avx512!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m512i {
        avx512!(_mm512_set1_epi32(x))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        avx512!(_mm512_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn load_tiles(self, [low, high]: [&[f32; 8]; 2]) -> __m512 {
        avx512!({
            let low = _mm256_castps_pd(_mm256_loadu_ps(low.as_ptr()));
            let high = _mm256_castps_pd(_mm256_loadu_ps(high.as_ptr()));
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castpd256_pd512(low), high))
        })
    }

    #[inline(always)]
    fn load_f16_tiles(self, [low, high]: [&[u8; 16]; 2]) -> __m512 {
        avx512!({
            let low = _mm_loadu_si128(low.as_ptr().cast());
            let high = _mm_loadu_si128(high.as_ptr().cast());
            let halves = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high);
            _mm512_cvtph_ps(halves)
        })
    }

    #[inline(always)]
    fn load_scaled_tiles(self, [low, high]: [&[u8; 8]; 2], scales: [&[u8; 2]; 2]) -> __m512 {
        avx512!({
            let low = _mm_loadl_epi64(low.as_ptr().cast());
            let high = _mm_loadl_epi64(high.as_ptr().cast());
            let bytes = _mm512_cvtepi8_epi32(_mm_unpacklo_epi64(low, high));
            let [low, high] = scales;
            let low = _mm512_castsi256_si512(_mm256_set1_epi16(i16::from_le_bytes(*low)));
            let high = _mm256_set1_epi16(i16::from_le_bytes(*high));
            // The upper half of each lane; the lower half is shifted out.
            let scales = _mm512_slli_epi32::<16>(_mm512_inserti64x4::<1>(low, high));
            _mm512_mul_ps(_mm512_cvtepi32_ps(bytes), _mm512_castsi512_ps(scales))
        })
    }

    #[inline(always)]
    fn store_tiles(self, x: __m512, to: &mut [f32]) {
        let to: &mut [f32; 16] = to.first_chunk_mut().expect("two tiles have sixteen rows");
        avx512!(_mm512_storeu_ps(to.as_mut_ptr(), x))
    }

    #[inline(always)]
    fn load_bytes_tiles(self, from: [&[u8; 32]; 2]) -> __m512i {
        self.two(from)
    }

    #[inline(always)]
    fn load_weights_tiles(self, from: [&[u8; 32]; 2]) -> __m512i {
        avx512!(_mm512_xor_si512(self.two(from), _mm512_set1_epi8(-128)))
    }

    #[inline(always)]
    fn scales_tiles(self, [low, high]: [&[u8; 8]; 2]) -> __m512 {
        avx512!({
            let low = _mm_loadl_epi64(low.as_ptr().cast());
            let high = _mm_loadl_epi64(high.as_ptr().cast());
            let bytes = _mm512_cvtepi8_epi32(_mm_unpacklo_epi64(low, high));
            let fields = _mm512_slli_epi32::<20>(bytes);
            let fields = _mm512_and_si512(fields, _mm512_set1_epi32(0x87f0_0000_u32 as i32));
            _mm512_castsi512_ps(_mm512_add_epi32(fields, _mm512_set1_epi32(112 << 23)))
        })
    }

    #[inline(always)]
    fn shift_and<const SHIFT: i32>(self, a: __m512i, mask: u8) -> __m512i {
        avx512!({
            // Shifts by a count in a register: the intrinsics for constant counts take another
            // type.
            let shifted =
                if SHIFT == 0 { a } else { _mm512_srl_epi16(a, _mm_cvtsi32_si128(SHIFT)) };
            _mm512_and_si512(shifted, _mm512_set1_epi8(mask as i8))
        })
    }

    #[inline(always)]
    fn insert<const SHIFT: i32>(self, a: __m512i, b: __m512i, mask: u8) -> __m512i {
        avx512!({
            let by = _mm_cvtsi32_si128(SHIFT.abs());
            let shifted = if SHIFT < 0 { _mm512_srl_epi16(b, by) } else { _mm512_sll_epi16(b, by) };
            let mask = _mm512_set1_epi8(mask as i8);
            _mm512_or_si512(_mm512_andnot_si512(mask, a), _mm512_and_si512(mask, shifted))
        })
    }

    #[inline(always)]
    fn table(self, entries: &[i8; 16]) -> __m512i {
        avx512!({
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(entries.as_ptr().cast()));
            _mm512_add_epi8(table, _mm512_set1_epi8(Self::TABLE_BIAS as i8))
        })
    }

    #[inline(always)]
    fn lookup(self, table: __m512i, codes: __m512i) -> __m512i {
        avx512!(_mm512_shuffle_epi8(table, codes))
    }

    #[inline(always)]
    fn dot4_table(self, acc: __m512i, weights: __m512i, a: &[i8; 4]) -> __m512i {
        avx512!(_mm512_dpbusd_epi32(acc, weights, self.four(a)))
    }

    #[inline(always)]
    fn dot4_bytes(self, acc: __m512i, weights: __m512i, a: &[i8; 4]) -> __m512i {
        self.dot4_table(acc, weights, a)
    }
}
