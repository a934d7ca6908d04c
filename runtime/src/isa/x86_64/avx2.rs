//! AVX2 with FMA and F16C.

use std::arch::x86_64::*;

use crate::isa::{BIAS, EITHER_SIGN, HighBits, Isa, Kernel, MOST_TILES, TileSimd};

/// Proof that this CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// Detects CPU support.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }

    /// Runs a kernel compiled for these instructions.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<K: Kernel>(isa: Avx2, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` exists only if `detect` found the instructions.
        unsafe { compiled(self, kernel) }
    }
}

/// Wraps intrinsics on values, or on memory behind a reference of the right size.
macro_rules! avx2 {
    ($($body:tt)*) => {
        // SAFETY: the receiver is proof that the CPU has the instructions, and each pointer comes
        // from a reference to an array of the size that is read or written, at any alignment.
        unsafe { $($body)* }
    };
}

/// The same four activations for every row.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
pub(super) unsafe fn four(a: &[i8; 4]) -> __m256i {
    avx2!(_mm256_set1_epi32(i32::from_le_bytes(a.map(|a| a as u8))))
}

/// Sixteen bytes of one row and sixteen of another, in one register.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn two(low: &[u8; 16], high: &[u8; 16]) -> __m256i {
    avx2!({
        let low = _mm_loadu_si128(low.as_ptr().cast());
        let high = _mm_loadu_si128(high.as_ptr().cast());
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
    })
}

/// How many pairs of products of activations with codes up to `MOST`, of the eight of a row, have a
/// sum of 16 bits in any case.
const fn pairs_in_16_bits(most: u8) -> i32 {
    let mut pairs = 8;
    while pairs > 1 && pairs * 2 * most as i32 * 127 > i16::MAX as i32 {
        pairs /= 2;
    }
    pairs
}

/// Adds sums which have `PAIRS` pairs of products then: in 16 bits where they fit, else in 32.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn add_pairs<const MOST: u8, const PAIRS: i32>(a: __m256i, b: __m256i) -> __m256i {
    avx2!(match PAIRS <= pairs_in_16_bits(MOST) {
        true => _mm256_add_epi16(a, b),
        false => _mm256_add_epi32(a, b),
    })
}

/// Sums of `PAIRS` pairs of products, brought to 32 bits if more do not fit 16.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn widen<const MOST: u8, const PAIRS: i32>(sums: __m256i) -> __m256i {
    avx2!(match PAIRS == pairs_in_16_bits(MOST) {
        true => _mm256_madd_epi16(sums, _mm256_set1_epi16(1)),
        false => sums,
    })
}

/// The sums of each row's lower and of its upper half, from [`row_pairs`]: a lane of 32 bits per row,
/// or two of 16 where all pairs fit these.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
pub(super) unsafe fn half_sums<const MOST: u8>(rows: [__m256i; 8]) -> [__m256i; 2] {
    avx2!({
        // Lanes 0 + 2 and 1 + 3 of each half, of two rows side by side.
        let mut twos = [rows[0]; 4];
        for (two, [a, b]) in twos.iter_mut().zip(rows.as_chunks().0) {
            let (low, high) = (_mm256_unpacklo_epi32(*a, *b), _mm256_unpackhi_epi32(*a, *b));
            *two = widen::<MOST, 2>(add_pairs::<MOST, 2>(low, high));
        }
        let mut fours = [twos[0]; 2];
        for (four, [a, b]) in fours.iter_mut().zip(twos.as_chunks().0) {
            let (low, high) = (_mm256_unpacklo_epi64(*a, *b), _mm256_unpackhi_epi64(*a, *b));
            *four = widen::<MOST, 4>(add_pairs::<MOST, 4>(low, high));
        }
        let [low, high] = fours;
        [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)]
    })
}

