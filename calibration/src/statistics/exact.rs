//! Sums that do not depend on the order of their terms, so that parts of a calibration add up to
//! the same bytes for any split of the documents.
//!
//! A row of inputs, multiplied by the router's weight, is rounded once, to integers on a
//! power-of-two grid that is derived from the row's largest magnitude, as in a block floating-point
//! format. All further arithmetic is on integers. Rows of similar grids are added up in `f64`,
//! which represents integers up to 2^53 exactly; these partial sums are added to totals in 128-bit
//! fixed point, with [`PLACES`] fractional bits.

use std::collections::BTreeMap;

use rayon::prelude::*;
use vaquita_quantize::hessian::Hessian;
use vaquita_runtime::isa::{Isa, Kernel, Tier};
use vaquita_runtime::model::observer::ExpertInputs;

use super::{ExpertMoments, Moments, Statistics};

/// Fractional bits of a total; 63 bits remain for the integer part.
pub(super) const PLACES: i32 = 64;
/// Magnitude bits of an input in products.
const PRODUCT_BITS: i32 = 16;
/// Magnitude bits of an input in squares only.
const SQUARE_BITS: i32 = 22;
/// Integers up to this are exact in `f64`.
const EXACT: f64 = (1u64 << 53) as f64;

/// Sums over the inputs of one matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExactMoments {
    /// Sum of the factors on the inputs, in fixed point.
    pub(super) weight: i128,
    /// Sums of squares per column, in fixed point.
    pub(super) squares: Vec<i128>,
    /// Sums of products, packed like a [`Hessian`]'s, in fixed point; empty if they are not
    /// collected.
    pub(super) products: Vec<i128>,
}

/// Sums over the tokens of one expert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExactExpert {
    /// Number of tokens that were routed to it.
    pub tokens: u64,
    /// Sum of the router's weights, in fixed point.
    pub(super) mass: i128,
    /// Inputs of gate and up.
    pub input: ExactMoments,
    /// Inputs of down.
    pub hidden: ExactMoments,
}

/// Exact sums over a model's inputs, as in [`Statistics`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExactStatistics {
    /// Block width of products, in inputs.
    pub block: Option<usize>,
    /// Moments of dense matrices, by name in GGUF.
    pub matrices: BTreeMap<String, ExactMoments>,
    /// Experts' moments, by layer and expert.
    pub experts: BTreeMap<usize, Vec<ExactExpert>>,
}

/// Error for inputs that are not finite or above 2^19, and for sums above 2^62.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its inputs are not finite, or above 500,000")]
pub struct OutOfRange;

/// Converts a number to fixed point, rounding toward zero.
pub(super) fn fixed(value: f64) -> i128 {
    (value * 2f64.powi(PLACES)) as i128
}

/// Converts fixed point to the nearest `f64`.
pub(super) fn float(value: i128) -> f64 {
    value as f64 * 2f64.powi(-PLACES)
}

impl ExactMoments {
    /// Adds rows of `width` inputs, each multiplied by its weight in `weights`, or by 1 if there
    /// are none. Products are collected in blocks of `block` columns, which are distributed over
    /// threads.
    pub fn add(
        &mut self,
        values: &[f32],
        width: usize,
        weights: Option<&[f32]>,
        block: Option<usize>,
    ) -> Result<(), OutOfRange> {
        let rows: Vec<&[f32]> = values.chunks_exact(width.max(1)).collect();
        let weight = |row: usize| weights.map_or(1.0, |all| all.get(row).copied().unwrap_or(0.0));
        for row in 0..rows.len() {
            let weight = f64::from(weight(row));
            self.weight = self.weight.checked_add(fixed(weight * weight)).ok_or(OutOfRange)?;
        }
        let tier = Tier::best();
        self.squares.resize(width, 0);
        let whole = Columns { rows: &rows, at: 0, width, weight: &weight, bits: SQUARE_BITS };
        tier.run(AddRows { columns: whole, totals: &mut self.squares, add: squares })?;
        let Some(block) = block else { return Ok(()) };
        let block = block.max(1);
        self.products.resize(Hessian::packed_len(width, block), 0);
        let mut rest = &mut self.products[..];
        let mut blocks = Vec::with_capacity(width.div_ceil(block));
        for at in (0..width).step_by(block) {
            let n = block.min(width - at);
            let (totals, after) = std::mem::take(&mut rest).split_at_mut(n * (n + 1) / 2);
            let columns =
                Columns { rows: &rows, at, width: n, weight: &weight, bits: PRODUCT_BITS };
            blocks.push((columns, totals));
            rest = after;
        }
        blocks
            .into_par_iter()
            .try_for_each(|(columns, totals)| tier.run(AddRows { columns, totals, add: triangle }))
    }

