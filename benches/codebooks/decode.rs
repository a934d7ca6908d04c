//! What reading a code costs: a product of 8 rows with one token's activations, as a runtime's kernel would do it in
//! AVX2, one thread, codes in cache. Each loop is first held to the plain definition of its code. Orders of bytes are
//! those that suit each code.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::time::Instant;

use crate::data::Random;
use crate::lattice::magnitudes;
use crate::trellis::one_mad;

const COLS: usize = 2048;
const GROUPS: usize = COLS / 32;
/// Of 8 rows, 32 columns and 2 bits.
const BYTES: usize = 64;
/// Tiles of 8 rows.
const TILES: usize = 16;
/// Timings, of which the median counts.
const RUNS: usize = 101;

type Group = [u8; BYTES];

/// Codes, one token's activations and what else loops look up.
struct Input {
    codes: Vec<Group>,
    a: Vec<[i8; 32]>,
    /// Each group's sum: what biased weights have too much.
    sums: Vec<i32>,
    scales: Vec<[f32; 8]>,
    /// Of 4 and 16 entries.
    table: [i8; 16],
    /// 256 times 4 weights.
    vectors: Vec<[i8; 4]>,
    /// 256 times the magnitudes of 8 weights, in quarters, the last negative where the sum is odd.
    magnitudes: Vec<[i8; 8]>,
    /// 128 times 8 signs, of which an even number is negative.
    signs: Vec<[i8; 8]>,
    /// What is added: a quarter more or less.
    shifts: [[i8; 8]; 2],
}

/// A code, as weights with a bias.
trait Reader {
    const NAME: &'static str;
    const BIAS: i32;

    /// The weight of a row and column of a group, after another.
    fn weight(input: &Input, before: &Group, codes: &Group, r: usize, k: usize) -> i32;

    /// The products of 8 rows, biased.
    ///
    /// # Safety
    /// The CPU must have AVX2.
    unsafe fn products(input: &Input, before: &Group, codes: &Group, a: &[i8; 32]) -> __m256i;
}

/// Nanoseconds per weight of each code.
pub fn measure() -> Vec<(&'static str, f64)> {
    if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
        return Vec::new();
    }
    let input = Input::new();
    vec![
        time::<Table>(&input),
        time::<Window>(&input),
        time::<Vectors>(&input),
        time::<Lattice>(&input),
        time::<Trellis>(&input),
    ]
}

fn time<R: Reader>(input: &Input) -> (&'static str, f64) {
    // SAFETY: `measure` has asked the CPU.
    let run = |tile: &[Group]| unsafe { rows::<R>(input, tile) };
    for tile in input.codes.chunks_exact(GROUPS) {
        assert_eq!(run(tile), defined::<R>(input, tile), "{}", R::NAME);
    }
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let since = Instant::now();
            for tile in black_box(&input.codes).chunks_exact(GROUPS) {
                black_box(run(tile));
            }
            since.elapsed().as_secs_f64() * 1e9 / (TILES * 8 * COLS) as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (R::NAME, times[RUNS / 2])
}

/// # Safety
/// The CPU must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn rows<R: Reader>(input: &Input, tile: &[Group]) -> [f32; 8] {
    let mut sum = _mm256_setzero_ps();
    let mut before = &[0; BYTES];
    for (group, codes) in tile.iter().enumerate() {
        // SAFETY: as this function's; the scales are eight floats.
        let (products, scales) = unsafe {
            let products = R::products(input, before, codes, &input.a[group]);
            (products, _mm256_loadu_ps(input.scales[group].as_ptr()))
        };
        let products = _mm256_sub_epi32(products, _mm256_set1_epi32(R::BIAS * input.sums[group]));
        sum = _mm256_fmadd_ps(scales, _mm256_cvtepi32_ps(products), sum);
        before = codes;
    }
    let mut out = [0.0; 8];
    // SAFETY: there is room for eight floats.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sum) };
    out
}