/// Pairs of products of each row, two of which are added to a lane of 32 bits if they do not fit 16.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn row_pairs<const MOST: u8>(rows: [__m256i; 8], a: &[[i8; 4]; 8]) -> [__m256i; 8] {
    avx2!({
        let a = _mm256_loadu_si256(a.as_ptr().cast());
        let mut products = rows;
        for row in &mut products {
            // At most 2 * 128 * 127 in 16 bits, so nothing saturates.
            let pairs = if MOST == EITHER_SIGN {
                _mm256_maddubs_epi16(_mm256_abs_epi8(*row), _mm256_sign_epi8(a, *row))
            } else {
                _mm256_maddubs_epi16(*row, a)
            };
            *row = widen::<MOST, 1>(pairs);
        }
        products
    })
}

/// The largest code of `dot_groups`.
const SMALL: u8 = 64;

/// The magnitudes of eight groups' codes and the activations, which are negated where codes are
/// negative or, if there are signs, where these have bits set.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
pub(super) unsafe fn magnitudes(
    codes: [__m256i; 8],
    signs: Option<&[[u8; 4]; 8]>,
    a: &[[[i8; 4]; 8]; 8],
) -> ([__m256i; 8], [__m256i; 8]) {
    avx2!({
        let (mut magnitudes, mut negated) = (codes, codes);
        for (group, (codes, negated)) in magnitudes.iter_mut().zip(&mut negated).enumerate() {
            let a = _mm256_loadu_si256(a[group].as_ptr().cast());
            match signs {
                Some(signs) => {
                    // One bit of each byte, plus 127: negative where the bit is set, else positive.
                    let (first, second) = (0, 0x0101_0101_0101_0101);
                    let places = _mm256_setr_epi64x(first, second, 2 * second, 3 * second);
                    let bytes = _mm256_set1_epi32(i32::from_le_bytes(signs[group]));
                    let bits = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
                    let bit = _mm256_and_si256(_mm256_shuffle_epi8(bytes, places), bits);
                    *negated = _mm256_sign_epi8(a, _mm256_add_epi8(bit, _mm256_set1_epi8(127)));
                }
                None => {
                    *negated = _mm256_sign_epi8(a, *codes);
                    *codes = _mm256_abs_epi8(*codes);
                }
            }
        }
        (magnitudes, negated)
    })
}

impl TileSimd for Avx2 {
    const TILES: usize = 1;
    type F32 = __m256;
    type I32 = __m256i;
    type U8 = __m256i;
    type Table = __m256i;

    const TABLE_BIAS: i32 = BIAS;
    const BYTE_BIAS: i32 = 0;
    const TOKENS: usize = 4;
    const MANY_FROM: usize = 2;
    const FEWEST_BITS: u32 = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        avx2!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    fn load_tiles(self, [from, _]: [&[f32; 8]; MOST_TILES]) -> __m256 {
        avx2!(_mm256_loadu_ps(from.as_ptr()))
    }

    #[inline(always)]
    fn load_f16_tiles(self, [from, _]: [&[u8; 16]; MOST_TILES]) -> __m256 {
        avx2!(_mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn load_scaled_tiles(
        self,
        [bytes, _]: [&[u8; 8]; MOST_TILES],
        [scale, _]: [&[u8; 2]; MOST_TILES],
    ) -> __m256 {
        avx2!({
            let bytes = _mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast()));
            // The upper half of each lane; the lower half is shifted out.
            let scale = _mm256_slli_epi32::<16>(_mm256_set1_epi16(i16::from_le_bytes(*scale)));
            _mm256_mul_ps(_mm256_cvtepi32_ps(bytes), _mm256_castsi256_ps(scale))
        })
    }