    /// Adds the sums of `other`.
    pub fn merge(&mut self, other: &Self) -> Result<(), OutOfRange> {
        add_to(&mut self.weight, other.weight)?;
        for (mine, other) in
            [(&mut self.squares, &other.squares), (&mut self.products, &other.products)]
        {
            mine.resize(mine.len().max(other.len()), 0);
            mine.iter_mut().zip(other).try_for_each(|(sum, other)| add_to(sum, *other))?;
        }
        Ok(())
    }

    /// Converts the sums to floating point.
    pub fn moments(&self, block: Option<usize>) -> Moments {
        let products = block.filter(|_| !self.products.is_empty()).and_then(|block| {
            let sums = self.products.iter().map(|sum| float(*sum) as f32).collect();
            Hessian::from_packed(self.squares.len(), block, sums)
        });
        let squares = self.squares.iter().map(|sum| float(*sum)).collect();
        Moments { weight: float(self.weight), squares, products }
    }
}

impl ExactExpert {
    /// Adds the tokens of a forward pass.
    pub fn add(&mut self, inputs: &ExpertInputs, block: Option<usize>) -> Result<(), OutOfRange> {
        let weights = inputs.weights;
        let tokens = weights.len().max(1);
        self.tokens += weights.len() as u64;
        for weight in weights {
            add_to(&mut self.mass, fixed(f64::from(*weight)))?;
        }
        self.input.add(inputs.input, inputs.input.len() / tokens, Some(weights), block)?;
        self.hidden.add(inputs.hidden, inputs.hidden.len() / tokens, Some(weights), block)
    }

    /// Adds the sums of `other`.
    pub fn merge(&mut self, other: &Self) -> Result<(), OutOfRange> {
        self.tokens = self.tokens.checked_add(other.tokens).ok_or(OutOfRange)?;
        add_to(&mut self.mass, other.mass)?;
        self.input.merge(&other.input)?;
        self.hidden.merge(&other.hidden)
    }

    /// Converts the sums to floating point.
    pub fn moments(&self, block: Option<usize>) -> ExpertMoments {
        let [input, hidden] = [&self.input, &self.hidden].map(|part| part.moments(block));
        ExpertMoments { tokens: self.tokens, mass: float(self.mass), input, hidden }
    }
}

impl ExactStatistics {
    /// Converts the sums to floating point. Each exact sum is dropped once converted, since it is
    /// four times as large.
    pub fn into_statistics(self) -> Statistics {
        let block = self.block;
        let matrices = self.matrices.into_iter();
        let matrices = matrices.map(|(name, sums)| (name, sums.moments(block))).collect();
        let experts = self.experts.into_iter().map(|(layer, experts)| {
            (layer, experts.into_iter().map(|expert| expert.moments(block)).collect())
        });
        Statistics { matrices, experts: experts.collect() }
    }
}

fn add_to(sum: &mut i128, other: i128) -> Result<(), OutOfRange> {
    *sum = sum.checked_add(other).ok_or(OutOfRange)?;
    Ok(())
}

/// A range of columns of all rows.
struct Columns<'a> {
    rows: &'a [&'a [f32]],
    at: usize,
    width: usize,
    weight: &'a (dyn Fn(usize) -> f32 + Sync),
    /// Magnitude bits of the largest entry of a row.
    bits: i32,
}

