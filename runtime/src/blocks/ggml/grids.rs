//! Grids of ggml's IQ types: an index represents eight weights (IQ1, IQ2) or four (IQ3).
//!
//! `grids/make_grids.py` writes the files, in which two- or four-bit numbers index the values
//! listed here. The compiler expands them to a byte per weight, 33 KiB for all types together: a
//! table that was expanded on first use had to be asked for by every kernel.

/// `N` entries of `W` weights.
pub(super) type Grid<const N: usize, const W: usize> = [[u8; W]; N];

/// Values of IQ2's grids.
const TWO_BITS: [i8; 3] = [8, 25, 43];
/// Values of IQ1's grid, times eight, so that the shift by an eighth is an integer.
const TERNARY: [i8; 3] = [-8, 0, 8];

pub(super) static IQ2_XXS: Grid<256, 8> = expand(include_bytes!("grids/iq2_xxs.bin"), &TWO_BITS);
pub(super) static IQ2_XS: Grid<512, 8> = expand(include_bytes!("grids/iq2_xs.bin"), &TWO_BITS);
pub(super) static IQ2_S: Grid<1024, 8> = expand(include_bytes!("grids/iq2_s.bin"), &TWO_BITS);
pub(super) static IQ3_XXS: Grid<256, 4> =
    expand(include_bytes!("grids/iq3_xxs.bin"), &[4, 12, 20, 28, 36, 44, 52, 62]);
pub(super) static IQ3_S: Grid<512, 4> =
    expand(include_bytes!("grids/iq3_s.bin"), &[1, 3, 5, 7, 9, 11, 13, 15]);
pub(super) static IQ1: Grid<2048, 8> = expand(include_bytes!("grids/iq1.bin"), &TERNARY);

/// Expands entries of `16 / W` bits per weight.
const fn expand<const N: usize, const W: usize>(packed: &[u8], values: &[i8]) -> Grid<N, W> {
    let bits = 16 / W;
    assert!(packed.len() == 2 * N, "an entry has 16 bits");
    let mut grid = [[0; W]; N];
    let mut i = 0;
    while i < N * W {
        let code = packed[i * bits / 8] >> (i * bits % 8) & ((1 << bits) - 1);
        grid[i / W][i % W] = values[code as usize] as u8;
        i += 1;
    }
    grid
}

/// 32 weights from a grid's entries, negated where `signs` has bits set.
pub(super) fn signed<const W: usize, const E: usize>(
    entries: [&[u8; W]; E],
    signs: [u8; 4],
) -> [i8; 32] {
    std::array::from_fn(|i| {
        let weight = entries[i / W][i % W] as i8;
        if signs[i / 8] >> (i % 8) & 1 == 1 { -weight } else { weight }
    })
}

/// Sign bits of eight weights, an even number of which are negative, from the first seven.
pub(super) fn even(sevens: u8) -> u8 {
    sevens | (sevens.count_ones() as u8 & 1) << 7
}
