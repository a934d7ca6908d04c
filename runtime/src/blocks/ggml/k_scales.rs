//! The packed 6-bit scales and minima of Q4_K and Q5_K.

use super::tile::{halves, numbers, sixteen};
use super::{TILE_ROWS, TileGroup};
use crate::isa::Isa;

/// Scale and minimum of group `index`, from the 12 bytes that contain eight of each.
#[inline(always)]
pub(super) fn scale_and_min(bytes: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        (bytes[index] & 63, bytes[index + 4] & 63)
    } else {
        let (low, scale, min) = (bytes[index + 4], bytes[index - 4] >> 6, bytes[index] >> 6);
        (low & 15 | scale << 4, low >> 4 | min << 4)
    }
}

/// Sets the scales and offsets of the eight groups of a block that begins like Q4_K's.
#[inline(always)]
pub(super) fn set_scales<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    groups: &mut [TileGroup; 8],
) {
    let (d, min) = (halves(isa, rows, 0), isa.sub(isa.splat(0.0), halves(isa, rows, 2)));
    let [_, first, second, third] = sixteen(isa, rows, 0);
    let scales = [
        isa.shift_and::<0>(first, 63),
        isa.insert::<-2>(isa.shift_and::<0>(third, 15), first, 0x30),
    ];
    let minima = [
        isa.shift_and::<0>(second, 63),
        isa.insert::<-2>(isa.shift_and::<4>(third, 15), second, 0x30),
    ];
    let fours = groups.as_chunks_mut::<4>().0.iter_mut().zip(scales.into_iter().zip(minima));
    for (groups, (scales, minima)) in fours {
        let (scales, minima) = (numbers(isa, scales), numbers(isa, minima));
        for (i, group) in groups.iter_mut().enumerate() {
            group.set_factors(isa, 0, isa.mul(d, scales[i]), isa.mul(min, minima[i]));
        }
    }
}
