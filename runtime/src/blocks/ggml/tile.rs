//! Vector code that the types share, for eight rows at a time.

use std::hint::black_box;

use super::{Signs, TILE_ROWS, TileGroup};
use crate::isa::{Isa, TileSimd};

/// Sixteen bytes of each of eight rows, four columns per register.
pub(super) type Sixteen<I> = [<I as TileSimd>::U8; 4];

/// Loads sixteen bytes of each block from offset `at`.
#[inline(always)]
pub(super) fn sixteen<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    at: usize,
) -> Sixteen<I> {
    isa.transpose(subarray(rows, at))
}

/// Loads the half-precision number at `at` of each block.
#[inline(always)]
pub(super) fn halves<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    at: usize,
) -> I::F32 {
    isa.load_halves(subarray(rows, at))
}

/// The eight groups of a block of 256 weights.
#[inline(always)]
pub(super) fn eight(groups: &mut [TileGroup]) -> &mut [TileGroup; 8] {
    groups.first_chunk_mut().expect("a block of 256 has eight groups")
}

/// `byte >> SHIFT & mask` of each byte.
#[inline(always)]
pub(super) fn bits<I: Isa, const SHIFT: i32>(isa: I, bytes: Sixteen<I>, mask: u8) -> Sixteen<I> {
    let mut fields = bytes;
    for field in &mut fields {
        *field = isa.shift_and::<SHIFT>(*field, mask);
    }
    fields
}

/// The bits of `mask` from `from << SHIFT`, the others from `codes`.
#[inline(always)]
pub(super) fn insert<I: Isa, const SHIFT: i32>(
    isa: I,
    codes: Sixteen<I>,
    from: Sixteen<I>,
    mask: u8,
) -> Sixteen<I> {
    let mut all = codes;
    for (code, from) in all.iter_mut().zip(from) {
        *code = isa.insert::<SHIFT>(*code, from, mask);
    }
    all
}

/// Table lookup of signed bytes by codes below 16.
#[inline(always)]
pub(super) fn looked_up<I: Isa>(isa: I, table: &[i8; 16], codes: Sixteen<I>) -> Sixteen<I> {
    // The bias that a table adds to its entries is subtracted first; bytes wrap around.
    let mut entries = *table;
    for entry in &mut entries {
        *entry = entry.wrapping_sub(I::TABLE_BIAS as i8);
    }
    let table = isa.table(&entries);
    let mut values = codes;
    for value in &mut values {
        *value = isa.lookup(table, *value);
    }
    values
}

/// Table lookup of numbers below 65 by codes below 16, stored as
/// [`CodeRange::Small`](super::CodeRange::Small).
#[inline(always)]
pub(super) fn small<I: Isa>(isa: I, table: &[i8; 16], codes: Sixteen<I>) -> Sixteen<I> {
    let table = isa.table(table);
    let mut values = codes;
    for value in &mut values {
        *value = isa.lookup(table, *value);
    }
    values
}

/// `N` bytes of each block from offset `at`.
#[inline(always)]
pub(super) fn subarray<const N: usize, const B: usize>(
    rows: [&[u8; B]; TILE_ROWS],
    at: usize,
) -> [&[u8; N]; TILE_ROWS] {
    let mut bytes = [&[0; N]; TILE_ROWS];
    for (bytes, row) in bytes.iter_mut().zip(rows) {
        *bytes = row[at..].first_chunk().expect("blocks are longer");
    }
    bytes
}

/// Converts the unsigned bytes of each row to floats.
#[inline(always)]
pub(super) fn numbers<I: Isa>(isa: I, bytes: I::U8) -> [I::F32; 4] {
    [
        isa.to_f32(isa.byte::<0>(bytes)),
        isa.to_f32(isa.byte::<1>(bytes)),
        isa.to_f32(isa.byte::<2>(bytes)),
        isa.to_f32(isa.byte::<3>(bytes)),
    ]
}

/// Converts the low nibbles of each row's bytes to floats, or the high ones for the second half.
#[inline(always)]
pub(super) fn nibble_numbers<I: Isa>(isa: I, bytes: I::U8, half: usize) -> [I::F32; 4] {
    match half {
        0 => numbers(isa, isa.shift_and::<0>(bytes, 15)),
        _ => numbers(isa, isa.shift_and::<4>(bytes, 15)),
    }
}

/// Converts the signed bytes of each row to floats.
#[inline(always)]
pub(super) fn signed_numbers<I: Isa>(isa: I, bytes: I::U8) -> [I::F32; 4] {
    let mut both = numbers(isa, bytes);
    let signs = numbers(isa, isa.shift_and::<0>(bytes, 128));
    for (number, sign) in both.iter_mut().zip(signs) {
        *number = isa.fma(sign, isa.splat(-2.0), *number);
    }
    both
}

/// `2 n + 1` for the numbers `n` in the low nibbles of each row's bytes, then in the high ones.
#[inline(always)]
pub(super) fn odd_numbers<I: Isa>(isa: I, bytes: I::U8) -> [[I::F32; 4]; 2] {
    let mut both = [nibble_numbers(isa, bytes, 0), nibble_numbers(isa, bytes, 1)];
    for number in both.as_flattened_mut() {
        *number = isa.fma(*number, isa.splat(2.0), isa.splat(1.0));
    }
    both
}