fn defined<R: Reader>(input: &Input, tile: &[Group]) -> [f32; 8] {
    std::array::from_fn(|r| {
        let mut before = &[0; BYTES];
        let mut sum = 0;
        for (codes, a) in tile.iter().zip(&input.a) {
            let product = |k: usize| R::weight(input, before, codes, r, k) * i32::from(a[k]);
            sum += (0..32).map(product).sum::<i32>();
            before = codes;
        }
        sum as f32
    })
}

impl Input {
    fn new() -> Self {
        let mut random = Random::new(11);
        let codes = (0..TILES * GROUPS).map(|_| std::array::from_fn(|_| random.next() as u8));
        let codes = codes.collect();
        let mut small = |most: u64| (random.next() % (2 * most + 1)) as i8 - most as i8;
        // Small, so that sums are exact in f32.
        let a: Vec<[i8; 32]> = (0..GROUPS).map(|_| std::array::from_fn(|_| small(7))).collect();
        let table = std::array::from_fn(|_| small(63));
        let vectors = (0..256).map(|_| std::array::from_fn(|_| small(63))).collect();
        let magnitudes = magnitudes().into_iter().map(|point| {
            let odd = point.iter().sum::<f32>() % 2.0 != 0.0;
            let mut quarters = point.map(|x| (4.0 * x) as i8);
            quarters[7] *= if odd { -1 } else { 1 };
            quarters
        });
        let signs = (0..128u32).map(|bits| {
            let bits = bits | (bits.count_ones() & 1) << 7;
            std::array::from_fn(|i| if bits >> i & 1 == 0 { 1 } else { -1 })
        });
        Self {
            sums: a.iter().map(|a| a.iter().map(|a| i32::from(*a)).sum()).collect(),
            codes,
            a,
            scales: vec![[1.0; 8]; GROUPS],
            table,
            vectors,
            magnitudes: magnitudes.collect(),
            signs: signs.collect(),
            shifts: [[LATTICE_BIAS + 1; 8], [LATTICE_BIAS - 1; 8]],
        }
    }
}

/// Intrinsics on values, or on memory that a reference of the right size vouches for.
macro_rules! avx2 {
    ($($body:tt)*) => {
        // SAFETY: the caller vouches for the CPU, and pointers come from references to what is read.
        unsafe { $($body)* }
    };
}

/// Adds the products of 8 rows by 4 columns, weights from 0 to 128, with four activations.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn dot4(sum: __m256i, weights: __m256i, a: &[i8; 32], at: usize) -> __m256i {
    let four = i32::from_le_bytes(std::array::from_fn(|i| a[4 * at + i] as u8));
    avx2!({
        let pairs = _mm256_maddubs_epi16(weights, _mm256_set1_epi32(four));
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    })
}

/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn biased(table: &[i8; 16]) -> __m256i {
    avx2!({
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
        _mm256_add_epi8(table, _mm256_set1_epi8(64))
    })
}

/// e2's code of a row and column.
fn two_bits(codes: &Group, r: usize, k: usize) -> usize {
    usize::from(codes[k / 16 * 32 + 4 * r + k % 4] >> (k / 4 % 4 * 2) & 3)
}

struct Table;

impl Reader for Table {
    const NAME: &'static str = "e2: a table of 4";
    const BIAS: i32 = 64;

    fn weight(input: &Input, _: &Group, codes: &Group, r: usize, k: usize) -> i32 {
        i32::from(input.table[two_bits(codes, r, k)])
    }

    #[inline(always)]
    unsafe fn products(input: &Input, _: &Group, codes: &Group, a: &[i8; 32]) -> __m256i {
        avx2!({
            let (table, three) = (biased(&input.table), _mm256_set1_epi8(3));
            let mut sum = _mm256_setzero_si256();
            for half in 0..2 {
                let run = _mm256_loadu_si256(codes[32 * half..].as_ptr().cast());
                let codes = [
                    run,
                    _mm256_srli_epi16::<2>(run),
                    _mm256_srli_epi16::<4>(run),
                    _mm256_srli_epi16::<6>(run),
                ];
                for (i, codes) in codes.into_iter().enumerate() {
                    let weights = _mm256_shuffle_epi8(table, _mm256_and_si256(codes, three));
                    sum = dot4(sum, weights, a, 4 * half + i);
                }
            }
            sum
        })
    }
}

