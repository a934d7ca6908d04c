//! Encodes ggml's Q4_0, Q8_0, Q4_K and Q6_K with the bits that ggml's own quantizers give without
//! an importance matrix (tests/golden/blocks/make_quantized.py).
//!
//! All arithmetic is in single precision and in the order of the weights, as in ggml.

use half::f16;
use vaquita_runtime::blocks::BlockType;

use super::{EncodeError, Rows};

/// Types that [`encode_ggml`] writes.
pub const GGML_TYPES: [BlockType; 4] =
    [BlockType::Q4_0, BlockType::Q8_0, BlockType::Q4K, BlockType::Q6K];

/// Weights per block of Q4_0 and Q8_0, and per group of Q4_K.
const GROUP: usize = 32;
/// Weights per group of Q6_K.
const SMALL_GROUP: usize = 16;
/// Weights per block of the K types.
const SUPER: usize = 256;
/// Magnitudes below this count as zero.
const TINY: f32 = 1e-15;

/// Encodes a matrix as one of [`GGML_TYPES`].
pub fn encode_ggml(ty: BlockType, weights: &dyn Rows) -> Result<Vec<u8>, EncodeError> {
    let (rows, cols) = (weights.rows(), weights.cols());
    if !GGML_TYPES.contains(&ty) {
        return Err(EncodeError::NotWritten { ty });
    }
    let bytes = ty.byte_len(rows, cols).ok_or(EncodeError::Shape { ty, rows, cols })?;
    let mut out = Vec::with_capacity(bytes);
    let mut values = vec![0f32; cols];
    for row in 0..rows {
        weights.read_row(row, &mut values);
        if let Some(col) = values.iter().position(|value| !value.is_finite()) {
            return Err(EncodeError::NotFinite { row, col, value: values[col] });
        }
        match ty {
            BlockType::Q4_0 => values.as_chunks().0.iter().for_each(|x| q4_0(x, &mut out)),
            BlockType::Q8_0 => values.as_chunks().0.iter().for_each(|x| q8_0(x, &mut out)),
            BlockType::Q4K => values.as_chunks().0.iter().for_each(|x| q4_k(x, &mut out)),
            _ => values.as_chunks().0.iter().for_each(|x| q6_k(x, &mut out)),
        }
    }
    Ok(out)
}

/// The nearest integer, ties to even, within bounds.
fn nearest(value: f32, least: i32, most: i32) -> i32 {
    (value.round_ties_even() as i32).clamp(least, most)
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The first value of the largest magnitude.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |found: f32, value| if value.abs() > found.abs() { *value } else { found })
}

/// A scale in half precision, and codes of four bits, 8 for zero: the first half of the group in
/// the lower halves of the bytes.
fn q4_0(x: &[f32; GROUP], out: &mut Vec<u8>) {
    let scale = extreme(x) / -8.0;
    out.extend(f16::from_f32(scale).to_le_bytes());
    let factor = inverse(scale);
    let code = |value: f32| ((value * factor + 8.5) as u8).min(15);
    let (low, high) = x.split_at(GROUP / 2);
    out.extend(low.iter().zip(high).map(|(low, high)| code(*low) | code(*high) << 4));
}

/// A scale in half precision, and codes of eight bits, the largest of magnitude 127.
fn q8_0(x: &[f32; GROUP], out: &mut Vec<u8>) {
    let scale = extreme(x).abs() / 127.0;
    out.extend(f16::from_f32(scale).to_le_bytes());
    let factor = inverse(scale);
    out.extend(x.iter().map(|value| (value * factor).round() as i8 as u8));
}