/// `2 n + 1` for the number `n` in the highest four of each row's 32 bits.
#[inline(always)]
pub(super) fn odd_number_above<I: Isa>(isa: I, words: I::U8) -> I::F32 {
    let number = isa.to_f32(isa.byte::<3>(isa.shift_and::<4>(words, 15)));
    isa.fma(number, isa.splat(2.0), isa.splat(1.0))
}

/// Sets the scales of all halves to `d` times the odd numbers of nibbles: each group has a byte, the
/// low nibble of which is its first half's.
#[inline(always)]
pub(super) fn set_nibble_scales<I: Isa>(
    isa: I,
    d: I::F32,
    bytes: [I::U8; 2],
    groups: &mut [TileGroup; 8],
) {
    for (groups, bytes) in groups.as_chunks_mut::<4>().0.iter_mut().zip(bytes) {
        for (half, scales) in odd_numbers(isa, bytes).iter().enumerate() {
            for (group, scale) in groups.iter_mut().zip(scales) {
                group.set_factors(isa, half, isa.mul(d, *scale), isa.splat(0.0));
            }
        }
    }
}

/// The entries of eight weights that four indices of one row select.
#[inline(always)]
pub(super) fn row_eights<I: Isa, T: Copy + Into<usize>, const N: usize>(
    isa: I,
    grid: &[[u8; 8]; N],
    indices: &[T; 4],
) -> I::U8 {
    let mut entries = [&grid[0]; 4];
    for (entry, index) in entries.iter_mut().zip(indices) {
        *entry = &grid[(*index).into() % N];
    }
    isa.load_eights(entries)
}

/// The entries of four weights that eight indices of one row select.
#[inline(always)]
pub(super) fn row_fours<I: Isa, T: Copy + Into<usize>, const N: usize>(
    isa: I,
    grid: &[[u8; 4]; N],
    indices: &[T; 8],
) -> I::U8 {
    let mut entries = [&grid[0]; 8];
    for (entry, index) in entries.iter_mut().zip(indices) {
        *entry = &grid[(*index).into() % N];
    }
    isa.load_fours(entries)
}

/// The signs of a block from seven of each eight weights' bits.
#[inline(always)]
pub(super) fn row_even_signs<I: Isa>(isa: I, sevens: I::U8) -> Signs {
    let mut signs = [0; 32];
    isa.store_bytes(even_signs(isa, sevens), &mut signs);
    let mut by_group = [[0; 4]; 8];
    by_group.copy_from_slice(signs.as_chunks().0);
    // In memory: the compiler would rather take groups out of the register, with more operations.
    black_box(by_group)
}

/// Indices of a block's grid entries by group, entry and row. All are computed before the first
/// entry is loaded, so that they pass through memory: taken from vectors lane by lane, or computed
/// row by row, they cost more than the entries.
pub(super) type Indices<const E: usize> = [[[i32; TILE_ROWS]; E]; 8];

/// The entries of eight weights that each row's index selects.
#[inline(always)]
pub(super) fn eights<I: Isa, const N: usize>(
    isa: I,
    grid: &[[u8; 8]; N],
    indices: &[i32; TILE_ROWS],
) -> [I::U8; 2] {
    let mut entries = [&grid[0]; TILE_ROWS];
    for (entry, index) in entries.iter_mut().zip(indices) {
        *entry = &grid[*index as usize % N];
    }
    isa.transpose_eights(entries)
}

/// The entries of four weights that each row's index selects.
#[inline(always)]
pub(super) fn fours<I: Isa, const N: usize>(
    isa: I,
    grid: &[[u8; 4]; N],
    indices: &[i32; TILE_ROWS],
) -> I::U8 {
    let mut entries = [&grid[0]; TILE_ROWS];
    for (entry, index) in entries.iter_mut().zip(indices) {
        *entry = &grid[*index as usize % N];
    }
    isa.load_fours(entries)
}

/// The `N` bytes of a block from offset `at`.
#[inline(always)]
pub(super) fn part<const N: usize, const B: usize>(block: &[u8; B], at: usize) -> &[u8; N] {
    block[at..].first_chunk().expect("blocks are longer")
}

/// Table lookup of the signed values of one row's codes below 16.
#[inline(always)]
pub(super) fn row_looked_up<I: Isa>(isa: I, table: &[i8; 16], codes: I::U8) -> I::U8 {
    let [values, ..] = looked_up(isa, table, [codes; 4]);
    values
}

/// Table lookup of numbers below 65 by one row's codes below 16, stored as
/// [`CodeRange::Small`](super::CodeRange::Small).
#[inline(always)]
pub(super) fn row_small<I: Isa>(isa: I, table: &[i8; 16], codes: I::U8) -> I::U8 {
    isa.lookup(isa.table(table), codes)
}

