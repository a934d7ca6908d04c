//! Scales of stored codes, and the types that weights are rounded to.

use half::{bf16, f16};
use safetensors::Dtype;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::WeightsError;

use super::super::fp8;
use super::super::shards::Stored;
use super::{shape_error, type_error};

/// Types that scales can have.
const ALLOWED: &str = "F64, F32, F16, BF16, F8_E4M3, F8_E8M0 and, for exponents, U8";

/// One scale per block of a matrix.
pub(in super::super) struct Grid {
    scales: Vec<f32>,
    /// Rows and columns of a block.
    block: [usize; 2],
    /// Type of the weights: the product with a scale is rounded to it.
    pub rounds_to: BlockType,
}

impl Grid {
    /// The scales of a matrix: one, one per row, or one per block of `block`.
    pub fn new(
        stored: &Stored,
        name: &str,
        shape: [usize; 2],
        block: [usize; 2],
        rounds: bool,
    ) -> Result<Self, WeightsError> {
        let [rows, cols] = shape;
        let count: usize = stored.shape.iter().product();
        let per_block = fp8::blocks(shape, block);
        let block = match *stored.shape {
            [down, across] if [down, across] == per_block => block,
            _ if count == 1 => shape,
            _ if count == rows && stored.shape.first() == Some(&rows) => [1, cols],
            _ => return Err(shape_error(stored, name, &per_block)),
        };
        let rounds_to = if rounds { rounding(stored.dtype) } else { BlockType::F32 };
        Ok(Self { scales: to_f32(stored, name)?, block, rounds_to })
    }

    /// The products of codes of one byte each with their scales.
    pub fn times(&self, codes: &[u8], shape: [usize; 2], value: impl Fn(u8) -> f32) -> Vec<f32> {
        let [_, across] = fp8::blocks(shape, self.block);
        let mut weights = Vec::with_capacity(codes.len());
        for (row, codes) in codes.chunks_exact(shape[1]).enumerate() {
            let scales = &self.scales[row / self.block[0] * across..][..across];
            for (codes, scale) in codes.chunks(self.block[1]).zip(scales) {
                weights.extend(codes.iter().map(|code| value(*code) * scale));
            }
        }
        weights
    }
}

/// The type that products with scales of a type are rounded to.
pub fn rounding(dtype: Dtype) -> BlockType {
    match dtype {
        Dtype::F16 => BlockType::F16,
        Dtype::BF16 => BlockType::BF16,
        _ => BlockType::F32,
    }
}

/// Numbers as bytes of one of [`rounding`]'s types.
pub fn encoded(values: &[f32], ty: BlockType) -> (BlockType, Vec<u8>) {
    let bytes = match ty {
        BlockType::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        BlockType::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    (ty, bytes)
}

/// The numbers of a tensor of any of the types of scales.
pub fn to_f32(stored: &Stored, name: &str) -> Result<Vec<f32>, WeightsError> {
    let bytes = &stored.bytes;
    let pairs = bytes.as_chunks::<2>().0.iter();
    Ok(match stored.dtype {
        Dtype::F64 => {
            let eights = bytes.as_chunks::<8>().0.iter();
            eights.map(|bytes| f64::from_le_bytes(*bytes) as f32).collect()
        }
        Dtype::F32 => {
            let fours = bytes.as_chunks::<4>().0.iter();
            fours.map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        Dtype::F16 => pairs.map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        Dtype::BF16 => pairs.map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        Dtype::F8_E4M3 => bytes.iter().map(|byte| fp8::value(*byte)).collect(),
        Dtype::F8_E8M0 | Dtype::U8 => bytes.iter().map(|byte| fp8::exponent(*byte)).collect(),
        _ => return Err(type_error(stored, name, ALLOWED)),
    })
}