struct Window;

impl Reader for Window {
    const NAME: &'static str = "window of 4 bits: a table of 16";
    const BIAS: i32 = 64;

    fn weight(input: &Input, before: &Group, codes: &Group, r: usize, k: usize) -> i32 {
        let older = if k < 4 { two_bits(before, r, k + 28) } else { two_bits(codes, r, k - 4) };
        i32::from(input.table[two_bits(codes, r, k) << 2 | older])
    }

    #[inline(always)]
    unsafe fn products(input: &Input, before: &Group, codes: &Group, a: &[i8; 32]) -> __m256i {
        avx2!({
            let (table, low) = (biased(&input.table), _mm256_set1_epi8(15));
            let mut sum = _mm256_setzero_si256();
            let mut last = _mm256_loadu_si256(before[32..].as_ptr().cast());
            for half in 0..2 {
                let run = _mm256_loadu_si256(codes[32 * half..].as_ptr().cast());
                // The run's first code goes above the last one of the run before.
                let first = _mm256_and_si256(_mm256_slli_epi16::<2>(run), _mm256_set1_epi8(12));
                let older = _mm256_and_si256(_mm256_srli_epi16::<6>(last), _mm256_set1_epi8(3));
                let windows = [
                    _mm256_or_si256(first, older),
                    _mm256_and_si256(run, low),
                    _mm256_and_si256(_mm256_srli_epi16::<2>(run), low),
                    _mm256_and_si256(_mm256_srli_epi16::<4>(run), low),
                ];
                for (i, windows) in windows.into_iter().enumerate() {
                    sum = dot4(sum, _mm256_shuffle_epi8(table, windows), a, 4 * half + i);
                }
                last = run;
            }
            sum
        })
    }
}

struct Vectors;

impl Reader for Vectors {
    const NAME: &'static str = "trained: 4 weights in 8 bits";
    const BIAS: i32 = 64;

    fn weight(input: &Input, _: &Group, codes: &Group, r: usize, k: usize) -> i32 {
        i32::from(input.vectors[usize::from(codes[k / 4 * 8 + r])][k % 4])
    }

    #[inline(always)]
    unsafe fn products(input: &Input, _: &Group, codes: &Group, a: &[i8; 32]) -> __m256i {
        avx2!({
            let mut sum = _mm256_setzero_si256();
            for at in 0..8 {
                let codes = _mm_loadl_epi64(codes[8 * at..].as_ptr().cast());
                let codes = _mm256_cvtepu8_epi32(codes);
                let weights = _mm256_i32gather_epi32::<4>(input.vectors.as_ptr().cast(), codes);
                let weights = _mm256_add_epi8(weights, _mm256_set1_epi8(64));
                sum = dot4(sum, weights, a, at);
            }
            sum
        })
    }
}

/// Weights are at most 11 quarters.
const LATTICE_BIAS: i8 = 16;

struct Lattice;

impl Reader for Lattice {
    const NAME: &'static str = "E8P: 8 weights in 16 bits";
    const BIAS: i32 = LATTICE_BIAS as i32;

    fn weight(input: &Input, _: &Group, codes: &Group, r: usize, k: usize) -> i32 {
        let at = (k / 8 * 8 + r) * 2;
        let (point, rest) = (usize::from(codes[at + 1]), usize::from(codes[at]));
        let i = k % 8;
        let value = input.magnitudes[point][i] * input.signs[rest >> 1][i];
        i32::from(value) + if rest & 1 == 0 { 1 } else { -1 }
    }

