//! ggml's block types, as ordinary GGUF files hold them: row-major, blocks of 32 or 256 weights along a row.
//!
//! Each type says how a group of 32 weights becomes integers with a scale and an offset per half: of one row, which is the
//! definition, and of eight rows at a time in vectors. The rest, decoding here and products in `kernels::ggml`, is the same
//! for all of them. Values are those of the `gguf` Python package, bit for bit.

use super::{BlockType, GROUP, Matrix, TILE_ROWS, plain};
use crate::isa::Isa;

mod grids;
mod iq1_m;
mod iq1_s;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_s;
mod iq3_xxs;
mod iq4_nl;
mod iq4_xs;
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

pub use iq1_m::Iq1M;
pub use iq1_s::Iq1S;
pub use iq2_s::Iq2S;
pub use iq2_xs::Iq2Xs;
pub use iq2_xxs::Iq2Xxs;
pub use iq3_s::Iq3S;
pub use iq3_xxs::Iq3Xxs;
pub use iq4_nl::Iq4Nl;
pub use iq4_xs::Iq4Xs;
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
    /// Integers.
    pub codes: [i8; GROUP],
    /// One per half.
    pub scales: [f32; 2],
    /// One per half; zero for types without.
    pub offsets: [f32; 2],
}

/// 32 columns of eight rows: `weight = scale * code + offset`, where rows have one of each per half.
///
/// Aligned as vectors are, which are slower where they span two lines of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct TileGroup {
    /// Integers: four columns of eight rows, eight times. See [`Block::CODES`].
    pub codes: [[u8; 4 * TILE_ROWS]; GROUP / 4],
    /// One per half and row; those of the first half are all that count where [`Block::HALVES`] is not set.
    pub scales: [[f32; TILE_ROWS]; 2],
    /// Likewise; none that count of types with signed codes.
    pub offsets: [[f32; TILE_ROWS]; 2],
}

impl TileGroup {
    /// Nothing yet.
    pub const EMPTY: Self = Self {
        codes: [[0; 4 * TILE_ROWS]; GROUP / 4],
        scales: [[0.0; TILE_ROWS]; 2],
        offsets: [[0.0; TILE_ROWS]; 2],
    };
}

/// The bytes of a block.
pub trait Bytes: Copy {
    /// Whole blocks.
    fn blocks(bytes: &[u8]) -> &[Self];
}

impl<const N: usize> Bytes for [u8; N] {
    #[inline(always)]
    fn blocks(bytes: &[u8]) -> &[Self] {
        bytes.as_chunks().0
    }
}

/// The range of a type's codes, and how a tile stores them. Where codes are signed, there are no offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codes {
    /// From 0 to 63.
    Unsigned,
    /// From -64 to 64, with [`Isa::TABLE_BIAS`] added: the products cost no more than those of unsigned codes.
    Small,
    /// From -127 to 127.
    Signed,
}

/// How a type's blocks are read.
pub trait Block {
    /// A block.
    type Bytes: Bytes;
    /// Weights of a block, a multiple of 32.
    const WEIGHTS: usize;
    /// Whether the halves of a group have scales and offsets of their own.
    const HALVES: bool = false;
    /// The range of codes, and how [`tile`](Self::tile) stores them.
    const CODES: Codes = Codes::Unsigned;

    /// One group of a block.
    fn group(block: &Self::Bytes, index: usize) -> Group;

    /// A block of each of eight rows, by groups, of which there are as many as a block has. The same weights as
    /// [`group`](Self::group)'s, but for the rounding of offsets: codes are as they are stored.
    fn tile<I: Isa>(isa: I, rows: [&Self::Bytes; TILE_ROWS], groups: &mut [TileGroup]);
}

/// Something that is done for a type that is known only at run time.
pub trait WithBlock {
    /// What it gives.
    type Output;
    /// Does it.
    fn with<B: Block>(self) -> Self::Output;
}

/// Does something for one of ggml's types; `None` for others.
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
        _ => return None,
    })
}

/// Bytes of a matrix of one of ggml's types; `None` for others, for rows that are no whole number of blocks,
/// and where the product overflows.
pub(super) fn byte_len(ty: BlockType, rows: usize, cols: usize) -> Option<usize> {
    struct Len(usize, usize);
    impl WithBlock for Len {
        type Output = Option<usize>;
        fn with<B: Block>(self) -> Option<usize> {
            let Self(rows, cols) = self;
            let whole = cols.is_multiple_of(B::WEIGHTS);
            whole
                .then(|| rows.checked_mul(cols / B::WEIGHTS)?.checked_mul(size_of::<B::Bytes>()))?
        }
    }
    with_block(ty, Len(rows, cols))?
}

/// Decodes one row.
pub(super) fn decode_row(matrix: &Matrix, row: usize, out: &mut [f32]) {
    struct Decode<'a>(&'a Matrix, usize, &'a mut [f32]);
    impl WithBlock for Decode<'_> {
        type Output = ();
        fn with<B: Block>(self) {
            let Self(matrix, row, out) = self;
            let blocks = matrix.cols() / B::WEIGHTS;
            let row = &B::Bytes::blocks(matrix.data())[row * blocks..][..blocks];
            for (block, out) in row.iter().zip(out.chunks_exact_mut(B::WEIGHTS)) {
                for (index, out) in out.chunks_exact_mut(GROUP).enumerate() {
                    let group = B::group(block, index);
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

/// A half-precision number at `at`.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    plain::half_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// The low halves of 16 bytes, then the high ones.
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
