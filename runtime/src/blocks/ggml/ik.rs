//! What ik_llama.cpp's types share: tables of two scales, 2- and 3-bit codes spread over the bytes
//! of a block, 5- and 6-bit codes.
//!
//! A bit per group or half says that all entries of the table are a little larger.

use super::tile::{
    Sixteen, bits, insert, looked_up, nibble_numbers, numbers, part, sixteen, subarray,
};
use super::{GROUP, TILE_ROWS, TileGroup, field};
use crate::isa::Isa;

/// Table of 2-bit codes, in two forms.
pub(super) const TWO: [i8; 8] = [-31, -13, 1, 17, -26, -8, 6, 22];
/// Table of 3-bit codes, in two forms.
pub(super) const THREE: [i8; 16] =
    [-63, -40, -23, -10, 1, 13, 28, 47, -59, -36, -19, -6, 5, 17, 32, 51];
/// Table of 5-bit codes; in the second form 2 is added.
const FIVE: [i8; 32] = [
    -126, -114, -103, -92, -83, -74, -65, -57, -50, -43, -36, -30, -24, -18, -12, -6, -1, 5, 11,
    17, 23, 29, 36, 43, 51, 59, 68, 77, 87, 97, 109, 121,
];
/// Table of 6-bit codes, a cubic polynomial of the code; in the second form 1 is added.
const SIX: [i8; 64] = {
    let mut table = [0; 64];
    let mut code = 0;
    while code < table.len() {
        let x = code as f64;
        table[code] = (-127.0 + x * (6.2568 + x * (-0.11218 + x * 0.0011972))).round() as i8;
        code += 1;
    }
    table
};
/// Difference of the two forms of the table of 4-bit codes, IQ4_NL's.
pub(super) const FOUR_MORE: u8 = 4;
/// Difference of the two forms of the table of 5-bit codes.
pub(super) const FIVE_MORE: u8 = 2;
/// Difference of the two forms of the table of 6-bit codes.
pub(super) const SIX_MORE: u8 = 1;

/// The value of a 5-bit code.
#[inline(always)]
pub(super) fn five(code: u8, more: bool) -> i8 {
    FIVE[usize::from(code & 31)] + if more { FIVE_MORE as i8 } else { 0 }
}

/// The value of a 6-bit code.
#[inline(always)]
pub(super) fn six(code: u8, more: bool) -> i8 {
    SIX[usize::from(code & 63)] + if more { SIX_MORE as i8 } else { 0 }
}

/// The 2-bit codes of group `index`, in 64 bytes.
#[inline(always)]
pub(super) fn twos(bytes: &[u8], index: usize) -> [u8; GROUP] {
    field(&bytes[32 * (index / 4)..], 2 * (index % 4), 3)
}

/// The 3-bit codes of group `index`: two bits in 64 bytes, the third in 32.
#[inline(always)]
pub(super) fn threes(low: &[u8], high: &[u8], index: usize) -> [u8; GROUP] {
    let (low, high) = (twos(low, index), field(high, index, 1));
    std::array::from_fn(|i| low[i] | high[i] << 2)
}

/// The 5-bit codes of group `index`: four bits in 128 bytes, the fifth in 32.
#[inline(always)]
pub(super) fn fives(low: &[u8], high: &[u8], index: usize) -> [u8; GROUP] {
    let low = field(&low[32 * (index / 2)..], 4 * (index % 2), 15);
    let high = field(high, index, 1);
    std::array::from_fn(|i| low[i] | high[i] << 4)
}

/// The 6-bit codes of group `index`: four bits in 128 bytes, two in 64.
#[inline(always)]
pub(super) fn sixes(low: &[u8], high: &[u8], index: usize) -> [u8; GROUP] {
    let low = field(&low[32 * (index / 2)..], 4 * (index % 2), 15);
    let high = twos(high, index);
    std::array::from_fn(|i| low[i] | high[i] << 4)
}

/// Whether bit `at` of a 16-bit number at `from` is set.
#[inline(always)]
pub(super) fn bit(block: &[u8], from: usize, at: usize) -> bool {
    block[from + at / 8] >> (at % 8) & 1 == 1
}

/// The 2-bit codes of sixteen columns of all groups; `at` is the offset of their 64 bytes.
#[inline(always)]
pub(super) fn tile_twos<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    at: usize,
    half: usize,
) -> [Sixteen<I>; 8] {
    let first = sixteen(isa, rows, at + 16 * half);
    let second = sixteen(isa, rows, at + 32 + 16 * half);
    [
        bits::<I, 0>(isa, first, 3),
        bits::<I, 2>(isa, first, 3),
        bits::<I, 4>(isa, first, 3),
        bits::<I, 6>(isa, first, 3),
        bits::<I, 0>(isa, second, 3),
        bits::<I, 2>(isa, second, 3),
        bits::<I, 4>(isa, second, 3),
        bits::<I, 6>(isa, second, 3),
    ]
}