    #[inline(always)]
    fn store_tiles(self, x: __m256, to: &mut [f32]) {
        let to: &mut [f32; 8] = to.first_chunk_mut().expect("a tile has eight rows");
        avx2!(_mm256_storeu_ps(to.as_mut_ptr(), x))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn to_f32(self, a: __m256i) -> __m256 {
        avx2!(_mm256_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m256i {
        avx2!(_mm256_set1_epi32(x))
    }

    #[inline(always)]
    fn load_bytes_tiles(self, [from, _]: [&[u8; 32]; MOST_TILES]) -> __m256i {
        avx2!(_mm256_loadu_si256(from.as_ptr().cast()))
    }

    #[inline(always)]
    fn shift_and<const SHIFT: i32>(self, a: __m256i, mask: u8) -> __m256i {
        avx2!({
            let shifted = if SHIFT == 0 { a } else { _mm256_srli_epi16::<SHIFT>(a) };
            _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
        })
    }

    #[inline(always)]
    fn insert<const SHIFT: i32>(self, a: __m256i, b: __m256i, mask: u8) -> __m256i {
        avx2!({
            // Shift counts in registers may be zero; these are constants nevertheless.
            let by = _mm_cvtsi32_si128(SHIFT.abs());
            let shifted = if SHIFT < 0 { _mm256_srl_epi16(b, by) } else { _mm256_sll_epi16(b, by) };
            let mask = _mm256_set1_epi8(mask as i8);
            _mm256_or_si256(_mm256_andnot_si256(mask, a), _mm256_and_si256(mask, shifted))
        })
    }

    #[inline(always)]
    fn table(self, entries: &[i8; 16]) -> __m256i {
        avx2!({
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(entries.as_ptr().cast()));
            _mm256_add_epi8(table, _mm256_set1_epi8(64))
        })
    }

    #[inline(always)]
    fn lookup(self, table: __m256i, codes: __m256i) -> __m256i {
        avx2!(_mm256_shuffle_epi8(table, codes))
    }

    #[inline(always)]
    fn load_weights_tiles(self, [from, _]: [&[u8; 32]; MOST_TILES]) -> __m256i {
        self.load_bytes(from)
    }

    #[inline(always)]
    fn dot4_table(self, acc: __m256i, weights: __m256i, a: &[i8; 4]) -> __m256i {
        avx2!({
            // at most 2 * 128 * 127 in 16 bits, so nothing saturates
            let pairs = _mm256_maddubs_epi16(weights, four(a));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }

    #[inline(always)]
    fn dot4_bytes(self, acc: __m256i, weights: __m256i, a: &[i8; 4]) -> __m256i {
        avx2!({
            // |w| * sign(w) a: with 128 added to the weights, pairs would not fit 16 bits
            let a = _mm256_sign_epi8(four(a), weights);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), a);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }

    #[inline(always)]
    fn dot_unsigned<const N: usize, const MOST: u8>(
        self,
        mut acc: __m256i,
        weights: &[__m256i; N],
        a: &[[i8; 4]; N],
    ) -> __m256i {
        // Registers whose pairs fit 16 bits together: 8, 4 or 2.
        let together = const { i16::MAX as usize / (2 * MOST as usize * 127) };
        let mut at = 0;
        while at < N {
            avx2!({
                let mut pairs = _mm256_maddubs_epi16(weights[at], four(&a[at]));
                let mut next = at + 1;
                while next < at + together && next < N {
                    let more = _mm256_maddubs_epi16(weights[next], four(&a[next]));
                    pairs = _mm256_add_epi16(pairs, more);
                    next += 1;
                }
                acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            });
            at += together;
        }
        acc
    }

    #[inline(always)]
    fn scales_tiles(self, [bytes, _]: [&[u8; 8]; MOST_TILES]) -> __m256 {
        avx2!({
            let bytes = _mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast()));
            let fields = _mm256_slli_epi32::<20>(bytes);
            let fields = _mm256_and_si256(fields, _mm256_set1_epi32(0x87f0_0000_u32 as i32));
            _mm256_castsi256_ps(_mm256_add_epi32(fields, _mm256_set1_epi32(112 << 23)))
        })
    }
}

impl Isa for Avx2 {
    type Wide = Self;

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 16]) -> __m256 {
        avx2!({
            let upper = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(upper))
        })
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        avx2!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256i {
        avx2!(_mm256_cvtps_epi32(a)) // the rounding mode is always the default, ties to even
    }

