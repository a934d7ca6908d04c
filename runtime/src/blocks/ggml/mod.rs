//! ggml's block types, as in ordinary GGUF files: row-major, in blocks of 32 or 256 weights along a
//! row.
//!
//! Each type defines how a group of 32 weights becomes integers with a scale and an offset per
//! half: for one row, which is the reference, and for eight rows at a time in vector code.
//! Everything else, decoding here and products in `kernels::ggml`, is shared by all types. Values
//! are bit-identical to those of the `gguf` Python package, or of ik_llama.cpp for its own types.

use super::{BlockType, GROUP, Matrix, TILE_ROWS, plain};
use crate::isa::Isa;

mod by_grid;
mod by_row;
mod grids;
mod ik;
mod iq1_m;
mod iq1_s;
mod iq2_k;
mod iq2_ks;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_k;
mod iq3_ks;
mod iq3_s;
mod iq3_xxs;
mod iq4_k;
mod iq4_ks;
mod iq4_kss;
mod iq4_nl;
mod iq4_xs;
mod iq5_k;
mod iq5_ks;
mod iq6_k;
mod k_scales;
mod mxfp4;
mod nvfp4;
mod q1_0;
mod q2_0;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod tile;
mod tq1_0;
mod tq2_0;

pub use by_grid::{ByGrid, Signs, WithByGrid, with_by_grid};
pub use by_row::{ByRow, WithByRow, with_by_row};
pub use iq1_m::Iq1M;
pub use iq1_s::Iq1S;
pub use iq2_k::Iq2K;
pub use iq2_ks::Iq2Ks;
pub use iq2_s::Iq2S;
pub use iq2_xs::Iq2Xs;
pub use iq2_xxs::Iq2Xxs;
pub use iq3_k::Iq3K;
pub use iq3_ks::Iq3Ks;
pub use iq3_s::Iq3S;
pub use iq3_xxs::Iq3Xxs;
pub use iq4_k::Iq4K;
pub use iq4_ks::Iq4Ks;
pub use iq4_kss::Iq4Kss;
pub use iq4_nl::Iq4Nl;
pub use iq4_xs::Iq4Xs;
pub use iq5_k::Iq5K;
pub use iq5_ks::Iq5Ks;
pub use iq6_k::Iq6K;
pub use mxfp4::Mxfp4;
pub use nvfp4::Nvfp4;
pub use q1_0::Q1_0;
pub use q2_0::Q2_0;
pub use q2_k::Q2K;
pub use q3_k::Q3K;
pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q4_k::Q4K;
pub use q5_0::Q5_0;
pub use q5_1::Q5_1;
pub use q5_k::Q5K;
pub use q6_k::Q6K;
pub use q8_0::Q8_0;
pub use tq1_0::Tq1_0;
pub use tq2_0::Tq2_0;

/// 32 weights: `weight[i] = scales[i / 16] * codes[i] - offsets[i / 16]`.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Integer codes.
    pub codes: [i8; GROUP],
    /// Scale of each half.
    pub scales: [f32; 2],
    /// Offset of each half; zero for types without offsets.
    pub offsets: [f32; 2],
}

/// 32 columns of eight rows: `weight = scale * code + offset`, with a scale and an offset per row
/// and half.
///
/// Aligned like vectors, since loads across cache lines are slower.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct TileGroup {
    /// Integer codes: eight times four columns of eight rows. See [`Block::CODES`].
    pub codes: [[u8; 4 * TILE_ROWS]; GROUP / 4],
    /// Scales per half and row; only the first half is used unless [`Block::HALVES`] is set.
    pub scales: [[f32; TILE_ROWS]; 2],
    /// Offsets per half and row, in the same way; unused for types with signed codes.
    pub offsets: [[f32; TILE_ROWS]; 2],
}

impl TileGroup {
    /// A group before it is filled.
    pub const EMPTY: Self = Self {
        codes: [[0; 4 * TILE_ROWS]; GROUP / 4],
        scales: [[0.0; TILE_ROWS]; 2],
        offsets: [[0.0; TILE_ROWS]; 2],
    };
}

/// The bytes of a block.
pub trait BlockBytes: Copy {
    /// Splits bytes into whole blocks.
    fn blocks(bytes: &[u8]) -> &[Self];
}