/// The 3-bit codes of sixteen columns of all groups; `at` is the offset of the 64 bytes of low bits,
/// which the 32 of high bits follow.
#[inline(always)]
pub(super) fn tile_threes<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    at: usize,
    half: usize,
) -> [Sixteen<I>; 8] {
    let [a, b, c, d, e, f, g, h] = tile_twos(isa, rows, at, half);
    let high = sixteen(isa, rows, at + 64 + 16 * half);
    [
        insert::<I, 2>(isa, a, high, 4),
        insert::<I, 1>(isa, b, high, 4),
        insert::<I, 0>(isa, c, high, 4),
        insert::<I, -1>(isa, d, high, 4),
        insert::<I, -2>(isa, e, high, 4),
        insert::<I, -3>(isa, f, high, 4),
        insert::<I, -4>(isa, g, high, 4),
        insert::<I, -5>(isa, h, high, 4),
    ]
}

/// Sixteen bytes of each of the four 32 from offset `at` on.
#[inline(always)]
fn four_sixteens<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    at: usize,
) -> [Sixteen<I>; 4] {
    [
        sixteen(isa, rows, at),
        sixteen(isa, rows, at + 32),
        sixteen(isa, rows, at + 64),
        sixteen(isa, rows, at + 96),
    ]
}

/// The values of the 5-bit codes of sixteen columns of all groups; `at` is the offset of the 128
/// bytes of low bits, which the 32 of high bits follow.
#[inline(always)]
pub(super) fn tile_fives<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    at: usize,
    half: usize,
) -> [Sixteen<I>; 8] {
    let high = sixteen(isa, rows, at + 128 + 16 * half);
    let [a, b, c, d] = four_sixteens(isa, rows, at + 16 * half);
    [
        wide(isa, bits::<I, 0>(isa, a, 15), bits::<I, 0>(isa, high, 1)),
        wide(isa, bits::<I, 4>(isa, a, 15), bits::<I, 1>(isa, high, 1)),
        wide(isa, bits::<I, 0>(isa, b, 15), bits::<I, 2>(isa, high, 1)),
        wide(isa, bits::<I, 4>(isa, b, 15), bits::<I, 3>(isa, high, 1)),
        wide(isa, bits::<I, 0>(isa, c, 15), bits::<I, 4>(isa, high, 1)),
        wide(isa, bits::<I, 4>(isa, c, 15), bits::<I, 5>(isa, high, 1)),
        wide(isa, bits::<I, 0>(isa, d, 15), bits::<I, 6>(isa, high, 1)),
        wide(isa, bits::<I, 4>(isa, d, 15), bits::<I, 7>(isa, high, 1)),
    ]
}

/// The values of the 6-bit codes of sixteen columns of all groups; `at` is the offset of the 128
/// bytes of low bits, which the 64 of high bits follow.
#[inline(always)]
pub(super) fn tile_sixes<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    at: usize,
    half: usize,
) -> [Sixteen<I>; 8] {
    let high = tile_twos(isa, rows, at + 128, half);
    let [a, b, c, d] = four_sixteens(isa, rows, at + 16 * half);
    [
        wider(isa, bits::<I, 0>(isa, a, 15), high[0]),
        wider(isa, bits::<I, 4>(isa, a, 15), high[1]),
        wider(isa, bits::<I, 0>(isa, b, 15), high[2]),
        wider(isa, bits::<I, 4>(isa, b, 15), high[3]),
        wider(isa, bits::<I, 0>(isa, c, 15), high[4]),
        wider(isa, bits::<I, 4>(isa, c, 15), high[5]),
        wider(isa, bits::<I, 0>(isa, d, 15), high[6]),
        wider(isa, bits::<I, 4>(isa, d, 15), high[7]),
    ]
}

/// Values of the codes from 16 `part` on of a table, less those of the sixteen codes before, so that
/// a lookup of more than four bits adds up the parts below it.
const fn steps(table: &[i8], part: usize) -> [i8; 16] {
    let mut steps = [0; 16];
    let mut i = 0;
    while i < 16 {
        let code = 16 * part + i;
        steps[i] = if part == 0 { table[code] } else { table[code].wrapping_sub(table[code - 16]) };
        i += 1;
    }
    steps
}

/// Adds the steps to part `part` of a table where the high bits reach it.
#[inline(always)]
fn climb<I: Isa>(
    isa: I,
    values: Sixteen<I>,
    steps: &[i8; 16],
    [low, high]: [Sixteen<I>; 2],
    part: u8,
) -> Sixteen<I> {
    let mut sums = values;
    for (sum, (step, high)) in sums.iter_mut().zip(looked_up(isa, steps, low).into_iter().zip(high))
    {
        *sum = isa.add_bytes(*sum, isa.and_bytes(step, isa.at_least(high, part)));
    }
    sums
}