    #[inline(always)]
    fn exp2i(self, n: __m256i) -> __m256 {
        avx2!({
            let exponent = _mm256_add_epi32(n, _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn store_i8(self, a: __m256i, to: &mut [i8; 8]) {
        avx2!({
            let words =
                _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_packs_epi16(words, words))
        })
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        avx2!({
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn sums(self, a: [__m256; 8]) -> __m256 {
        avx2!({
            // Registers r and r + 4 as halves of one: lanes 0 + 4, 1 + 5, 2 + 6, 3 + 7 of each.
            let mut fours = [_mm256_setzero_ps(); 4];
            for (r, four) in fours.iter_mut().enumerate() {
                let first = _mm256_permute2f128_ps::<0x20>(a[r], a[r + 4]);
                *four = _mm256_add_ps(first, _mm256_permute2f128_ps::<0x31>(a[r], a[r + 4]));
            }
            // Of two such pairs: (0 + 4) + (2 + 6) and (1 + 5) + (3 + 7) of each.
            let mut twos = [_mm256_setzero_ps(); 2];
            for (two, [a, b]) in twos.iter_mut().zip(fours.as_chunks().0) {
                let (a, b) = (_mm256_castps_pd(*a), _mm256_castps_pd(*b));
                let first = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                *two = _mm256_add_ps(first, _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
            }
            let [low, high] = twos;
            let even = _mm256_shuffle_ps::<0b10_00_10_00>(low, high);
            _mm256_add_ps(even, _mm256_shuffle_ps::<0b11_01_11_01>(low, high))
        })
    }

    #[inline(always)]
    fn max_lane(self, a: __m256) -> f32 {
        avx2!({
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn prefetch<const AHEAD: usize>(self, at: *const u8) {
        avx2!(_mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast()))
    }

    #[inline(always)]
    fn store_bytes(self, a: __m256i, to: &mut [u8; 32]) {
        avx2!(_mm256_storeu_si256(to.as_mut_ptr().cast(), a))
    }

    #[inline(always)]
    fn transpose(self, [a, b, c, d, e, f, g, h]: [&[u8; 16]; 8]) -> [__m256i; 4] {
        avx2!({
            // Rows r and r + 4 are in the two halves of one register, which all later steps keep
            // separate.
            let (a, b) = (two(a, e), two(b, f));
            let (c, d) = (two(c, g), two(d, h));
            let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (first, second) = (_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
            let (ab, cd) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            let (third, fourth) = (_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
            [first, second, third, fourth]
        })
    }

    #[inline(always)]
    fn load_halves(self, [a, b, c, d, e, f, g, h]: [&[u8; 2]; 8]) -> __m256 {
        avx2!({
            let halves = _mm_setzero_si128();
            let halves = _mm_insert_epi16::<0>(halves, i16::from_le_bytes(*a).into());
            let halves = _mm_insert_epi16::<1>(halves, i16::from_le_bytes(*b).into());
            let halves = _mm_insert_epi16::<2>(halves, i16::from_le_bytes(*c).into());
            let halves = _mm_insert_epi16::<3>(halves, i16::from_le_bytes(*d).into());
            let halves = _mm_insert_epi16::<4>(halves, i16::from_le_bytes(*e).into());
            let halves = _mm_insert_epi16::<5>(halves, i16::from_le_bytes(*f).into());
            let halves = _mm_insert_epi16::<6>(halves, i16::from_le_bytes(*g).into());
            let halves = _mm_insert_epi16::<7>(halves, i16::from_le_bytes(*h).into());
            _mm256_cvtph_ps(halves)
        })
    }

    #[inline(always)]
    fn byte<const AT: i32>(self, a: __m256i) -> __m256i {
        avx2!({
            let shifted = match AT {
                0 => a,
                1 => _mm256_srli_epi32::<8>(a),
                2 => _mm256_srli_epi32::<16>(a),
                _ => _mm256_srli_epi32::<24>(a),
            };
            if AT == 3 { shifted } else { _mm256_and_si256(shifted, _mm256_set1_epi32(255)) }
        })
    }

    #[inline(always)]
    fn bits(self, a: __m256i, at: u32, count: u32) -> __m256i {
        avx2!({
            // Counts are constants, which the compiler turns into shifts by immediates.
            let shifted = _mm256_srl_epi32(a, _mm_cvtsi32_si128(at as i32));
            _mm256_and_si256(shifted, _mm256_set1_epi32((1 << count) - 1))
        })
    }

    #[inline(always)]
    fn join(self, low: __m256i, high: __m256i, by: u32) -> __m256i {
        avx2!({
            let high = _mm256_sll_epi32(high, _mm_cvtsi32_si128(by as i32));
            _mm256_add_epi32(low, high)
        })
    }

    #[inline(always)]
    fn lanes(self, a: __m256i) -> [i32; 8] {
        let mut lanes = [0i32; 8];
        avx2!(_mm256_storeu_si256(lanes.as_mut_ptr().cast(), a));
        lanes
    }

    #[inline(always)]
    fn spread<const AT: i32>(self, a: __m256i) -> __m256i {
        avx2!({
            // The byte that contains the bits, repeated four times; then one bit of each.
            let byte = AT / 8 * 0x0101_0101;
            let rows =
                _mm_setr_epi32(byte, byte + 0x0404_0404, byte + 0x0808_0808, byte + 0x0c0c_0c0c);
            let bytes = _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(rows));
            let bits = _mm256_set1_epi32(0x0804_0201 << (AT % 8));
            _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits)
        })
    }

    #[inline(always)]
    fn transpose_eights(self, rows: [&[u8; 8]; 8]) -> [__m256i; 2] {
        let [a, b, c, d, e, f, g, h] = rows;
        let row = |row: &[u8; 8]| i64::from_le_bytes(*row);
        avx2!({
            // Rows r and r + 4 in the halves of one register, as in `transpose`.
            let ab = _mm256_castsi256_ps(_mm256_setr_epi64x(row(a), row(b), row(e), row(f)));
            let cd = _mm256_castsi256_ps(_mm256_setr_epi64x(row(c), row(d), row(g), row(h)));
            [
                _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(ab, cd)),
                _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(ab, cd)),
            ]
        })
    }

    #[inline(always)]
    fn load_fours(self, [a, b, c, d, e, f, g, h]: [&[u8; 4]; 8]) -> __m256i {
        let row = |row: &[u8; 4]| i32::from_le_bytes(*row);
        avx2!(_mm256_setr_epi32(row(a), row(b), row(c), row(d), row(e), row(f), row(g), row(h)))
    }

    #[inline(always)]
    fn repeat<const AT: i32>(self, a: __m256i) -> __m256i {
        avx2!({
            let at = AT * 0x0101_0101;
            let rows = _mm_setr_epi32(at, at + 0x0404_0404, at + 0x0808_0808, at + 0x0c0c_0c0c);
            _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(rows))
        })
    }

    #[inline(always)]
    fn twos<const AT: i32>(self, a: __m256i) -> __m256i {
        avx2!({
            // The upper half of the byte sixteen bits up, then the upper halves of both eight bits up.
            let byte = self.byte::<AT>(a);
            let fours = _mm256_or_si256(byte, _mm256_slli_epi32::<12>(byte));
            let fours = _mm256_and_si256(fours, _mm256_set1_epi32(0x000f_000f));
            let twos = _mm256_or_si256(fours, _mm256_slli_epi32::<6>(fours));
            _mm256_and_si256(twos, _mm256_set1_epi32(0x0303_0303))
        })
    }

    #[inline(always)]
    fn sevens(self, a: __m256i) -> __m256i {
        avx2!({
            let first = _mm256_and_si256(a, _mm256_set1_epi32(0x7f));
            let second = _mm256_slli_epi32::<1>(a);
            let second = _mm256_and_si256(second, _mm256_set1_epi32(0x7f00));
            let third = _mm256_slli_epi32::<2>(a);
            let third = _mm256_and_si256(third, _mm256_set1_epi32(0x7f_0000));
            let fourth = _mm256_slli_epi32::<3>(a);
            let fourth = _mm256_and_si256(fourth, _mm256_set1_epi32(0x7f00_0000));
            _mm256_or_si256(_mm256_or_si256(first, second), _mm256_or_si256(third, fourth))
        })
    }

    #[inline(always)]
    fn splat_bytes(self, x: u8) -> __m256i {
        avx2!(_mm256_set1_epi8(x as i8))
    }

    #[inline(always)]
    fn add_bytes(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_add_epi8(a, b))
    }

    #[inline(always)]
    fn and_bytes(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_and_si256(a, b))
    }

    #[inline(always)]
    fn negate_where(self, a: __m256i, mask: __m256i) -> __m256i {
        avx2!(_mm256_sub_epi8(_mm256_xor_si256(a, mask), mask))
    }

    #[inline(always)]
    fn at_least(self, a: __m256i, least: u8) -> __m256i {
        avx2!(_mm256_cmpeq_epi8(_mm256_max_epu8(a, _mm256_set1_epi8(least as i8)), a))
    }

    #[inline(always)]
    fn field(self, a: __m256i, at: u32, mask: u8) -> __m256i {
        avx2!({
            let shifted = _mm256_srl_epi16(a, _mm_cvtsi32_si128(at as i32));
            _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
        })
    }

    #[inline(always)]
    fn append<const SHIFT: i32>(self, low: __m256i, high: __m256i) -> __m256i {
        avx2!(_mm256_or_si256(low, _mm256_slli_epi16::<SHIFT>(high)))
    }

    #[inline(always)]
    fn nibbles(self, from: &[u8; 16]) -> __m256i {
        avx2!({
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
            _mm256_and_si256(both, _mm256_set1_epi8(15))
        })
    }

    #[inline(always)]
    fn masks(self, bits: &[u8; 4]) -> __m256i {
        avx2!({
            // Each byte eight times; then one bit of each.
            let (first, second) = (0, 0x0101_0101_0101_0101);
            let places = _mm256_setr_epi64x(first, second, 2 * second, 3 * second);
            let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(*bits)), places);
            let bits = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits)
        })
    }

    #[inline(always)]
    fn load_eights(self, from: [&[u8; 8]; 4]) -> __m256i {
        let [a, b, c, d] = from.map(|eight| i64::from_le_bytes(*eight));
        avx2!(_mm256_setr_epi64x(a, b, c, d))
    }

    #[inline(always)]
    fn odd_bytes(self, from: &[u8; 64]) -> __m256i {
        let [low, high] = from.as_chunks::<32>().0 else { unreachable!("twice 32 bytes") };
        avx2!({
            let low = _mm256_srli_epi16::<8>(_mm256_loadu_si256(low.as_ptr().cast()));
            let high = _mm256_srli_epi16::<8>(_mm256_loadu_si256(high.as_ptr().cast()));
            // Eight bytes of each in turn.
            _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(low, high))
        })
    }

