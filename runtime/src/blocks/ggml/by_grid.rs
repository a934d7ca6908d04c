//! Types whose weights are entries of a grid, unpacked in the order of columns.
//!
//! For a single token, entries are loaded from the grid to where they are multiplied, row by row, and
//! signs are those of the activations instead. What many entries need, their indices and signs, is
//! computed for a block of a row at once.

use super::{Block, Iq1M, Iq1S, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, TILE_ROWS, TileGroup};
use crate::blocks::BlockType;
use crate::isa::Isa;

/// Sign bits of a block's weights by group: a weight is negative where its bit is set.
pub type Signs = [[u8; 4]; 8];

/// A type of blocks of 256 weights, whose weights are entries of a grid.
pub trait ByGrid: Block {
    /// The indices of a block's entries, or the signs of its weights.
    type Prepared;

    /// Sets the scales of a block of each of eight rows, as [`Block::tile`] does.
    fn factors<I: Isa>(isa: I, rows: [&Self::Bytes; TILE_ROWS], groups: &mut [TileGroup]);

    /// Computes the indices or the signs of a row's block, before its entries are loaded.
    fn prepare<I: Isa>(isa: I, block: &Self::Bytes) -> Self::Prepared;

    /// The 32 codes of a group, at most 64: magnitudes, if there are [signs](Self::signs).
    fn codes<I: Isa>(isa: I, block: &Self::Bytes, prepared: &Self::Prepared, index: usize)
    -> I::U8;

    /// The signs of a block's weights; `None` if codes have signs.
    fn signs<'a>(block: &'a Self::Bytes, prepared: &'a Self::Prepared) -> Option<&'a Signs>;
}

/// An operation on a type of entries of a grid.
pub trait WithByGrid {
    /// Result.
    type Output;
    /// Performs the operation.
    fn with<B: ByGrid>(self) -> Self::Output;
}

/// Performs an operation for a type of entries of a grid; `None` for other types.
#[inline(always)]
pub fn with_by_grid<W: WithByGrid>(ty: BlockType, work: W) -> Option<W::Output> {
    Some(match ty {
        BlockType::Iq1S => work.with::<Iq1S>(),
        BlockType::Iq1M => work.with::<Iq1M>(),
        BlockType::Iq2Xxs => work.with::<Iq2Xxs>(),
        BlockType::Iq2Xs => work.with::<Iq2Xs>(),
        BlockType::Iq2S => work.with::<Iq2S>(),
        BlockType::Iq3Xxs => work.with::<Iq3Xxs>(),
        BlockType::Iq3S => work.with::<Iq3S>(),
        _ => return None,
    })
}