/// Looks up 5-bit codes.
#[inline(always)]
fn wide<I: Isa>(isa: I, low: Sixteen<I>, high: Sixteen<I>) -> Sixteen<I> {
    let values = looked_up(isa, const { &steps(&FIVE, 0) }, low);
    climb(isa, values, const { &steps(&FIVE, 1) }, [low, high], 1)
}

/// Looks up 6-bit codes.
#[inline(always)]
fn wider<I: Isa>(isa: I, low: Sixteen<I>, high: Sixteen<I>) -> Sixteen<I> {
    let values = looked_up(isa, const { &steps(&SIX, 0) }, low);
    let values = climb(isa, values, const { &steps(&SIX, 1) }, [low, high], 1);
    let values = climb(isa, values, const { &steps(&SIX, 2) }, [low, high], 2);
    climb(isa, values, const { &steps(&SIX, 3) }, [low, high], 3)
}

/// `x` in all bytes of the rows whose bits are set: those from `AT` on, of four groups or halves.
#[inline(always)]
pub(super) fn where_set<I: Isa, const AT: i32>(isa: I, words: I::U8, x: u8) -> [I::U8; 4] {
    let (masks, x) = (isa.spread::<AT>(words), isa.splat_bytes(x));
    [
        isa.and_bytes(isa.repeat::<0>(masks), x),
        isa.and_bytes(isa.repeat::<1>(masks), x),
        isa.and_bytes(isa.repeat::<2>(masks), x),
        isa.and_bytes(isa.repeat::<3>(masks), x),
    ]
}

/// [`where_set`] for the sixteen halves of a block: bits 16 to 31.
#[inline(always)]
pub(super) fn of_halves<I: Isa>(isa: I, words: I::U8, x: u8) -> [[I::U8; 4]; 4] {
    [
        where_set::<I, 16>(isa, words, x),
        where_set::<I, 20>(isa, words, x),
        where_set::<I, 24>(isa, words, x),
        where_set::<I, 28>(isa, words, x),
    ]
}

/// The sums of `codes` and `more`.
#[inline(always)]
pub(super) fn added<I: Isa>(isa: I, codes: Sixteen<I>, more: I::U8) -> Sixteen<I> {
    let mut sums = codes;
    for sum in &mut sums {
        *sum = isa.add_bytes(*sum, more);
    }
    sums
}

/// Sets the scales of all halves from 6 bits less 32: the low four in eight bytes from `low` on, the
/// high two in the four bytes before.
#[inline(always)]
pub(super) fn set_six_bit_scales<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    d: I::F32,
    groups: &mut [TileGroup; 8],
) {
    let [_, high, first, second] = sixteen(isa, rows, 0);
    let high = [
        numbers(isa, isa.shift_and::<0>(high, 3)),
        numbers(isa, isa.shift_and::<2>(high, 3)),
        numbers(isa, isa.shift_and::<4>(high, 3)),
        numbers(isa, isa.shift_and::<6>(high, 3)),
    ];
    for half in 0..2 {
        let low = [nibble_numbers(isa, first, half), nibble_numbers(isa, second, half)];
        for (index, group) in groups.iter_mut().enumerate() {
            let (low, high) = (low[index / 4][index % 4], high[2 * (index % 2) + half][index / 2]);
            let scale = isa.sub(isa.fma(high, isa.splat(16.0), low), isa.splat(32.0));
            group.set_factors(isa, half, isa.mul(d, scale), isa.splat(0.0));
        }
    }
}

/// The nibbles of bytes 2 to 5 of eight, the low ones or the high ones, as floats.
#[inline(always)]
pub(super) fn middle<I: Isa>(isa: I, [start, end]: [I::U8; 2], half: usize) -> [I::F32; 4] {
    let [_, _, a, b] = nibble_numbers(isa, start, half);
    let [c, d, ..] = nibble_numbers(isa, end, half);
    [a, b, c, d]
}

/// The scales of a group's halves from 6 bits less 32, as integers.
#[inline(always)]
pub(super) fn six_bit_scales(block: &[u8], index: usize) -> [f32; 2] {
    let (high, low) = (block[4 + index / 2] >> (4 * (index % 2)), block[8 + index]);
    [low & 15 | high << 4 & 0x30, low >> 4 | high << 2 & 0x30].map(|scale| f32::from(scale) - 32.0)
}

/// The scale of a group: the upper seven bits of a byte, doubled, less 127.
#[inline(always)]
pub(super) fn byte_scale(byte: u8) -> f32 {
    f32::from(byte & 254) - 127.0
}