impl Columns<'_> {
    fn row(&self, row: usize) -> (&[f32], f32) {
        (&self.rows[row][self.at..][..self.width], (self.weight)(row))
    }

    /// Binary exponent of a row's grid; `None` if the row is zero.
    #[inline(always)]
    fn grid(&self, row: usize) -> Result<Option<i32>, OutOfRange> {
        let (values, weight) = self.row(row);
        // The bit patterns of magnitudes are ordered, infinity and NaN above all.
        let bits = values.iter().map(|value| (value * weight).abs().to_bits());
        let largest = bits.fold(0, u32::max);
        if largest >= f32::INFINITY.to_bits() {
            return Err(OutOfRange);
        }
        let exponent = (largest >> 23) as i32 - 127;
        let grid = (exponent + 1 - self.bits).max(-PLACES / 2);
        Ok((largest > 0).then_some(grid))
    }

    /// A row in units of `2^unit`, rounded to its own coarser grid.
    #[inline(always)]
    fn quantize(&self, row: usize, grid: i32, unit: i32, out: &mut [f64]) {
        // Adding and subtracting this rounds to the nearest integer, ties to even.
        const ROUND: f64 = 1.5 * (1u64 << 52) as f64;
        let (values, weight) = self.row(row);
        let (inverse, scale) = (2f64.powi(-grid), 2f64.powi(grid - unit));
        for (out, value) in out.iter_mut().zip(values) {
            *out = ((f64::from(value * weight) * inverse + ROUND) - ROUND) * scale;
        }
    }
}

/// Adds rows to totals: by ascending grid, in runs whose partial sums stay exact. `add` adds four
/// quantized rows of a width to partial sums and auto-vectorizes.
struct AddRows<'a, F> {
    columns: Columns<'a>,
    totals: &'a mut [i128],
    add: F,
}

impl<F: Fn(&mut [f64], &[f64], usize)> Kernel for AddRows<'_, F> {
    type Output = Result<(), OutOfRange>;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Self::Output {
        let Self { columns, totals, add } = self;
        let mut rows = Vec::with_capacity(columns.rows.len());
        for row in 0..columns.rows.len() {
            rows.extend(columns.grid(row)?.map(|grid| (grid, row)));
        }
        rows.sort_unstable();
        let mut partial = vec![0.0; totals.len()];
        let mut four = vec![0.0; 4 * columns.width];
        let mut rest = &rows[..];
        while let Some((unit, _)) = rest.first().copied() {
            // Bound on what a row adds to any sum: its largest entry, squared, in units.
            let most = |grid: i32| 4f64.powi(columns.bits + grid - unit);
            let (mut bound, mut run) = (0.0, 0);
            while let Some((grid, _)) = rest.get(run) {
                bound += most(*grid);
                if bound > EXACT {
                    break;
                }
                run += 1;
            }
            for some in rest[..run].chunks(4) {
                four.fill(0.0);
                for ((grid, row), out) in some.iter().zip(four.chunks_exact_mut(columns.width)) {
                    columns.quantize(*row, *grid, unit, out);
                }
                add(&mut partial, &four, columns.width);
            }
            flush(&mut partial, totals, 2 * unit + PLACES)?;
            rest = &rest[run..];
        }
        Ok(())
    }
}

/// Adds partial sums, whose unit has `shift` fewer fractional bits than the totals, and clears
/// them.
fn flush(partial: &mut [f64], totals: &mut [i128], shift: i32) -> Result<(), OutOfRange> {
    // A partial sum has 53 bits and a sign.
    let shift = u32::try_from(shift).ok().filter(|shift| *shift <= 127 - 54).ok_or(OutOfRange)?;
    let mut overflow = false;
    for (sum, total) in partial.iter_mut().zip(totals) {
        let (next, over) = total.overflowing_add(i128::from(*sum as i64) << shift);
        *total = next;
        overflow |= over;
        *sum = 0.0;
    }
    if overflow { Err(OutOfRange) } else { Ok(()) }
}

#[inline(always)]
fn squares(sums: &mut [f64], rows: &[f64], width: usize) {
    for row in rows.chunks_exact(width.max(1)) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value * value;
        }
    }
}

