//! IQ2_XS: entries of a grid of 512, signs by sevens, a 4-bit scale per 16, an f16 per 256. 2.3125
//! bits.

use super::grids::{IQ2_XS, even, signed};
use super::tile::{
    Indices, eight, eights, even_signs, halves, part, row_eights, row_even_signs,
    set_nibble_scales, sixteen, subarray,
};
use super::{Block, ByGrid, CodeRange, Group, Signs, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// f16 scale, 32 times an index of nine bits and seven signs, 16 scales.
pub struct Iq2Xs;

/// The indices of a block's entries.
#[inline(always)]
fn indices<I: Isa>(isa: I, rows: [&[u8; 74]; TILE_ROWS]) -> Indices<4> {
    let mut all = Indices::default();
    for (pair, at) in all.as_chunks_mut::<2>().0.iter_mut().zip([2, 18, 34, 50]) {
        let words = sixteen(isa, rows, at);
        for (indices, words) in pair.as_flattened_mut().as_chunks_mut::<2>().0.iter_mut().zip(words)
        {
            *indices = [isa.lanes(isa.bits(words, 0, 9)), isa.lanes(isa.bits(words, 16, 9))];
        }
    }
    all
}

impl Block for Iq2Xs {
    type Bytes = [u8; 74];
    const WEIGHTS: usize = 256;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 74], index: usize) -> Group {
        let words: [u16; 4] = std::array::from_fn(|i| {
            u16::from_le_bytes([block[2 + 8 * index + 2 * i], block[3 + 8 * index + 2 * i]])
        });
        let entries = words.map(|word| &IQ2_XS[usize::from(word & 511)]);
        let signs = words.map(|word| even((word >> 9) as u8));
        let both = block[66 + index];
        let scale = |scale: u8| half_at(block, 0) * (0.5 + f32::from(scale)) * 0.25;
        let scales = [scale(both & 15), scale(both >> 4)];
        Group { codes: signed(entries, signs), scales, offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 74]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let (groups, grid) = (eight(groups), &IQ2_XS);
        let indices = indices(isa, rows);
        for (four, groups) in groups.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            for (i, group) in groups.iter_mut().enumerate() {
                let at = 2 + 32 * four + 8 * i;
                let [first, second] = isa.transpose_eights(subarray(rows, at));
                let mut codes = [[first; 2]; 4];
                for (codes, indices) in codes.iter_mut().zip(&indices[4 * four + i]) {
                    *codes = eights(isa, grid, indices);
                }
                // The sevens are the upper bits of odd bytes.
                let first = even_signs(isa, isa.shift_and::<1>(first, 127));
                let second = even_signs(isa, isa.shift_and::<1>(second, 127));
                let masks = [
                    [isa.spread::<8>(first), isa.spread::<12>(first)],
                    [isa.spread::<24>(first), isa.spread::<28>(first)],
                    [isa.spread::<8>(second), isa.spread::<12>(second)],
                    [isa.spread::<24>(second), isa.spread::<28>(second)],
                ];
                group.set_negated(isa, codes, masks);
            }
        }
    }
}

impl ByGrid for Iq2Xs {
    type Prepared = Signs;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 74]; TILE_ROWS], groups: &mut [TileGroup]) {
        let d = isa.mul(halves(isa, rows, 0), isa.splat(0.125));
        let [.., low, high] = sixteen(isa, rows, 58);
        set_nibble_scales(isa, d, [low, high], eight(groups));
    }

    #[inline(always)]
    fn prepare<I: Isa>(isa: I, block: &[u8; 74]) -> Signs {
        // The sevens are the upper bits of odd bytes.
        row_even_signs(isa, isa.shift_and::<1>(isa.odd_bytes(part(block, 2)), 127))
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 74], _: &Signs, index: usize) -> I::U8 {
        let words: &[u8; 8] = part(block, 2 + 8 * index);
        let [a, b, c, d, e, f, g, h] = *words;
        row_eights(isa, &IQ2_XS, &[[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes))
    }

    #[inline(always)]
    fn signs<'a>(_: &'a [u8; 74], signs: &'a Signs) -> Option<&'a Signs> {
        Some(signs)
    }
}
