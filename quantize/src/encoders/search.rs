//! Scale of one group of 32 weights: tries the scales near the one that fits the largest weight,
//! and keeps the one with the least weighted squared error.
//!
//! Scales are the 128 values of a scale byte, so an exhaustive search of the plausible ones is
//! cheap: four to nine of either sign. An asymmetric table is tried in both orientations.

use std::sync::LazyLock;

use vaquita_runtime::blocks::GROUP;
use vaquita_runtime::isa::scalar::decode_scale;

use super::tables::Table;

/// Range of exponents of a row's scale; below it, products with a group's scale are denormal.
const LEAST_EXPONENT: i32 = -110;

/// Magnitudes of the scale bytes, and their reciprocals.
static SCALES: LazyLock<[(f32, f32); 128]> = LazyLock::new(|| {
    std::array::from_fn(|byte| {
        let scale = decode_scale(byte as u8);
        (scale, 1.0 / scale)
    })
});

/// Values that the weights of a group are rounded to.
#[derive(Clone, Copy, Debug)]
pub enum Grid<'a> {
    /// The entries of a table.
    Table(&'a Table),
    /// The integers from -127 to 127.
    Integers,
}

impl Grid<'_> {
    /// The code of the value at a place.
    #[inline(always)]
    pub fn code(&self, place: u8) -> u8 {
        match self {
            Self::Table(table) => table.codes[usize::from(place)],
            Self::Integers => place,
        }
    }

    /// Magnitudes of the lowest and the highest value.
    fn reach(&self) -> (f32, f32) {
        match self {
            Self::Table(table) => {
                (-f32::from(table.values()[0]), f32::from(table.values()[table.len - 1]))
            }
            Self::Integers => (127.0, 127.0),
        }
    }

    /// Range of the best scale, as factors of the smallest scale that clips nothing. Measured:
    /// fewer than 2% of the best scales of Gaussian and heavy-tailed groups are outside, and the
    /// best scale inside is nearly as good. MXFP4's gap between 4 and 6 makes 1.5 a frequent
    /// factor.
    fn range(&self) -> (f32, f32) {
        match self {
            Self::Table(table) if table.len <= 4 => (0.44, 0.96),
            Self::Table(table) if table.len <= 8 => (0.72, 1.08),
            Self::Table(table) if table.symmetric => (0.86, 1.5),
            Self::Table(_) => (0.86, 1.22),
            Self::Integers => (0.95, 1.12),
        }
    }
}

/// Scale of a row: a power of two, so that division by it is exact, and large enough for every
/// group's scale to fit a scale byte. Zero for a row of zeros.
pub fn row_scale(largest: f32, grid: &Grid) -> f32 {
    if largest == 0.0 {
        return 0.0;
    }
    let (low, high) = grid.reach();
    let least_reach = low.min(high);
    let needed = f64::from(largest) / f64::from(least_reach) * f64::from(grid.range().1) / 1.75;
    let exponent = (needed.log2().ceil() as i32).clamp(LEAST_EXPONENT, 127);
    2f32.powi(exponent)
}

/// A group's scale byte and its weighted squared error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupScale {
    /// Scale byte.
    pub byte: u8,
    /// Error, in units of the squared row scale.
    pub error: f32,
}

/// Selects the scale of a group of weights that are already divided by the row's scale. Compiled
/// for baseline CPUs: with the widest vectors it takes twice as long.
#[inline(never)]
pub fn choose(
    grid: &Grid,
    weights: &[f32; GROUP],
    importance: Option<&[f32; GROUP]>,
) -> GroupScale {
    let (mut least, mut most) = (0f32, 0f32);
    for weight in weights {
        least = least.min(*weight);
        most = most.max(*weight);
    }
    let (low, high) = grid.reach();
    let mut best = GroupScale { byte: 0, error: f32::INFINITY };
    search_sign(grid, (-least / low).max(most / high), 0, weights, importance, &mut best);
    if matches!(grid, Grid::Table(table) if !table.symmetric) {
        search_sign(grid, (-least / high).max(most / low), 0x80, weights, importance, &mut best);
    }
    best
}

/// Tries the scales of one sign around `fitting`, the smallest that clips nothing.
fn search_sign(
    grid: &Grid,
    fitting: f32,
    sign: u8,
    weights: &[f32; GROUP],
    importance: Option<&[f32; GROUP]>,
    best: &mut GroupScale,
) {
    let (low, high) = grid.range();
    for byte in byte_below(fitting * low)..=byte_below(fitting * high) {
        let error = error(grid, byte | sign, weights, importance, best.error);
        if error < best.error {
            *best = GroupScale { byte: byte | sign, error };
        }
    }
}

/// The scale byte with the largest magnitude that is at most `scale`.
#[inline(always)]
fn byte_below(scale: f32) -> u8 {
    // Without the sign: zero may be negative.
    (scale.abs().to_bits() >> 20).saturating_sub(112 << 3).min(127) as u8
}