/// Sets the scales of all groups from the eight bytes at the start of a block. Returns `x` in all
/// bytes of the rows whose lowest bit is set, by group.
#[inline(always)]
pub(super) fn set_byte_scales<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    x: u8,
    groups: &mut [TileGroup; 8],
) -> [I::U8; 8] {
    set_scales(isa, isa.transpose_eights(subarray::<8, N>(rows, 0)), x, groups)
}

/// [`set_byte_scales`] of bytes that are loaded.
#[inline(always)]
pub(super) fn set_scales<I: Isa>(
    isa: I,
    bytes: [I::U8; 2],
    x: u8,
    groups: &mut [TileGroup; 8],
) -> [I::U8; 8] {
    let [low, high] = bytes;
    let scales =
        [numbers(isa, isa.shift_and::<0>(low, 254)), numbers(isa, isa.shift_and::<0>(high, 254))];
    for (group, scale) in groups.iter_mut().zip(scales.as_flattened()) {
        group.set_factors(isa, 0, isa.sub(*scale, isa.splat(127.0)), isa.splat(0.0));
    }
    let first = isa.at_least(isa.shift_and::<0>(low, 1), 1);
    let second = isa.at_least(isa.shift_and::<0>(high, 1), 1);
    let x = isa.splat_bytes(x);
    [
        isa.and_bytes(isa.repeat::<0>(first), x),
        isa.and_bytes(isa.repeat::<1>(first), x),
        isa.and_bytes(isa.repeat::<2>(first), x),
        isa.and_bytes(isa.repeat::<3>(first), x),
        isa.and_bytes(isa.repeat::<0>(second), x),
        isa.and_bytes(isa.repeat::<1>(second), x),
        isa.and_bytes(isa.repeat::<2>(second), x),
        isa.and_bytes(isa.repeat::<3>(second), x),
    ]
}

/// `X` more, or none, in each half of a row's 32 bytes: as the bits of group `index` say in the 16-bit
/// number at `from`, of which each half has one.
#[inline(always)]
pub(super) fn row_more<I: Isa, const X: u8, const N: usize>(
    isa: I,
    block: &[u8; N],
    from: usize,
    index: usize,
) -> I::U8 {
    let more = const {
        let mut more = [[0; GROUP]; 4];
        let mut at = 0;
        while at < 4 * GROUP {
            let (bits, half) = (at / GROUP, at % GROUP / (GROUP / 2));
            more[bits][at % GROUP] = X * (bits >> half & 1) as u8;
            at += 1;
        }
        more
    };
    let bits = block[from + index / 4] >> (2 * (index % 4)) & 3;
    isa.load_bytes(&more[usize::from(bits)])
}

/// The 2-bit codes of group `index` of one row; `at` is the offset of their 64 bytes.
#[inline(always)]
pub(super) fn row_twos<I: Isa, const N: usize>(
    isa: I,
    block: &[u8; N],
    at: usize,
    index: usize,
) -> I::U8 {
    let bytes = isa.load_bytes(part(block, at + 32 * (index / 4)));
    isa.field(bytes, 2 * (index % 4) as u32, 3)
}

/// The 3-bit codes of group `index` of one row; `at` is the offset of the 64 bytes of low bits.
#[inline(always)]
pub(super) fn row_threes<I: Isa, const N: usize>(
    isa: I,
    block: &[u8; N],
    at: usize,
    index: usize,
) -> I::U8 {
    let high = isa.field(isa.load_bytes(part(block, at + 64)), index as u32, 1);
    isa.append::<2>(row_twos(isa, block, at, index), high)
}

/// The values of the 5-bit codes of group `index` of one row; `at` is the offset of the 128 bytes of
/// low bits.
#[inline(always)]
pub(super) fn row_fives<I: Isa, const N: usize>(
    isa: I,
    block: &[u8; N],
    at: usize,
    index: usize,
) -> I::U8 {
    let low = isa.load_bytes(part(block, at + 32 * (index / 2)));
    let low = isa.field(low, 4 * (index % 2) as u32, 15);
    let high = isa.field(isa.load_bytes(part(block, at + 128)), index as u32, 1);
    let [values, ..] = wide(isa, [low; 4], [high; 4]);
    values
}

/// The values of the 6-bit codes of group `index` of one row; `at` is the offset of the 128 bytes of
/// low bits.
#[inline(always)]
pub(super) fn row_sixes<I: Isa, const N: usize>(
    isa: I,
    block: &[u8; N],
    at: usize,
    index: usize,
) -> I::U8 {
    let low = isa.load_bytes(part(block, at + 32 * (index / 2)));
    let low = isa.field(low, 4 * (index % 2) as u32, 15);
    let high = row_twos(isa, block, at + 128, index);
    let [values, ..] = wider(isa, [low; 4], [high; 4]);
    values
}