/// Sets the same scale, a lane per row, for all groups of a block.
#[inline(always)]
pub(super) fn set_scale<I: Isa>(isa: I, scale: I::F32, groups: &mut [TileGroup]) {
    for group in groups {
        group.set_factors(isa, 0, scale, isa.splat(0.0));
    }
}

/// Each row's four bytes as numbers.
#[inline(always)]
pub(super) fn four<I: Isa>(isa: I, bytes: I::U8) -> [I::I32; 4] {
    [isa.byte::<0>(bytes), isa.byte::<1>(bytes), isa.byte::<2>(bytes), isa.byte::<3>(bytes)]
}

/// Sign bits of eight weights per byte, an even number of which are set, from the first seven.
#[inline(always)]
pub(super) fn even_signs<I: Isa>(isa: I, sevens: I::U8) -> I::U8 {
    // Sets the eighth bit for numbers below 16 with an odd number of bits; two of them cancel.
    const ODD: [i8; 16] = {
        let mut odd = [0; 16];
        let mut number = 0;
        while number < 16u8 {
            odd[number as usize] = if number.count_ones() % 2 == 1 { i8::MIN } else { 0 };
            number += 1;
        }
        odd
    };
    let sixteen = [isa.shift_and::<0>(sevens, 15), isa.shift_and::<4>(sevens, 7)];
    let [low, high, ..] = looked_up(isa, &ODD, [sixteen[0], sixteen[1], sevens, sevens]);
    isa.add_bytes(sevens, isa.add_bytes(low, high))
}

/// CodeRange below 65 minus one, stored as [`CodeRange::Small`](super::CodeRange::Small).
#[inline(always)]
pub(super) fn less_one<I: Isa>(isa: I, codes: Sixteen<I>) -> Sixteen<I> {
    let minus = isa.splat_bytes((I::TABLE_BIAS - 1) as u8);
    let mut less = codes;
    for code in &mut less {
        *code = isa.add_bytes(*code, minus);
    }
    less
}

/// 1 where a byte is 0, -1 where it is 1, stored as [`CodeRange::Small`](super::CodeRange::Small).
#[inline(always)]
pub(super) fn eighths<I: Isa>(isa: I, less: I::U8) -> I::U8 {
    isa.lookup(isa.table(&[1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), less)
}

impl TileGroup {
    /// Sets [small](super::CodeRange::Small) codes, eight columns at a time, negated where masks
    /// are set.
    #[inline(always)]
    pub(super) fn set_negated<I: Isa>(
        &mut self,
        isa: I,
        codes: [[I::U8; 2]; 4],
        masks: [[I::U8; 2]; 4],
    ) {
        let bias = isa.splat_bytes(I::TABLE_BIAS as u8);
        let codes = codes.as_flattened().iter().zip(masks.as_flattened());
        for (to, (codes, mask)) in self.codes.iter_mut().zip(codes) {
            isa.store_bytes(isa.add_bytes(isa.negate_where(*codes, *mask), bias), to);
        }
    }

    /// Sets [small](super::CodeRange::Small) codes, eight columns at a time, negated where bits of
    /// each row's 32 are set.
    #[inline(always)]
    pub(super) fn set_signed<I: Isa>(&mut self, isa: I, codes: [[I::U8; 2]; 4], signs: I::U8) {
        let masks = [
            [isa.spread::<0>(signs), isa.spread::<4>(signs)],
            [isa.spread::<8>(signs), isa.spread::<12>(signs)],
            [isa.spread::<16>(signs), isa.spread::<20>(signs)],
            [isa.spread::<24>(signs), isa.spread::<28>(signs)],
        ];
        self.set_negated(isa, codes, masks);
    }

    /// Sets the codes of the `at`-th eight columns to the sums of `codes` and `by`.
    #[inline(always)]
    pub(super) fn set_moved<I: Isa>(&mut self, isa: I, at: usize, codes: [I::U8; 2], by: I::U8) {
        for (to, codes) in self.codes[2 * at..][..2].iter_mut().zip(codes) {
            isa.store_bytes(isa.add_bytes(codes, by), to);
        }
    }

    /// Sets the codes of one half.
    #[inline(always)]
    pub(super) fn set_codes<I: Isa>(&mut self, isa: I, half: usize, codes: Sixteen<I>) {
        for (to, codes) in self.codes[4 * half..][..4].iter_mut().zip(codes) {
            isa.store_bytes(codes, to);
        }
    }

    /// Sets the codes of both halves: the low nibbles of sixteen bytes, then the high ones.
    #[inline(always)]
    pub(super) fn set_nibbles<I: Isa>(&mut self, isa: I, bytes: Sixteen<I>) {
        self.set_codes(isa, 0, bits::<I, 0>(isa, bytes, 15));
        self.set_codes(isa, 1, bits::<I, 4>(isa, bytes, 15));
    }

    /// Sets the scale and the offset of one half; of the first half only, for types without
    /// separate halves.
    #[inline(always)]
    pub(super) fn set_factors<I: Isa>(
        &mut self,
        isa: I,
        half: usize,
        scale: I::F32,
        offset: I::F32,
    ) {
        isa.store(scale, &mut self.scales[half]);
        isa.store(offset, &mut self.offsets[half]);
    }
}