/// Scale and offset of the block in half precision, those of its 8 groups in six bits each, and
/// codes of four bits.
fn q4_k(x: &[f32; SUPER], out: &mut Vec<u8>) {
    const MOST: f32 = 63.0;
    let groups: &[[f32; GROUP]] = x.as_chunks().0;
    let mut fits: Vec<Affine> = groups.iter().map(Affine::fit).collect();
    let larger = |a: f32, b: f32| if b > a { b } else { a }; // never -0
    let largest = |of: fn(&Affine) -> f32| fits.iter().map(of).fold(0.0, larger);
    let (scale, offset) = (largest(|fit| fit.scale), largest(|fit| fit.offset));
    let factors = [scale, offset].map(|most| if most > 0.0 { MOST / most } else { 0.0 });
    let stored = [scale, offset].map(|most| f16::from_f32(most / MOST));
    out.extend(stored.iter().flat_map(|one| one.to_le_bytes()));

    let mut packed = [0u8; 12];
    for (j, (fit, x)) in fits.iter_mut().zip(groups).enumerate() {
        let scale = nearest(factors[0] * fit.scale, 0, 63) as u8;
        let offset = nearest(factors[1] * fit.offset, 0, 63) as u8;
        if j < 4 {
            (packed[j], packed[j + 4]) = (scale, offset);
        } else {
            packed[j + 4] = (scale & 15) | (offset & 15) << 4;
            packed[j - 4] |= (scale >> 4) << 6;
            packed[j] |= (offset >> 4) << 6;
        }
        // Codes for the scale as it is stored; where that is zero, they do not matter.
        let scale = stored[0].to_f32() * f32::from(scale);
        let offset = stored[1].to_f32() * f32::from(offset);
        if scale != 0.0 {
            fit.codes = x.map(|value| nearest((value + offset) / scale, 0, 15) as u8);
        }
    }
    out.extend(packed);
    for pair in fits.as_chunks::<2>().0 {
        out.extend(pair[0].codes.iter().zip(pair[1].codes).map(|(low, high)| low | high << 4));
    }
}

/// `scale * code - offset`, with codes of four bits, and an offset that is not negative.
struct Affine {
    codes: [u8; GROUP],
    scale: f32,
    offset: f32,
}

impl Affine {
    /// Searches the scale: for 21 of them around the range of the weights, the least squares over
    /// the codes, where larger weights count more.
    fn fit(x: &[f32; GROUP]) -> Self {
        const MOST: f32 = 15.0;
        let power: f32 = x.iter().map(|value| value * value).sum();
        let mean = (power / GROUP as f32).sqrt();
        let weights = x.map(|value| mean + value.abs());
        let highest = x.iter().copied().fold(x[0], f32::max);
        let mut least = x.iter().copied().fold(x[0], f32::min).min(0.0);
        if highest == least {
            return Self { codes: [0; GROUP], scale: 0.0, offset: -least };
        }
        let weighted = || x.iter().zip(&weights);
        let codes_at = |factor: f32, least: f32| {
            x.map(|value| nearest(factor * (value - least), 0, MOST as i32) as u8)
        };
        let error = |codes: &[u8; GROUP], scale: f32, least: f32| -> f32 {
            let each = weighted().zip(codes).map(|((value, weight), code)| {
                let difference = scale * f32::from(*code) + least - value;
                weight * (difference * difference)
            });
            each.sum()
        };
        let sum_weights: f32 = weights.iter().sum();
        let sum_values: f32 = weighted().map(|(value, weight)| weight * value).sum();

        let factor = MOST / (highest - least);
        let (mut codes, mut scale) = (codes_at(factor, least), 1.0 / factor);
        let mut smallest = error(&codes, scale, least);
        for step in 0..=20u8 {
            let factor = (-1.0 + 0.1 * f32::from(step) + MOST) / (highest - least);
            let tried = codes_at(factor, least);
            let (mut sum_codes, mut sum_squares, mut sum_products) = (0.0, 0.0, 0.0);
            for ((value, weight), code) in weighted().zip(&tried) {
                let code = f32::from(*code);
                sum_codes += weight * code;
                sum_squares += weight * code * code;
                sum_products += weight * code * value;
            }
            let determinant: f32 = sum_weights * sum_squares - sum_codes * sum_codes;
            if determinant <= 0.0 {
                continue;
            }
            let mut at = (sum_weights * sum_products - sum_values * sum_codes) / determinant;
            let mut from = (sum_squares * sum_values - sum_codes * sum_products) / determinant;
            if from > 0.0 {
                (at, from) = (sum_products / sum_squares, 0.0);
            }
            let found = error(&tried, at, from);
            if found < smallest {
                (codes, smallest, scale, least) = (tried, found, at, from);
            }
        }
        Self { codes, scale, offset: -least }
    }
}