impl<const N: usize> BlockBytes for [u8; N] {
    #[inline(always)]
    fn blocks(bytes: &[u8]) -> &[Self] {
        bytes.as_chunks().0
    }
}

/// Range of a type's codes, and how a tile stores them. Signed codes have no offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CodeRange {
    /// From 0 to 15.
    FourBits = 15,
    /// From 0 to 31.
    FiveBits = 31,
    /// From 0 to 63.
    SixBits = 63,
    /// From -64 to 64, with [`TABLE_BIAS`](crate::isa::TileSimd::TABLE_BIAS) added.
    Small = 64,
    /// From -127 to 127.
    Signed = 127,
}

impl CodeRange {
    /// Whether the codes are not negative, so that the weights have offsets.
    pub const fn is_unsigned(self) -> bool {
        matches!(self, Self::FourBits | Self::FiveBits | Self::SixBits)
    }
}

/// Scale of a row, before its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowScale {
    /// None: blocks have all scales.
    None,
    /// In half precision.
    Half,
    /// In single precision.
    Single,
}

impl RowScale {
    /// Size in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Half => 2,
            Self::Single => 4,
        }
    }

    /// Splits a row into its scale, which is 1 without one, and the bytes of its blocks.
    #[inline(always)]
    pub fn split(self, row: &[u8]) -> (f32, &[u8]) {
        let (scale, blocks) = row.split_at(self.bytes());
        let scale = match *scale {
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            [a, b] => plain::half_to_f32(u16::from_le_bytes([a, b])),
            _ => 1.0,
        };
        (scale, blocks)
    }
}

/// Reads the blocks of a type.
pub trait Block {
    /// Bytes of a block.
    type Bytes: BlockBytes;
    /// Weights per block, a multiple of 32.
    const WEIGHTS: usize;
    /// Whether the halves of a group have separate scales and offsets.
    const HALVES: bool = false;
    /// Range of the codes, and how [`tile`](Self::tile) stores them.
    const CODES: CodeRange;
    /// Scale of each row, by which those of its groups are multiplied. Such types have no offsets.
    const ROW_SCALE: RowScale = RowScale::None;

    /// Decodes one group of a block.
    fn group(block: &Self::Bytes, index: usize) -> Group;

    /// Decodes one block of each of eight rows into its groups. The weights equal those of
    /// [`group`](Self::group) except for the rounding of offsets.
    fn tile<I: Isa>(isa: I, rows: [&Self::Bytes; TILE_ROWS], groups: &mut [TileGroup]);
}

/// An operation on a type that is known only at run time.
pub trait WithBlock {
    /// Result.
    type Output;
    /// Performs the operation.
    fn with<B: Block>(self) -> Self::Output;
}

/// Performs an operation for one of ggml's types; `None` for other types.
#[inline(always)]
pub fn with_block<W: WithBlock>(ty: BlockType, work: W) -> Option<W::Output> {
    Some(match ty {
        BlockType::Q4_0 => work.with::<Q4_0>(),
        BlockType::Q4_1 => work.with::<Q4_1>(),
        BlockType::Q5_0 => work.with::<Q5_0>(),
        BlockType::Q5_1 => work.with::<Q5_1>(),
        BlockType::Q8_0 => work.with::<Q8_0>(),
        BlockType::Q2K => work.with::<Q2K>(),
        BlockType::Q3K => work.with::<Q3K>(),
        BlockType::Q4K => work.with::<Q4K>(),
        BlockType::Q5K => work.with::<Q5K>(),
        BlockType::Q6K => work.with::<Q6K>(),
        BlockType::Iq4Nl => work.with::<Iq4Nl>(),
        BlockType::Iq4Xs => work.with::<Iq4Xs>(),
        BlockType::Mxfp4 => work.with::<Mxfp4>(),
        BlockType::Iq1S => work.with::<Iq1S>(),
        BlockType::Iq1M => work.with::<Iq1M>(),
        BlockType::Iq2Xxs => work.with::<Iq2Xxs>(),
        BlockType::Iq2Xs => work.with::<Iq2Xs>(),
        BlockType::Iq2S => work.with::<Iq2S>(),
        BlockType::Iq3Xxs => work.with::<Iq3Xxs>(),
        BlockType::Iq3S => work.with::<Iq3S>(),
        BlockType::Nvfp4 => work.with::<Nvfp4>(),
        BlockType::Tq1_0 => work.with::<Tq1_0>(),
        BlockType::Tq2_0 => work.with::<Tq2_0>(),
        BlockType::Q1_0 => work.with::<Q1_0>(),
        BlockType::Q2_0 => work.with::<Q2_0>(),
        BlockType::Iq2K => work.with::<Iq2K>(),
        BlockType::Iq3K => work.with::<Iq3K>(),
        BlockType::Iq4K => work.with::<Iq4K>(),
        BlockType::Iq5K => work.with::<Iq5K>(),
        BlockType::Iq6K => work.with::<Iq6K>(),
        BlockType::Iq4Ks => work.with::<Iq4Ks>(),
        BlockType::Iq2Ks => work.with::<Iq2Ks>(),
        BlockType::Iq4Kss => work.with::<Iq4Kss>(),
        BlockType::Iq5Ks => work.with::<Iq5Ks>(),
        BlockType::Iq3Ks => work.with::<Iq3Ks>(),
        _ => return None,
    })
}

