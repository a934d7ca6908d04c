//! Types whose codes are unpacked in the order of columns with a few operations per row.
//!
//! A single token needs no transposition then: each row is multiplied with the activations, and
//! the sums of eight rows are brought into the lanes of one register.

use super::{Block, TILE_ROWS, TileGroup};
use super::{Iq2K, Iq2Ks, Iq3K, Iq3Ks, Iq4K, Iq4Ks, Iq4Kss, Iq5K, Iq5Ks, Iq6K};
use super::{
    Iq4Nl, Iq4Xs, Mxfp4, Q1_0, Q2_0, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Tq1_0,
    Tq2_0,
};
use crate::blocks::BlockType;
use crate::isa::Isa;

/// A type that is unpacked row by row.
pub trait ByRow: Block {
    /// Sets scales and offsets of a block of each of eight rows, as [`Block::tile`] does.
    fn factors<I: Isa>(isa: I, rows: [&Self::Bytes; TILE_ROWS], groups: &mut [TileGroup]);

    /// Whether [`codes`](Self::codes) are one more than [`Block::CODES`] says, and from 0 to 3.
    const PLUS_ONE: bool = false;

    /// The 32 codes of a group of one row, as [`Block::CODES`] says.
    fn codes<I: Isa>(isa: I, block: &Self::Bytes, index: usize) -> I::U8;
}

/// An operation on a type that is unpacked row by row.
pub trait WithByRow {
    /// Result.
    type Output;
    /// Performs the operation.
    fn with<B: ByRow>(self) -> Self::Output;
}

/// Performs an operation for a type that is unpacked row by row; `None` for other types.
#[inline(always)]
pub fn with_by_row<W: WithByRow>(ty: BlockType, work: W) -> Option<W::Output> {
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
