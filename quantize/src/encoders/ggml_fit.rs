//! Scales and codes of groups of Q4_K and Q6_K by ggml's searches, for eight groups side by side: a
//! lane computes one group, in single precision and in the order of its weights, so that the bits
//! are ggml's. Loops are written out, since closures would not be compiled with the tier's target
//! features.

use super::search::{LANES, Lanes};

/// Magnitudes below this count as zero.
pub(super) const TINY: f32 = 1e-15;

/// The best fit of each group of `N` weights.
pub(super) struct Fits<const N: usize> {
    /// Codes, `[weight][group]`.
    pub codes: [Lanes; N],
    /// Factors of the codes.
    pub scales: Lanes,
    /// Offsets, which are subtracted from the products: not negative, and zero for Q6_K.
    pub offsets: Lanes,
}

/// The weights of eight groups, `[weight][group]`.
#[inline(always)]
pub(super) fn side_by_side<const N: usize>(groups: &[[f32; N]; LANES]) -> [Lanes; N] {
    let mut lanes = [[0.0; LANES]; N];
    for (lane, group) in groups.iter().enumerate() {
        for (lanes, value) in lanes.iter_mut().zip(group) {
            lanes[lane] = *value;
        }
    }
    lanes
}

/// The nearest integer, ties to even, within bounds far below 2^22; the lower one for NaN.
#[inline(always)]
pub(super) fn nearest(value: f32, least: f32, most: f32) -> f32 {
    // Numbers from 2^23 to 2^24 have no fraction: the first sum rounds.
    const SHIFT: f32 = 1.5 * (1 << 23) as f32;
    value.max(least).min(most) + SHIFT - SHIFT
}

/// The first value of the largest magnitude in each group.
#[inline(always)]
fn extremes<const N: usize>(x: &[Lanes; N]) -> Lanes {
    let mut found = [0f32; LANES];
    for x in x {
        for lane in 0..LANES {
            found[lane] = if x[lane].abs() > found[lane].abs() { x[lane] } else { found[lane] };
        }
    }
    found
}

/// The codes of `factor * (x - from)`.
#[inline(always)]
fn codes_at<const N: usize, const LEAST: i32, const MOST: i32>(
    x: &[Lanes; N],
    factors: &Lanes,
    from: &Lanes,
) -> [Lanes; N] {
    let mut codes = [[0.0; LANES]; N];
    for (codes, x) in codes.iter_mut().zip(x) {
        for lane in 0..LANES {
            let value = factors[lane] * (x[lane] - from[lane]);
            codes[lane] = nearest(value, LEAST as f32, MOST as f32);
        }
    }
    codes
}

/// All bits where `condition`, otherwise none.
#[inline(always)]
fn mask(condition: bool) -> u32 {
    u32::from(condition).wrapping_neg()
}

/// `a` where `mask` has all bits, otherwise `b`. A selection by a `bool` would become a branch.
#[inline(always)]
fn select(mask: u32, a: f32, b: f32) -> f32 {
    f32::from_bits((a.to_bits() & mask) | (b.to_bits() & !mask))
}

/// Replaces the codes of the groups in `masks`.
#[inline(always)]
fn take<const N: usize>(codes: &mut [Lanes; N], tried: &[Lanes; N], masks: &[u32; LANES]) {
    for (codes, tried) in codes.iter_mut().zip(tried) {
        for lane in 0..LANES {
            codes[lane] = select(masks[lane], tried[lane], codes[lane]);
        }
    }
}

/// Weighted squared error of `scale * code + least`.
#[inline(always)]
fn errors<const N: usize>(
    [x, weights, codes]: [&[Lanes; N]; 3],
    scales: &Lanes,
    least: &Lanes,
) -> Lanes {
    let mut sum = [-0.0; LANES];
    for ((codes, weights), x) in codes.iter().zip(weights).zip(x) {
        for lane in 0..LANES {
            let difference = scales[lane] * codes[lane] + least[lane] - x[lane];
            sum[lane] += weights[lane] * (difference * difference);
        }
    }
    sum
}