/// Bytes of a matrix of one of ggml's types; `None` for other types, for rows that are not a whole
/// number of blocks, and on overflow.
pub(super) fn byte_len(ty: BlockType, rows: usize, cols: usize) -> Option<usize> {
    struct Len(usize, usize);
    impl WithBlock for Len {
        type Output = Option<usize>;
        fn with<B: Block>(self) -> Option<usize> {
            let Self(rows, cols) = self;
            let blocks = cols.is_multiple_of(B::WEIGHTS).then_some(cols / B::WEIGHTS)?;
            let row =
                blocks.checked_mul(size_of::<B::Bytes>())?.checked_add(B::ROW_SCALE.bytes())?;
            rows.checked_mul(row)
        }
    }
    with_block(ty, Len(rows, cols))?
}

/// Bytes of a row.
#[inline(always)]
pub fn row_len<B: Block>(matrix: &Matrix) -> usize {
    B::ROW_SCALE.bytes() + matrix.cols() / B::WEIGHTS * size_of::<B::Bytes>()
}

/// Decodes one row.
pub(super) fn decode_row(matrix: &Matrix, row: usize, out: &mut [f32]) {
    struct Decode<'a>(&'a Matrix, usize, &'a mut [f32]);
    impl WithBlock for Decode<'_> {
        type Output = ();
        fn with<B: Block>(self) {
            let Self(matrix, row, out) = self;
            let len = row_len::<B>(matrix);
            let (row_scale, row) = B::ROW_SCALE.split(&matrix.data()[row * len..][..len]);
            for (block, out) in B::Bytes::blocks(row).iter().zip(out.chunks_exact_mut(B::WEIGHTS)) {
                for (index, out) in out.chunks_exact_mut(GROUP).enumerate() {
                    let mut group = B::group(block, index);
                    if B::ROW_SCALE != RowScale::None {
                        group.scales = group.scales.map(|scale| row_scale * scale);
                    }
                    for (i, (out, code)) in out.iter_mut().zip(group.codes).enumerate() {
                        let half = i / 16;
                        *out = group.scales[half] * f32::from(code) - group.offsets[half];
                    }
                }
            }
        }
    }
    let known = with_block(matrix.block_type(), Decode(matrix, row, out));
    debug_assert!(known.is_some(), "{} is none of ggml's types", matrix.block_type());
}

/// The half-precision number at offset `at`.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    plain::half_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// The low nibbles of 16 bytes, then the high ones.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [u8; GROUP] {
    let bytes: &[u8; 16] = bytes[..16].as_array().expect("sixteen bytes");
    let mut out = [0; GROUP];
    for i in 0..16 {
        out[i] = bytes[i] & 15;
        out[i + 16] = bytes[i] >> 4;
    }
    out
}

/// `bytes[i] >> shift & mask` of 32 bytes.
#[inline(always)]
fn field(bytes: &[u8], shift: usize, mask: u8) -> [u8; GROUP] {
    let bytes: &[u8; GROUP] = bytes[..GROUP].as_array().expect("32 bytes");
    bytes.map(|byte| byte >> shift & mask)
}
