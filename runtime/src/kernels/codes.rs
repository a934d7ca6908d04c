//! How coded weights are unpacked: the codes of a group become eight registers of 8 rows x 4 columns.

use super::Isa;

/// How the codes of a group become weights: eight registers of 8 rows x 4 columns.
pub trait Codes {
    fn decode<I: Isa>(isa: I, table: I::Table, group: &[u8]) -> [I::U8x32; 8];

    /// What decoded weights are above their value.
    #[inline(always)]
    fn bias<I: Isa>() -> i32 {
        I::TABLE_BIAS
    }

    #[inline(always)]
    fn dot<I: Isa>(isa: I, acc: I::I32x8, weights: &[I::U8x32; 8], a: &[[i8; 4]; 8]) -> I::I32x8 {
        isa.dot_table(acc, weights, a)
    }

    /// [`dot`](Self::dot) with two tokens.
    #[inline(always)]
    fn dot_pair<I: Isa>(
        isa: I,
        acc: [I::I32x8; 2],
        weights: &[I::U8x32; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [I::I32x8; 2] {
        isa.dot_table_pair(acc, weights, a)
    }
}

pub struct E2;
pub struct E3;
pub struct E4;
pub struct E8;

impl Codes for E2 {
    #[inline(always)]
    fn decode<I: Isa>(isa: I, table: I::Table, group: &[u8]) -> [I::U8x32; 8] {
        let [a, b] = runs(group);
        look_up(isa, table, low_bits(isa, a, b))
    }
}

// Loops and literals, no closures: a closure that is not inlined is compiled without the instructions that its
// caller may use, and calls them one by one.

/// The runs of 32 bytes that a group consists of.
#[inline(always)]
fn runs<const N: usize>(group: &[u8]) -> &[[u8; 32]; N] {
    group.as_chunks().0.first_chunk().expect("the layout says so")
}

/// The weights that codes name.
#[inline(always)]
fn look_up<I: Isa>(isa: I, table: I::Table, mut codes: [I::U8x32; 8]) -> [I::U8x32; 8] {
    for codes in &mut codes {
        *codes = isa.lookup(table, *codes);
    }
    codes
}

/// The 2-bit codes of two runs.
#[inline(always)]
fn low_bits<I: Isa>(isa: I, first: &[u8; 32], second: &[u8; 32]) -> [I::U8x32; 8] {
    let (a, b) = (isa.load_bytes(first), isa.load_bytes(second));
    [
        isa.shift_and::<0>(a, 3),
        isa.shift_and::<2>(a, 3),
        isa.shift_and::<4>(a, 3),
        isa.shift_and::<6>(a, 3),
        isa.shift_and::<0>(b, 3),
        isa.shift_and::<2>(b, 3),
        isa.shift_and::<4>(b, 3),
        isa.shift_and::<6>(b, 3),
    ]
}

impl Codes for E3 {
    #[inline(always)]
    fn decode<I: Isa>(isa: I, table: I::Table, group: &[u8]) -> [I::U8x32; 8] {
        let [a, b, c] = runs(group);
        let low = low_bits(isa, a, b);
        let high = isa.load_bytes(c);
        let codes = [
            isa.or_shifted::<2>(low[0], isa.shift_and::<0>(high, 1)),
            isa.or_shifted::<2>(low[1], isa.shift_and::<1>(high, 1)),
            isa.or_shifted::<2>(low[2], isa.shift_and::<2>(high, 1)),
            isa.or_shifted::<2>(low[3], isa.shift_and::<3>(high, 1)),
            isa.or_shifted::<2>(low[4], isa.shift_and::<4>(high, 1)),
            isa.or_shifted::<2>(low[5], isa.shift_and::<5>(high, 1)),
            isa.or_shifted::<2>(low[6], isa.shift_and::<6>(high, 1)),
            isa.or_shifted::<2>(low[7], isa.shift_and::<7>(high, 1)),
        ];
        look_up(isa, table, codes)
    }
}

impl Codes for E4 {
    #[inline(always)]
    fn decode<I: Isa>(isa: I, table: I::Table, group: &[u8]) -> [I::U8x32; 8] {
        let [a, b, c, d] = runs(group);
        let [a, b, c, d] =
            [isa.load_bytes(a), isa.load_bytes(b), isa.load_bytes(c), isa.load_bytes(d)];
        let codes = [
            isa.shift_and::<0>(a, 15),
            isa.shift_and::<4>(a, 15),
            isa.shift_and::<0>(b, 15),
            isa.shift_and::<4>(b, 15),
            isa.shift_and::<0>(c, 15),
            isa.shift_and::<4>(c, 15),
            isa.shift_and::<0>(d, 15),
            isa.shift_and::<4>(d, 15),
        ];
        look_up(isa, table, codes)
    }
}

impl Codes for E8 {
    #[inline(always)]
    fn decode<I: Isa>(isa: I, _: I::Table, group: &[u8]) -> [I::U8x32; 8] {
        let runs: &[[u8; 32]; 8] = runs(group);
        let mut weights = [isa.load_weights(&runs[0]); 8];
        for (weights, run) in weights.iter_mut().zip(runs) {
            *weights = isa.load_weights(run);
        }
        weights
    }

    #[inline(always)]
    fn bias<I: Isa>() -> i32 {
        I::BYTE_BIAS
    }

    #[inline(always)]
    fn dot<I: Isa>(isa: I, acc: I::I32x8, weights: &[I::U8x32; 8], a: &[[i8; 4]; 8]) -> I::I32x8 {
        isa.dot_bytes(acc, weights, a)
    }

    #[inline(always)]
    fn dot_pair<I: Isa>(
        isa: I,
        acc: [I::I32x8; 2],
        weights: &[I::U8x32; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [I::I32x8; 2] {
        isa.dot_bytes_pair(acc, weights, a)
    }
}