    #[inline(always)]
    fn extended(self, low: &[u8; 16], high: &[u8; 16], bits: &HighBits) -> [u16; 16] {
        let mut numbers = [0; 16];
        avx2!({
            let low = _mm256_cvtepu8_epi16(_mm_loadu_si128(low.as_ptr().cast()));
            let high = _mm256_broadcastsi128_si256(_mm_loadu_si128(high.as_ptr().cast()));
            let high = _mm256_shuffle_epi8(high, _mm256_loadu_si256(bits.from.as_ptr().cast()));
            let times = _mm256_loadu_si256(bits.times.as_ptr().cast());
            let mask = _mm256_set1_epi16(bits.mask as i16);
            let high = _mm256_and_si256(_mm256_mullo_epi16(high, times), mask);
            _mm256_storeu_si256(numbers.as_mut_ptr().cast(), _mm256_or_si256(low, high));
        });
        numbers
    }

    #[inline(always)]
    fn dot_groups(
        self,
        codes: [__m256i; 8],
        signs: Option<&[[u8; 4]; 8]>,
        a: &[[[i8; 4]; 8]; 8],
    ) -> [__m256; 2] {
        avx2!({
            let (factors, a) = magnitudes(codes, signs, a);
            let mut pairs = factors;
            for (pairs, a) in pairs.iter_mut().zip(a) {
                *pairs = widen::<SMALL, 1>(_mm256_maddubs_epi16(*pairs, a));
            }
            let [first, second] = half_sums::<SMALL>(pairs);
            let (first, second) = (widen::<SMALL, 8>(first), widen::<SMALL, 8>(second));
            [_mm256_cvtepi32_ps(first), _mm256_cvtepi32_ps(second)]
        })
    }