    #[inline(always)]
    unsafe fn products(input: &Input, _: &Group, codes: &Group, a: &[i8; 32]) -> __m256i {
        avx2!({
            let mut sums = [_mm256_setzero_si256(); 2];
            for at in 0..4 {
                let eight = i64::from_le_bytes(std::array::from_fn(|i| a[8 * at + i] as u8));
                let eight = _mm256_set1_epi64x(eight);
                for (half, sum) in sums.iter_mut().enumerate() {
                    let bytes = &codes[(8 * at + 4 * half) * 2..][..8];
                    let point = |r: usize| {
                        i64::from_le_bytes(
                            input.magnitudes[usize::from(bytes[2 * r + 1])].map(|x| x as u8),
                        )
                    };
                    let sign = |r: usize| {
                        i64::from_le_bytes(
                            input.signs[usize::from(bytes[2 * r] >> 1)].map(|x| x as u8),
                        )
                    };
                    let shift = |r: usize| {
                        i64::from_le_bytes(
                            input.shifts[usize::from(bytes[2 * r] & 1)].map(|x| x as u8),
                        )
                    };
                    let points = _mm256_set_epi64x(point(3), point(2), point(1), point(0));
                    let signs = _mm256_set_epi64x(sign(3), sign(2), sign(1), sign(0));
                    let shifts = _mm256_set_epi64x(shift(3), shift(2), shift(1), shift(0));
                    let weights = _mm256_add_epi8(_mm256_sign_epi8(points, signs), shifts);
                    let pairs = _mm256_maddubs_epi16(weights, eight);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
                }
            }
            // Two lanes per row, rows 0 1 4 5 2 3 6 7 once they are added.
            let sum = _mm256_hadd_epi32(sums[0], sums[1]);
            _mm256_permutevar8x32_epi32(sum, _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7))
        })
    }
}

struct Trellis;

impl Trellis {
    /// The stream's next 32 bits of a row.
    fn word(codes: &Group, half: usize, r: usize) -> u32 {
        let at = 32 * half + 4 * r;
        u32::from_le_bytes(std::array::from_fn(|i| codes[at + i]))
    }
}

impl Reader for Trellis {
    const NAME: &'static str = "trellis: windows of 16 bits, 1MAD";
    const BIAS: i32 = 510;

    fn weight(_: &Input, before: &Group, codes: &Group, r: usize, k: usize) -> i32 {
        let older = if k < 16 { Self::word(before, 1, r) } else { Self::word(codes, 0, r) };
        let stream = u64::from(older) << 32 | u64::from(Self::word(codes, k / 16, r));
        one_mad((stream >> (30 - 2 * (k % 16))) as u32 & 0xffff)
    }

    #[inline(always)]
    unsafe fn products(_: &Input, before: &Group, codes: &Group, a: &[i8; 32]) -> __m256i {
        avx2!({
            let mut sum = _mm256_setzero_si256();
            let mut older = _mm256_loadu_si256(before[32..].as_ptr().cast());
            for half in 0..2 {
                let word = _mm256_loadu_si256(codes[32 * half..].as_ptr().cast());
                // Half of the old word and half of the new one: windows of columns 0 to 7 lie in it.
                let middle =
                    _mm256_or_si256(_mm256_slli_epi32::<16>(older), _mm256_srli_epi32::<16>(word));
                for k in 0..16 {
                    let shift = _mm_cvtsi32_si128(if k < 8 { 14 - 2 * k } else { 30 - 2 * k });
                    let stream = if k < 8 { middle } else { word };
                    let window = _mm256_and_si256(
                        _mm256_srl_epi32(stream, shift),
                        _mm256_set1_epi32(0xffff),
                    );
                    let hash = _mm256_mullo_epi32(window, _mm256_set1_epi32(34_038_481));
                    let hash = _mm256_add_epi32(hash, _mm256_set1_epi32(76_625_530));
                    let pairs = _mm256_maddubs_epi16(hash, _mm256_set1_epi8(1));
                    let value = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                    let one = _mm256_set1_epi32(i32::from(a[16 * half + k as usize]));
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(value, one));
                }
                older = word;
            }
            sum
        })
    }
}
