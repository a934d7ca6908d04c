//! Element formats of the cache. An entry holds the elements of one position as bytes; attention
//! reads eight elements at a time.

use std::ops::Range;

use half::f16;

use crate::blocks::GROUP;
use crate::isa::{MOST_TILES, TileSimd};

/// Format of an entry's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFormat {
    /// 4 bytes per element.
    F32,
    /// 2 bytes per element.
    F16,
    /// One byte per element, then a scale per 32 elements (the upper half of an f32), then the
    /// trailing elements in half precision.
    Q8 {
        /// Number of trailing elements in half precision.
        halves: usize,
    },
}

impl EntryFormat {
    /// Bytes of an entry with `width` elements.
    pub fn bytes(self, width: usize) -> usize {
        match self {
            Self::F32 => 4 * width,
            Self::F16 => 2 * width,
            Self::Q8 { halves } => {
                let coded = width - halves;
                coded + 2 * coded.div_ceil(GROUP) + 2 * halves
            }
        }
    }

    /// Number of leading elements in the main format; the others are in half precision.
    pub(super) fn uniform(self, width: usize) -> usize {
        match self {
            Self::F32 | Self::F16 => width,
            Self::Q8 { halves } => width - halves,
        }
    }

    /// Appends an encoded entry.
    pub fn encode(self, entry: &[f32], to: &mut Vec<u8>) {
        match self {
            Self::F32 => to.extend(entry.iter().flat_map(|x| x.to_le_bytes())),
            Self::F16 => to.extend(entry.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes())),
            Self::Q8 { halves } => {
                let (coded, rest) = entry.split_at(entry.len() - halves);
                let scales: Vec<u16> = coded.chunks(GROUP).map(scale).collect();
                for (group, scale) in coded.chunks(GROUP).zip(&scales) {
                    let scale = upper_half(*scale);
                    // Zero divided by zero is NaN, which becomes code 0.
                    to.extend(group.iter().map(|x| (x / scale).round_ties_even() as i8 as u8));
                }
                to.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
                Self::F16.encode(rest, to);
            }
        }
    }

    /// Decodes an entry.
    pub fn decode(self, entry: &[u8], to: &mut [f32]) {
        match self {
            Self::F32 => {
                for (x, bytes) in to.iter_mut().zip(entry.as_chunks().0) {
                    *x = f32::from_le_bytes(*bytes);
                }
            }
            Self::F16 => {
                for (x, bytes) in to.iter_mut().zip(entry.as_chunks().0) {
                    *x = f16::from_le_bytes(*bytes).to_f32();
                }
            }
            Self::Q8 { halves } => {
                let (to, rest) = to.split_at_mut(to.len() - halves);
                let (entry, plain) = entry.split_at(entry.len() - 2 * halves);
                let (codes, scales) = entry.split_at(to.len());
                let groups = to.chunks_mut(GROUP).zip(codes.chunks(GROUP));
                for ((to, codes), scale) in groups.zip(scales.as_chunks().0) {
                    let scale = upper_half(u16::from_le_bytes(*scale));
                    for (x, code) in to.iter_mut().zip(codes) {
                        *x = f32::from(*code as i8) * scale;
                    }
                }
                Self::F16.decode(plain, rest);
            }
        }
    }
}

/// The scale of a group that has a number that is NaN or infinite: all of it decodes to NaN.
const NOT_A_NUMBER: u16 = 0x7fc0;

/// The smallest scale with which the largest magnitude of the group is at most 127.
fn scale(group: &[f32]) -> u16 {
    if group.iter().any(|x| !x.is_finite()) {
        return NOT_A_NUMBER;
    }
    let largest = group.iter().fold(0.0f32, |a, x| if x.abs() > a { x.abs() } else { a });
    ((largest / 127.0).to_bits().saturating_add(0xffff) >> 16) as u16
}

