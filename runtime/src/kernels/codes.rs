//! Unpacking of coded weights: the codes of a group become eight registers of 8 rows x 4 columns,
//! or of the rows of several tiles.

use crate::isa::{BIAS, MOST_TILES, TileSimd};

/// Unpacks the codes of a group, `RUNS` times 32 bytes in each tile, into eight registers of 8 rows
/// x 4 columns.
pub trait Codes<const RUNS: usize> {
    /// Lookup tables for [`decode`](Self::decode), from the table of the matrix.
    #[inline(always)]
    fn tables(table: [i8; 16]) -> [[i8; 16]; 2] {
        [table; 2]
    }

    fn decode<W: TileSimd>(
        isa: W,
        tables: [W::Table; 2],
        group: [&[[u8; 32]; RUNS]; MOST_TILES],
    ) -> [W::U8; 8];

    /// Bias of decoded weights over their values.
    #[inline(always)]
    fn bias<W: TileSimd>() -> i32 {
        W::TABLE_BIAS
    }

    /// [`TileSimd::MANY_FROM`] for these weights.
    #[inline(always)]
    fn many_from<W: TileSimd>() -> usize {
        W::MANY_FROM
    }

    /// Start of a product with activations whose sum times minus [`BIAS`] is `start`: minus what the
    /// bias adds to it.
    #[inline(always)]
    fn start<W: TileSimd>(isa: W, start: i32) -> W::I32 {
        isa.splat_i32(Self::bias::<W>() / BIAS * start)
    }

    #[inline(always)]
    fn dot<W: TileSimd>(isa: W, acc: W::I32, weights: &[W::U8; 8], a: &[[i8; 4]; 8]) -> W::I32 {
        isa.dot_table(acc, weights, a)
    }

    /// [`dot`](Self::dot) with two tokens.
    #[inline(always)]
    fn dot_pair<W: TileSimd>(
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

// Loops and literals, no closures: a closure that is not inlined is compiled without the caller's
// target features.

/// The 4-bit codes of `N` runs, lower nibbles before upper ones.
#[inline(always)]
fn nibbles<W: TileSimd, const RUNS: usize, const N: usize>(
    isa: W,
    group: [&[[u8; 32]; RUNS]; MOST_TILES],
) -> [[W::U8; 2]; N] {
    let zero = isa.load_bytes_tiles([&group[0][0], &group[1][0]]);
    let mut nibbles = [[zero; 2]; N];
    for (run, nibbles) in nibbles.iter_mut().enumerate() {
        let bytes = isa.load_bytes_tiles([&group[0][run], &group[1][run]]);
        *nibbles = [isa.shift_and::<0>(bytes, 15), isa.shift_and::<4>(bytes, 15)];
    }
    nibbles
}

impl Codes<2> for E2 {
    /// A nibble contains two codes, each with a table.
    #[inline(always)]
    fn tables(table: [i8; 16]) -> [[i8; 16]; 2] {
        let mut tables = [table; 2];
        for nibble in 0..16 {
            tables[0][nibble] = table[nibble & 3];
            tables[1][nibble] = table[nibble >> 2];
        }
        tables
    }

    #[inline(always)]
    fn decode<W: TileSimd>(
        isa: W,
        [first, second]: [W::Table; 2],
        group: [&[[u8; 32]; 2]; MOST_TILES],
    ) -> [W::U8; 8] {
        let [[a, b], [c, d]] = nibbles::<W, 2, 2>(isa, group);
        [
            isa.lookup(first, a),
            isa.lookup(second, a),
            isa.lookup(first, b),
            isa.lookup(second, b),
            isa.lookup(first, c),
            isa.lookup(second, c),
            isa.lookup(first, d),
            isa.lookup(second, d),
        ]
    }
}

impl Codes<3> for E3 {
    /// A nibble contains the lower bits of two codes. The upper bit of each replaces a bit that the
    /// code does not need: the third for the first code, the second for the second.
    #[inline(always)]
    fn tables(table: [i8; 16]) -> [[i8; 16]; 2] {
        let mut tables = [table; 2];
        for nibble in 0..16 {
            tables[0][nibble] = table[nibble & 7];
            tables[1][nibble] = table[nibble >> 2 | (nibble & 2) << 1];
        }
        tables
    }

    #[inline(always)]
    fn decode<W: TileSimd>(
        isa: W,
        [first, second]: [W::Table; 2],
        group: [&[[u8; 32]; 3]; MOST_TILES],
    ) -> [W::U8; 8] {
        let [[a, b], [c, d]] = nibbles::<W, 3, 2>(isa, group);
        let upper = isa.load_bytes_tiles([&group[0][2], &group[1][2]]);
        [
            isa.lookup(first, isa.insert::<2>(a, upper, 4)),
            isa.lookup(second, isa.insert::<0>(a, upper, 2)),
            isa.lookup(first, isa.insert::<0>(b, upper, 4)),
            isa.lookup(second, isa.insert::<-2>(b, upper, 2)),
            isa.lookup(first, isa.insert::<-2>(c, upper, 4)),
            isa.lookup(second, isa.insert::<-4>(c, upper, 2)),
            isa.lookup(first, isa.insert::<-4>(d, upper, 4)),
            isa.lookup(second, isa.insert::<-6>(d, upper, 2)),
        ]
    }
}

impl Codes<4> for E4 {
    #[inline(always)]
    fn decode<W: TileSimd>(
        isa: W,
        [table, _]: [W::Table; 2],
        group: [&[[u8; 32]; 4]; MOST_TILES],
    ) -> [W::U8; 8] {
        let [[a, b], [c, d], [e, f], [g, h]] = nibbles::<W, 4, 4>(isa, group);
        let mut weights = [a, b, c, d, e, f, g, h];
        for weights in &mut weights {
            *weights = isa.lookup(table, *weights);
        }
        weights
    }
}

impl Codes<8> for E8 {
    #[inline(always)]
    fn decode<W: TileSimd>(
        isa: W,
        _: [W::Table; 2],
        group: [&[[u8; 32]; 8]; MOST_TILES],
    ) -> [W::U8; 8] {
        let mut weights = [isa.load_weights_tiles([&group[0][0], &group[1][0]]); 8];
        for (run, weights) in weights.iter_mut().enumerate().skip(1) {
            *weights = isa.load_weights_tiles([&group[0][run], &group[1][run]]);
        }
        weights
    }

    #[inline(always)]
    fn bias<W: TileSimd>() -> i32 {
        W::BYTE_BIAS
    }

    #[inline(always)]
    fn many_from<W: TileSimd>() -> usize {
        W::MANY_BYTES_FROM
    }

    #[inline(always)]
    fn dot<W: TileSimd>(isa: W, acc: W::I32, weights: &[W::U8; 8], a: &[[i8; 4]; 8]) -> W::I32 {
        isa.dot_bytes(acc, weights, a)
    }

    #[inline(always)]
    fn dot_pair<W: TileSimd>(
        isa: W,
        acc: [W::I32; 2],
        weights: &[W::U8; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [W::I32; 2] {
        isa.dot_bytes_pair(acc, weights, a)
    }
}