/// Fits `scale * code - offset` with codes of four bits: of 21 scales around the range of a group's
/// weights, the one with the least squares over the codes, where larger weights count more.
#[inline(always)]
pub(super) fn affine<const N: usize>(x: &[Lanes; N]) -> Fits<N> {
    const MOST: f32 = 15.0;
    let (mut highest, mut lowest, mut power) = (x[0], x[0], [-0.0; LANES]);
    for x in x {
        for lane in 0..LANES {
            highest[lane] = highest[lane].max(x[lane]);
            lowest[lane] = lowest[lane].min(x[lane]);
            power[lane] += x[lane] * x[lane];
        }
    }
    let mut weights = [[0.0; LANES]; N];
    let (mut sum_weights, mut sum_values) = ([-0.0; LANES], [-0.0; LANES]);
    for (weights, x) in weights.iter_mut().zip(x) {
        for lane in 0..LANES {
            weights[lane] = (power[lane] / N as f32).sqrt() + x[lane].abs();
            sum_weights[lane] += weights[lane];
            sum_values[lane] += weights[lane] * x[lane];
        }
    }

    let mut least = lowest;
    let (mut factors, mut scales) = ([0.0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        least[lane] = lowest[lane].min(0.0);
        factors[lane] = MOST / (highest[lane] - least[lane]);
        scales[lane] = 1.0 / factors[lane];
    }
    let first = least;
    let mut codes = codes_at::<N, 0, 15>(x, &factors, &least);
    let mut smallest = errors([x, &weights, &codes], &scales, &least);
    for step in 0..=20u8 {
        for lane in 0..LANES {
            let range = highest[lane] - least[lane];
            factors[lane] = (-1.0 + 0.1 * f32::from(step) + MOST) / range;
        }
        let tried = codes_at::<N, 0, 15>(x, &factors, &least);
        let mut sums = [[0.0; LANES]; 3];
        for ((codes, weights), x) in tried.iter().zip(&weights).zip(x) {
            for lane in 0..LANES {
                let weighted = weights[lane] * codes[lane];
                sums[0][lane] += weighted;
                sums[1][lane] += weighted * codes[lane];
                sums[2][lane] += weighted * x[lane];
            }
        }
        let [sum_codes, sum_squares, sum_products] = sums;
        let (mut at, mut from, mut determinant) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            let (codes, squares) = (sum_codes[lane], sum_squares[lane]);
            let (values, products) = (sum_values[lane], sum_products[lane]);
            determinant[lane] = sum_weights[lane] * squares - codes * codes;
            let best = (sum_weights[lane] * products - values * codes) / determinant[lane];
            let least = (squares * values - codes * products) / determinant[lane];
            let above = mask(least > 0.0);
            at[lane] = select(above, products / squares, best);
            from[lane] = select(above, 0.0, least);
        }
        let found = errors([x, &weights, &tried], &at, &from);
        let mut better = [0; LANES];
        for lane in 0..LANES {
            better[lane] = mask(determinant[lane] > 0.0) & mask(found[lane] < smallest[lane]);
            smallest[lane] = select(better[lane], found[lane], smallest[lane]);
            scales[lane] = select(better[lane], at[lane], scales[lane]);
            least[lane] = select(better[lane], from[lane], least[lane]);
        }
        take(&mut codes, &tried, &better);
    }
    let mut offsets = [0.0; LANES];
    for lane in 0..LANES {
        // All weights are one number.
        if highest[lane] == first[lane] {
            (scales[lane], least[lane]) = (0.0, first[lane]);
            codes.iter_mut().for_each(|codes| codes[lane] = 0.0);
        }
        offsets[lane] = -least[lane];
    }
    Fits { codes, scales, offsets }
}

/// Codes from -32 to 31 of which that of each group's largest weight is near `-most`.
#[inline(always)]
fn codes_around<const N: usize>(x: &[Lanes; N], largest: &Lanes, most: f32) -> [Lanes; N] {
    let mut factors = [0.0; LANES];
    for lane in 0..LANES {
        factors[lane] = -most / largest[lane];
    }
    codes_at::<N, -32, 31>(x, &factors, &[0.0; LANES])
}

/// Sums of weights times codes and of squared codes, where each weight counts by its square.
#[inline(always)]
fn sums<const N: usize>(x: &[Lanes; N], codes: &[Lanes; N]) -> (Lanes, Lanes) {
    let (mut products, mut squares) = ([0.0; LANES], [0.0; LANES]);
    for (codes, x) in codes.iter().zip(x) {
        for lane in 0..LANES {
            let weight = x[lane] * x[lane];
            products[lane] += weight * x[lane] * codes[lane];
            squares[lane] += weight * codes[lane] * codes[lane];
        }
    }
    (products, squares)
}

/// Fits `scale * code` with codes from -32 to 31: of 19 scales around that of a group's largest
/// weight, the one with the least squares, where each weight counts by its square.
#[inline(always)]
pub(super) fn symmetric<const N: usize>(x: &[Lanes; N]) -> Fits<N> {
    const MOST: f32 = 32.0;
    let (largest, zero) = (extremes(x), [0.0; LANES]);
    let mut codes = codes_around(x, &largest, MOST);
    let (products, squares) = sums(x, &codes);
    let (mut scales, mut best) = (zero, zero);
    for lane in 0..LANES {
        scales[lane] = if squares[lane] != 0.0 { products[lane] / squares[lane] } else { 0.0 };
        best[lane] = scales[lane] * products[lane];
    }
    for step in (-9i8..=9).filter(|step| *step != 0) {
        let tried = codes_around(x, &largest, MOST + 0.1 * f32::from(step));
        let (products, squares) = sums(x, &tried);
        let mut better = [0; LANES];
        for lane in 0..LANES {
            let (product, square) = (products[lane], squares[lane]);
            better[lane] = mask(square > 0.0) & mask(product * product > best[lane] * square);
            scales[lane] = select(better[lane], product / square, scales[lane]);
            best[lane] = select(better[lane], scales[lane] * product, best[lane]);
        }
        take(&mut codes, &tried, &better);
    }
    for lane in 0..LANES {
        if largest[lane].abs() < TINY {
            scales[lane] = 0.0;
            codes.iter_mut().for_each(|codes| codes[lane] = -MOST);
        }
    }
    Fits { codes, scales, offsets: zero }
}
