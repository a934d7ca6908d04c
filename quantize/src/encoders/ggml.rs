//! Encodes ggml's Q4_0, Q8_0, Q4_K and Q6_K with the bits that ggml's own quantizers give without
//! an importance matrix (tests/golden/blocks/make_quantized.py).
//!
//! All arithmetic is in single precision and in the order of the weights, as in ggml.

use half::f16;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::isa::{Isa, Kernel};

use super::ggml_fit::{Fits, TINY, affine, nearest, side_by_side, symmetric};
use super::search::LANES;
use super::{EncodeError, Rows, TIER};

/// Types that [`encode_ggml`] writes.
pub const GGML_TYPES: [BlockType; 4] =
    [BlockType::Q4_0, BlockType::Q8_0, BlockType::Q4K, BlockType::Q6K];

/// Weights per block of Q4_0 and Q8_0, and per group of Q4_K.
const GROUP: usize = 32;
/// Weights per group of Q6_K.
const SMALL_GROUP: usize = 16;
/// Weights per block of the K types.
const SUPER: usize = 256;

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
        TIER.run(Row { ty, values: &values, out: &mut out });
    }
    Ok(out)
}

/// Plain loops that auto-vectorize, wrapped in a `Kernel` only so that they are compiled with the
/// tier's target features.
struct Row<'a> {
    ty: BlockType,
    values: &'a [f32],
    out: &'a mut Vec<u8>,
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let Self { ty, values, out } = self;
        match ty {
            BlockType::Q4_0 => values.as_chunks().0.iter().for_each(|x| q4_0(x, out)),
            BlockType::Q8_0 => values.as_chunks().0.iter().for_each(|x| q8_0(x, out)),
            BlockType::Q4K => {
                // Written out, since a closure would not be compiled with the target features.
                for x in values.as_chunks().0 {
                    q4_k(x, out);
                }
            }
            _ => {
                for x in values.as_chunks().0 {
                    q6_k(x, out);
                }
            }
        }
    }
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
#[inline(always)]
fn q4_k(x: &[f32; SUPER], out: &mut Vec<u8>) {
    const MOST: f32 = 63.0;
    let mut groups = [[0.0; GROUP]; LANES];
    groups.as_flattened_mut().copy_from_slice(x);
    let x = side_by_side(&groups);
    let Fits { mut codes, scales, offsets } = affine(&x);
    let larger = |a: f32, b: f32| if b > a { b } else { a }; // never -0
    let largest = [scales, offsets].map(|all| all.into_iter().fold(0.0, larger));
    let factors = largest.map(|most| if most > 0.0 { MOST / most } else { 0.0 });
    let stored = largest.map(|most| f16::from_f32(most / MOST));
    out.extend(stored.iter().flat_map(|one| one.to_le_bytes()));

    let mut packed = [0u8; 12];
    for j in 0..LANES {
        let scale = nearest(factors[0] * scales[j], 0.0, MOST) as u8;
        let offset = nearest(factors[1] * offsets[j], 0.0, MOST) as u8;
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
            for (codes, value) in codes.iter_mut().zip(&groups[j]) {
                codes[j] = nearest((value + offset) / scale, 0.0, 15.0);
            }
        }
    }
    out.extend(packed);
    for pair in 0..LANES / 2 {
        let byte = |codes: &[f32; LANES]| codes[2 * pair] as u8 | (codes[2 * pair + 1] as u8) << 4;
        out.extend(codes.iter().map(byte));
    }
}

/// Codes of six bits, the scales of 16 groups in eight bits, and the scale of the block in half
/// precision.
#[inline(always)]
fn q6_k(x: &[f32; SUPER], out: &mut Vec<u8>) {
    const SIZE: usize = 210;
    let mut groups = [[[0.0; SMALL_GROUP]; LANES]; 2];
    groups.as_flattened_mut().as_flattened_mut().copy_from_slice(x);
    let fits = [symmetric(&side_by_side(&groups[0])), symmetric(&side_by_side(&groups[1]))];
    let scales = [fits[0].scales, fits[1].scales];
    let scales = scales.as_flattened();
    let largest = extreme(scales);
    if largest.abs() < TINY {
        out.extend([0; SIZE]);
        return;
    }
    let factor = -128.0 / largest;
    let stored = f16::from_f32(1.0 / factor);
    let mut packed = [0i8; SUPER / SMALL_GROUP];
    let mut codes = [0u8; SUPER];
    for (j, x) in groups.as_flattened().iter().enumerate() {
        packed[j] = nearest(factor * scales[j], -128.0, 127.0) as i8;
        let scale = stored.to_f32() * f32::from(packed[j]);
        let fitted = fits[j / LANES].codes.iter().map(|codes| codes[j % LANES]);
        let codes = &mut codes[SMALL_GROUP * j..][..SMALL_GROUP];
        for ((code, value), fitted) in codes.iter_mut().zip(x).zip(fitted) {
            let best = if scale == 0.0 { fitted } else { nearest(value / scale, -32.0, 31.0) };
            *code = (best + 32.0) as u8;
        }
    }
    let halves: &[[u8; SUPER / 2]] = codes.as_chunks().0;
    for half in halves {
        out.extend((0..64).map(|at| half[at] & 15 | (half[at + 64] & 15) << 4));
    }
    for half in halves {
        let high = |at: usize| (0..4).fold(0, |byte, i| byte | half[at + 32 * i] >> 4 << (2 * i));
        out.extend((0..32).map(high));
    }
    out.extend(packed.iter().map(|scale| *scale as u8));
    out.extend(stored.to_le_bytes());
}