/// Weighted squared error of a scale byte; stops early with a value above `enough` once the error
/// exceeds it.
fn error(
    grid: &Grid,
    byte: u8,
    weights: &[f32; GROUP],
    importance: Option<&[f32; GROUP]>,
    enough: f32,
) -> f32 {
    let (scale, inverse) = signed_scale(byte);
    let mut lanes = [0f32; 8];
    for (part, weights) in weights.as_chunks::<8>().0.iter().enumerate() {
        let mut nearest = [0f32; 8];
        match grid {
            Grid::Table(table) => {
                let places = places(weights, &[inverse; 8]);
                for (nearest, place) in nearest.iter_mut().zip(places) {
                    *nearest = table.nearest[usize::from(place)];
                }
            }
            Grid::Integers => {
                for (nearest, weight) in nearest.iter_mut().zip(weights) {
                    *nearest = nearest_integer(weight * inverse);
                }
            }
        }
        let mut squares = [0f32; 8];
        for ((square, weight), nearest) in squares.iter_mut().zip(weights).zip(nearest) {
            let difference = weight - scale * nearest;
            *square = difference * difference;
        }
        if let Some(importance) = importance {
            for (square, one) in squares.iter_mut().zip(&importance.as_chunks::<8>().0[part]) {
                *square *= one;
            }
        }
        for (lane, square) in lanes.iter_mut().zip(squares) {
            *lane += square;
        }
        if part == 1 && lanes.iter().sum::<f32>() > enough {
            return f32::INFINITY;
        }
    }
    lanes.iter().sum()
}

/// Indices into a table's `nearest` for eight weights. Adding 2^23 leaves the rounded number in the
/// low bits; all of this auto-vectorizes.
#[inline(always)]
fn places(weights: &[f32; 8], inverse: &[f32; 8]) -> [u8; 8] {
    let mut places = [0; 8];
    for i in 0..8 {
        let place = (weights[i] * (inverse[i] * 2.0) + 127.5).clamp(0.0, 255.0) + 8_388_608.0;
        places[i] = place.to_bits() as u8;
    }
    places
}

/// Writes the codes of a group for a scale byte.
pub fn codes(grid: &Grid, byte: u8, weights: &[f32; GROUP], out: &mut [u8; GROUP]) {
    let (_, inverse) = signed_scale(byte);
    match grid {
        Grid::Table(table) => {
            for (codes, weights) in
                out.as_chunks_mut::<8>().0.iter_mut().zip(weights.as_chunks::<8>().0)
            {
                *codes =
                    places(weights, &[inverse; 8]).map(|place| table.codes[usize::from(place)]);
            }
        }
        Grid::Integers => {
            for (code, weight) in out.iter_mut().zip(weights) {
                *code = nearest_integer(weight * inverse) as i8 as u8;
            }
        }
    }
}

/// Number of rows that are rounded together.
pub const LANES: usize = 8;

/// One number per row.
pub type Lanes = [f32; LANES];

/// Scales of one group of each of several rows.
pub struct Scales {
    scale: Lanes,
    inverse: Lanes,
}

impl Scales {
    /// The scales for scale bytes.
    #[inline(always)]
    pub fn new(bytes: [u8; LANES]) -> Self {
        let scales = bytes.map(signed_scale);
        Self { scale: scales.map(|(scale, _)| scale), inverse: scales.map(|(_, inverse)| inverse) }
    }

    /// For a weight of each row, the place of the nearest value (see [`Grid::code`]), and that
    /// value, scaled.
    #[inline(always)]
    pub fn nearest(&self, grid: &Grid, weights: &Lanes) -> ([u8; LANES], Lanes) {
        match grid {
            Grid::Table(table) => {
                let places = places(weights, &self.inverse);
                let mut nearest = [0.0; LANES];
                for lane in 0..LANES {
                    nearest[lane] = self.scale[lane] * table.nearest[usize::from(places[lane])];
                }
                (places, nearest)
            }
            Grid::Integers => {
                let (mut places, mut nearest) = ([0; LANES], [0.0; LANES]);
                for lane in 0..LANES {
                    let integer = nearest_integer(weights[lane] * self.inverse[lane]);
                    places[lane] = integer as i8 as u8;
                    nearest[lane] = self.scale[lane] * integer;
                }
                (places, nearest)
            }
        }
    }
}

#[inline(always)]
fn signed_scale(byte: u8) -> (f32, f32) {
    let (scale, inverse) = SCALES[usize::from(byte & 0x7f)];
    if byte & 0x80 == 0 { (scale, inverse) } else { (-scale, -inverse) }
}

/// Nearest integer between -127 and 127, ties to even. Adding and subtracting 1.5 * 2^23 rounds
/// without a call.
#[inline(always)]
fn nearest_integer(value: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    value.clamp(-127.0, 127.0) + ROUND - ROUND
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoders::tables;
    use vaquita_lcg::Lcg;
    use vaquita_runtime::blocks::BlockType;

    #[test]
    fn no_scale_byte_beats_the_chosen_one_by_much() {
        let mut random = Lcg(1);
        for ty in [BlockType::E2, BlockType::E3, BlockType::E4] {
            let grid = Grid::Table(&tables::candidates(ty)[0]);
            let (mut chosen, mut least) = (0f64, 0f64);
            for _ in 0..300 {
                let weights = std::array::from_fn(|_| random.normal(12));
                chosen += f64::from(choose(&grid, &weights, None).error);
                let all = (0..=255).map(|byte| error(&grid, byte, &weights, None, f32::INFINITY));
                least += f64::from(all.fold(f32::INFINITY, f32::min));
            }
            assert!(chosen <= least * 1.005, "{ty}: {chosen} against {least}");
        }
    }

    #[test]
    fn the_scale_of_a_row_leaves_room_for_its_largest_weight() {
        for grid in [Grid::Integers, Grid::Table(&tables::candidates(BlockType::E4)[1])] {
            for exponent in -100..=127 {
                let largest = 2f32.powi(exponent) * 1.99;
                let group_scale = largest / grid.reach().0.min(grid.reach().1) * grid.range().1
                    / row_scale(largest, &grid);
                assert!((0.5..=1.875).contains(&group_scale), "{exponent}: {group_scale}");
            }
        }
    }
}