    #[inline(always)]
    fn transpose_lanes(self, [a, b, c, d, e, f, g, h]: [__m256; 8]) -> [__m256; 8] {
        avx2!({
            // Lanes 0 and 1, then 2 and 3, of each half of two rows side by side.
            let (ab, ab_above) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd, cd_above) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let (ef, ef_above) = (_mm256_unpacklo_ps(e, f), _mm256_unpackhi_ps(e, f));
            let (gh, gh_above) = (_mm256_unpacklo_ps(g, h), _mm256_unpackhi_ps(g, h));
            // One lane of each half, of four rows side by side.
            let mut columns = [a; 8];
            for (at, [first, second, third, fourth]) in
                [[ab, cd, ef, gh], [ab_above, cd_above, ef_above, gh_above]].into_iter().enumerate()
            {
                let low = _mm256_shuffle_ps::<0b01_00_01_00>(first, second);
                let low_next = _mm256_shuffle_ps::<0b11_10_11_10>(first, second);
                let high = _mm256_shuffle_ps::<0b01_00_01_00>(third, fourth);
                let high_next = _mm256_shuffle_ps::<0b11_10_11_10>(third, fourth);
                columns[2 * at] = _mm256_permute2f128_ps::<0x20>(low, high);
                columns[2 * at + 1] = _mm256_permute2f128_ps::<0x20>(low_next, high_next);
                columns[2 * at + 4] = _mm256_permute2f128_ps::<0x31>(low, high);
                columns[2 * at + 5] = _mm256_permute2f128_ps::<0x31>(low_next, high_next);
            }
            columns
        })
    }

    #[inline(always)]
    fn quarters(self, from: &[u8; 8]) -> __m256i {
        avx2!({
            // Each byte four times, the last two of them shifted by four bits.
            let (first, next) = (0x0101_0101_0000_0000, 0x0202_0202_0202_0202);
            let places =
                _mm256_setr_epi64x(first, first + next, first + 2 * next, first + 3 * next);
            let bytes = _mm256_set1_epi64x(i64::from_le_bytes(*from));
            let bytes = _mm256_shuffle_epi8(bytes, places);
            let nibbles = _mm256_blend_epi16::<0b1010_1010>(bytes, _mm256_srli_epi16::<4>(bytes));
            let even = _mm256_and_si256(nibbles, _mm256_set1_epi16(0x0003));
            let odd = _mm256_srli_epi16::<2>(nibbles);
            _mm256_or_si256(even, _mm256_and_si256(odd, _mm256_set1_epi16(0x0300)))
        })
    }

    #[inline(always)]
    fn dot_row_halves<const MOST: u8>(self, rows: [__m256i; 8], a: &[[i8; 4]; 8]) -> [__m256i; 2] {
        avx2!({
            let mut halves = half_sums::<MOST>(row_pairs::<MOST>(rows, a));
            for half in &mut halves {
                *half = widen::<MOST, 8>(*half);
            }
            halves
        })
    }

    #[inline(always)]
    fn dot_rows<const MOST: u8>(self, rows: [__m256i; 8], a: &[[i8; 4]; 8]) -> __m256i {
        avx2!({
            let [first, second] = half_sums::<MOST>(row_pairs::<MOST>(rows, a));
            widen::<MOST, 8>(add_pairs::<MOST, 8>(first, second))
        })
    }
}