/// The f32 whose upper 16 bits are `bits` and whose lower ones are zero.
#[inline(always)]
fn upper_half(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Reads entries of one format in kernels.
pub(super) trait Cached {
    /// A range of an entry's elements, in eights.
    type Row<'a>: Copy;

    /// Elements `numbers` of an entry whose first `uniform` elements are in this format. The range
    /// begins and ends at multiples of 8.
    fn row(entry: &[u8], numbers: Range<usize>, uniform: usize) -> Self::Row<'_>;

    /// Decodes the eights `at` of one row per tile.
    fn load<W: TileSimd>(
        isa: W,
        at: [usize; MOST_TILES],
        rows: [Self::Row<'_>; MOST_TILES],
    ) -> W::F32;
}

/// [`EntryFormat::F32`]
pub(super) struct F32;

impl Cached for F32 {
    type Row<'a> = &'a [[u8; 32]];

    #[inline(always)]
    fn row(entry: &[u8], numbers: Range<usize>, _: usize) -> &[[u8; 32]] {
        entry[4 * numbers.start..4 * numbers.end].as_chunks().0
    }

    #[inline(always)]
    fn load<W: TileSimd>(
        isa: W,
        at: [usize; MOST_TILES],
        rows: [&[[u8; 32]]; MOST_TILES],
    ) -> W::F32 {
        let mut numbers = [[0.0; 8]; MOST_TILES];
        for tile in 0..W::TILES {
            let bytes = rows[tile][at[tile]].as_chunks().0;
            for (x, bytes) in numbers[tile].iter_mut().zip(bytes) {
                *x = f32::from_le_bytes(*bytes);
            }
        }
        isa.load_tiles(numbers.each_ref())
    }
}

/// [`EntryFormat::F16`]
pub(super) struct F16;

impl Cached for F16 {
    type Row<'a> = &'a [[u8; 16]];

    #[inline(always)]
    fn row(entry: &[u8], numbers: Range<usize>, _: usize) -> &[[u8; 16]] {
        entry[2 * numbers.start..2 * numbers.end].as_chunks().0
    }

    #[inline(always)]
    fn load<W: TileSimd>(
        isa: W,
        at: [usize; MOST_TILES],
        rows: [&[[u8; 16]]; MOST_TILES],
    ) -> W::F32 {
        isa.load_f16_tiles([&rows[0][at[0]], &rows[1][at[1]]])
    }
}

/// The one-byte elements of [`EntryFormat::Q8`].
pub(super) struct Q8;

/// Codes in eights, and the scales of their groups.
#[derive(Clone, Copy)]
pub(super) struct Q8Row<'a> {
    codes: &'a [[u8; 8]],
    scales: &'a [[u8; 2]],
    /// Eights of the first group that are before the row.
    before: usize,
}

impl Cached for Q8 {
    type Row<'a> = Q8Row<'a>;

    #[inline(always)]
    fn row(entry: &[u8], numbers: Range<usize>, uniform: usize) -> Q8Row<'_> {
        let (codes, scales) = entry.split_at(uniform);
        let (codes, first) = (codes[numbers.clone()].as_chunks().0, numbers.start / GROUP);
        let before = numbers.start % GROUP / 8;
        Q8Row { codes, scales: &scales.as_chunks().0[first..], before }
    }

    #[inline(always)]
    fn load<W: TileSimd>(isa: W, at: [usize; MOST_TILES], rows: [Q8Row; MOST_TILES]) -> W::F32 {
        let [a, b] = rows;
        let group = |row: Q8Row<'_>, at| (row.before + at) / (GROUP / 8);
        isa.load_scaled_tiles(
            [&a.codes[at[0]], &b.codes[at[1]]],
            [&a.scales[group(a, at[0])], &b.scales[group(b, at[1])]],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(format: EntryFormat, entry: &[f32]) -> Vec<f32> {
        let (mut bytes, mut back) = (Vec::new(), vec![f32::NAN; entry.len()]);
        format.encode(entry, &mut bytes);
        assert_eq!(bytes.len(), format.bytes(entry.len()));
        format.decode(&bytes, &mut back);
        back
    }

    #[test]
    fn eight_bits_are_off_by_at_most_half_a_step_of_their_group() {
        // Groups of all magnitudes, and a last one that is short.
        let entry: Vec<f32> = (0..200)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) * 10f32.powi(i / 32 * 12 - 36))
            .collect();
        let back = round_trip(EntryFormat::Q8 { halves: 0 }, &entry);
        for (group, back) in entry.chunks(GROUP).zip(back.chunks(GROUP)) {
            let largest = group.iter().fold(0.0f32, |a, x| a.max(x.abs()));
            // The scale is rounded up to 8 bits of precision.
            let half_a_step = largest / 127.0 / 2.0 * (1.0 + 1.0 / 128.0);
            for (x, y) in group.iter().zip(back) {
                assert!((x - y).abs() <= half_a_step, "{x} became {y}");
            }
        }
    }

    #[test]
    fn the_last_numbers_of_an_entry_can_stay_in_half_precision() {
        let entry: Vec<f32> = (0..56).map(|i| i as f32 / 7.0 - 4.0).collect();
        let back = round_trip(EntryFormat::Q8 { halves: 16 }, &entry);
        assert_eq!(back[..40], round_trip(EntryFormat::Q8 { halves: 0 }, &entry[..40]));
        assert_eq!(back[40..], round_trip(EntryFormat::F16, &entry[40..]));
    }

    #[test]
    fn a_group_with_a_number_that_is_none_has_none() {
        for bad in [f32::NAN, f32::INFINITY, f32::from_bits(0x7fff_ffff)] {
            let mut entry = [1.0; 64];
            entry[40] = bad;
            let back = round_trip(EntryFormat::Q8 { halves: 0 }, &entry);
            assert!(back[..32].iter().all(|x| (x - 1.0).abs() < 0.01), "{back:?}");
            assert!(back[32..].iter().all(|x| x.is_nan()), "{back:?}");
        }
    }

    #[test]
    fn nothing_stays_nothing_and_the_largest_numbers_stay_finite() {
        let q8 = EntryFormat::Q8 { halves: 0 };
        assert_eq!(round_trip(q8, &[0.0, -0.0, 0.0]), [0.0; 3]);
        let largest = round_trip(q8, &[f32::MAX, f32::MIN, 1.0]);
        assert!(largest.iter().all(|x| x.is_finite()), "{largest:?}");
        assert!(largest[0] > 0.99 * f32::MAX && largest[1] == -largest[0], "{largest:?}");
    }
}