/// Adds the products of four rows to an upper triangle; an entry is loaded and stored once for all
/// four.
#[inline(always)]
fn triangle(mut sums: &mut [f64], rows: &[f64], width: usize) {
    let (ab, cd) = rows.split_at(2 * width);
    let ((a, b), (c, d)) = (ab.split_at(width), cd.split_at(width));
    for i in 0..width {
        let (row, rest) = sums.split_at_mut(width - i);
        let factors = [a[i], b[i], c[i], d[i]];
        let tails = a[i..].iter().zip(&b[i..]).zip(&c[i..]).zip(&d[i..]);
        for (sum, (((a, b), c), d)) in row.iter_mut().zip(tails) {
            *sum += factors[0] * a + factors[1] * b + factors[2] * c + factors[3] * d;
        }
        sums = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of seven numbers from 2^-20 to 2^10, and weights from 0.01 to 1.
    fn rows(count: u32) -> (Vec<f32>, Vec<f32>) {
        let mut state = 7u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let rows = (0..count).flat_map(|_| {
            let scale = (random() * 30.0 - 20.0).exp2();
            std::array::from_fn::<f32, 7, _>(|_| (random() - 0.4) * scale)
        });
        let rows: Vec<f32> = rows.collect();
        let weights = (0..count).map(|row| 0.01 + (row % 100) as f32 / 100.0).collect();
        (rows, weights)
    }

    fn sums(rows: &[f32], weights: &[f32]) -> ExactMoments {
        let mut sums = ExactMoments::default();
        sums.add(rows, 7, Some(weights), Some(4)).unwrap();
        sums
    }

    #[test]
    fn sums_are_those_of_floating_point_to_four_digits_of_the_largest() {
        let (rows, weights) = rows(1000);
        let found = sums(&rows, &weights).moments(Some(4));
        let expected = |i: usize, j: usize| -> f64 {
            let terms = rows.chunks(7).zip(&weights).map(|(row, weight)| {
                f64::from(row[i]) * f64::from(row[j]) * f64::from(*weight).powi(2)
            });
            terms.sum()
        };
        for (i, found) in found.squares.iter().enumerate() {
            assert!((found / expected(i, i) - 1.0).abs() < 1e-6, "{i}");
        }
        let pairs = [(0, 4), (4, 7)]
            .into_iter()
            .flat_map(|(first, end)| (first..end).flat_map(move |i| (i..end).map(move |j| (i, j))));
        for ((i, j), found) in pairs.zip(found.products.unwrap().packed()) {
            let error = f64::from(*found) - expected(i, j);
            assert!(error.abs() < 1e-5 * (expected(i, i) * expected(j, j)).sqrt(), "{i} {j}");
        }
        let weight: f64 = weights.iter().map(|weight| f64::from(*weight).powi(2)).sum();
        assert!((found.weight / weight - 1.0).abs() < 1e-12);
    }

    #[test]
    fn neither_order_nor_grouping_changes_a_bit() {
        let (rows, weights) = rows(500);
        let whole = sums(&rows, &weights);
        for size in [1, 3, 64, 499] {
            let mut parts: Vec<ExactMoments> = rows
                .chunks(7 * size)
                .zip(weights.chunks(size))
                .map(|(rows, weights)| sums(rows, weights))
                .collect();
            let mut sum = parts.pop().unwrap();
            parts.iter().try_for_each(|part| sum.merge(part)).unwrap();
            assert!(sum == whole, "{size}");
        }
        let backwards: Vec<f32> = rows.chunks(7).rev().flatten().copied().collect();
        let weights: Vec<f32> = weights.into_iter().rev().collect();
        assert!(sums(&backwards, &weights) == whole);
    }

    #[test]
    fn what_is_no_number_or_far_too_large_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e7, f32::MAX] {
            let mut sums = ExactMoments::default();
            assert_eq!(sums.add(&[1.0, bad], 2, None, Some(2)), Err(OutOfRange), "{bad}");
        }
        let mut sums = ExactMoments::default();
        sums.add(&[500_000.0, 0.0, f32::MIN_POSITIVE, 1e-40], 2, None, Some(2)).unwrap();
        assert_eq!(sums.moments(None).squares, [2.5e11, 0.0]);
        let mut large = ExactMoments { weight: i128::MAX, ..ExactMoments::default() };
        assert_eq!(large.merge(&sums), Err(OutOfRange));
    }
}