/// Codes of six bits, the scales of 16 groups in eight bits, and the scale of the block in half
/// precision.
fn q6_k(x: &[f32; SUPER], out: &mut Vec<u8>) {
    const SIZE: usize = 210;
    let groups: &[[f32; SMALL_GROUP]] = x.as_chunks().0;
    let mut fits: Vec<(f32, [u8; SMALL_GROUP])> = groups.iter().map(symmetric).collect();
    let scales: Vec<f32> = fits.iter().map(|(scale, _)| *scale).collect();
    let largest = extreme(&scales);
    if largest.abs() < TINY {
        out.extend([0; SIZE]);
        return;
    }
    let factor = -128.0 / largest;
    let stored = f16::from_f32(1.0 / factor);
    let scales = scales.iter().map(|scale| nearest(factor * scale, -128, 127) as i8);
    let scales: Vec<i8> = scales.collect();
    for (((_, codes), scale), x) in fits.iter_mut().zip(&scales).zip(groups) {
        let scale = stored.to_f32() * f32::from(*scale);
        if scale != 0.0 {
            *codes = x.map(|value| (nearest(value / scale, -32, 31) + 32) as u8);
        }
    }
    let codes: Vec<u8> = fits.iter().flat_map(|(_, codes)| *codes).collect();
    let halves: &[[u8; SUPER / 2]] = codes.as_chunks().0;
    for half in halves {
        out.extend((0..64).map(|at| half[at] & 15 | (half[at + 64] & 15) << 4));
    }
    for half in halves {
        let high = |at: usize| (0..4).fold(0, |byte, i| byte | half[at + 32 * i] >> 4 << (2 * i));
        out.extend((0..32).map(high));
    }
    out.extend(scales.iter().map(|scale| *scale as u8));
    out.extend(stored.to_le_bytes());
}

/// `scale * (code - 32)` with codes of six bits: of 19 scales around that of the largest weight, the
/// one with the least squares, where each weight counts by its square.
fn symmetric(x: &[f32; SMALL_GROUP]) -> (f32, [u8; SMALL_GROUP]) {
    const MOST: f32 = 32.0;
    let largest = extreme(x);
    if largest.abs() < TINY {
        return (0.0, [0; SMALL_GROUP]);
    }
    let codes_at = |factor: f32| x.map(|value| nearest(factor * value, -32, 31));
    let sums = |codes: &[i32; SMALL_GROUP]| {
        let (mut products, mut squares) = (0.0, 0.0);
        for (value, code) in x.iter().zip(codes) {
            let (weight, code) = (value * value, *code as f32);
            products += weight * value * code;
            squares += weight * code * code;
        }
        (products, squares)
    };
    let mut codes = codes_at(-MOST / largest);
    let (products, squares): (f32, f32) = sums(&codes);
    let mut scale = if squares != 0.0 { products / squares } else { 0.0 };
    let mut best = scale * products;
    for step in (-9i8..=9).filter(|step| *step != 0) {
        let tried = codes_at(-(MOST + 0.1 * f32::from(step)) / largest);
        let (products, squares) = sums(&tried);
        if squares > 0.0 && products * products > best * squares {
            (codes, scale) = (tried, products / squares);
            best = scale * products;
        }
    }
    (scale, codes.map(|code| (code + 32) as u8))
}
