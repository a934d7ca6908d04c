//! How coded weights are unpacked: the codes of a group become eight registers of 8 rows x 4 columns, or of the rows of
//! several tiles, whose groups lie `stride` bytes apart.

use super::Wide;

/// How the codes of a group become weights: eight registers of 8 rows x 4 columns.
pub trait Codes {
    fn decode<W: Wide>(isa: W, table: W::Table, group: &[u8], stride: usize) -> [W::U8; 8];

    /// What decoded weights are above their value.
    #[inline(always)]
    fn bias<W: Wide>() -> i32 {
        W::TABLE_BIAS
    }

    #[inline(always)]
    fn dot<W: Wide>(isa: W, acc: W::I32, weights: &[W::U8; 8], a: &[[i8; 4]; 8]) -> W::I32 {
        isa.dot_table(acc, weights, a)
    }

    /// [`dot`](Self::dot) with two tokens.
    #[inline(always)]
    fn dot_pair<W: Wide>(
        isa: W,
        acc: [W::I32; 2],
        weights: &[W::U8; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [W::I32; 2] {
        isa.dot_table_pair(acc, weights, a)
    }
}

pub struct E2;
pub struct E3;
pub struct E4;
pub struct E8;

impl Codes for E2 {
    #[inline(always)]
    fn decode<W: Wide>(isa: W, table: W::Table, group: &[u8], stride: usize) -> [W::U8; 8] {
        look_up(isa, table, low_bits(isa, group, stride))
    }
}

// Loops and literals, no closures: a closure that is not inlined is compiled without the instructions that its
// caller may use, and calls them one by one.

/// The weights that codes name.
#[inline(always)]
fn look_up<W: Wide>(isa: W, table: W::Table, mut codes: [W::U8; 8]) -> [W::U8; 8] {
    for codes in &mut codes {
        *codes = isa.lookup(table, *codes);
    }
    codes
}

/// The 2-bit codes of a group's first two runs of 32 bytes.
#[inline(always)]
fn low_bits<W: Wide>(isa: W, group: &[u8], stride: usize) -> [W::U8; 8] {
    let (a, b) = (isa.load_bytes(group, stride), isa.load_bytes(&group[32..], stride));
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
    fn decode<W: Wide>(isa: W, table: W::Table, group: &[u8], stride: usize) -> [W::U8; 8] {
        let low = low_bits(isa, group, stride);
        let high = isa.load_bytes(&group[64..], stride);
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
    fn decode<W: Wide>(isa: W, table: W::Table, group: &[u8], stride: usize) -> [W::U8; 8] {
        let [a, b, c, d] = [
            isa.load_bytes(group, stride),
            isa.load_bytes(&group[32..], stride),
            isa.load_bytes(&group[64..], stride),
            isa.load_bytes(&group[96..], stride),
        ];
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
    fn decode<W: Wide>(isa: W, _: W::Table, group: &[u8], stride: usize) -> [W::U8; 8] {
        let mut weights = [isa.load_weights(group, stride); 8];
        for (run, weights) in weights.iter_mut().enumerate().skip(1) {
            *weights = isa.load_weights(&group[32 * run..], stride);
        }
        weights
    }

    #[inline(always)]
    fn bias<W: Wide>() -> i32 {
        W::BYTE_BIAS
    }

    #[inline(always)]
    fn dot<W: Wide>(isa: W, acc: W::I32, weights: &[W::U8; 8], a: &[[i8; 4]; 8]) -> W::I32 {
        isa.dot_bytes(acc, weights, a)
    }

    #[inline(always)]
    fn dot_pair<W: Wide>(
        isa: W,
        acc: [W::I32; 2],
        weights: &[W::U8; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [W::I32; 2] {
        isa.dot_bytes_pair(acc, weights, a)
    }
}
