//! Matrix products: `out[t, r] = sum over k of weights[r, k] * x[t, k]`.
//!
//! How is the matter of the weights' type: [`super::coded`] for ours, [`super::plain`] for plain numbers, [`super::ggml`] for
//! ggml's types. Decode is the case of one token. Rows are divided among threads; nothing else is.

use std::ops::Range;

use super::Activations;
use super::activations::BLOCK;
use super::coded::Coded;
use super::disjoint::Disjoint;
use super::ggml;
use super::plain::Plain;
use crate::blocks::{GROUP, Matrix, TILE_ROWS};
use crate::isa::MOST_TILES;
use crate::isa::Tier;
use crate::threads::Pool;

/// Weights that one task works through, at the least: smaller ones are not worth a hand-over.
const TASK_WEIGHTS: usize = 1 << 15;

/// A task is this share of what each thread has left to do: long runs first, since memory is read fastest in long runs,
/// and short ones last, so that threads end together and a slow core takes fewer.
const SHARE_OF_REST: usize = 2;

/// One of the products of a job: `out = x * weights^T`.
pub struct Product<'a> {
    /// `[rows, cols]`
    pub weights: &'a Matrix,
    /// The rows of `weights` are divided among so many heads, and so are the columns of `x`: each head's rows see
    /// its columns.
    pub heads: usize,
    /// `[tokens, heads * cols]`
    pub x: &'a Activations<'a>,
    /// `[tokens, rows]`
    pub out: &'a mut [f32],
}

/// `out = x * weights^T`, `out` is `[tokens, rows]`.
///
/// # Panics
/// Where shapes do not fit.
pub fn matmul(tier: Tier, pool: &Pool, weights: &Matrix, x: &Activations, out: &mut [f32]) {
    matmul_all(tier, pool, [Product { weights, heads: 1, x, out }]);
}

/// A product per head: each head's rows of `weights` see its columns of `x`, `[tokens, heads * cols]`.
///
/// # Panics
/// Where shapes do not fit.
pub fn matmul_per_head(
    tier: Tier,
    pool: &Pool,
    weights: &Matrix,
    heads: usize,
    x: &Activations,
    out: &mut [f32],
) {
    matmul_all(tier, pool, [Product { weights, heads, x, out }]);
}

/// Several products as one job: a thread that is done with its share of one goes on with the next.
///
/// # Panics
/// Where shapes do not fit.
pub fn matmul_all<'a>(tier: Tier, pool: &Pool, products: impl IntoIterator<Item = Product<'a>>) {
    let parts: Vec<Part> = products.into_iter().map(Part::new).collect();
    let tasks = tasks(&parts, pool.active());
    pool.run(tasks.len(), &|task| {
        let (part, tiles) = tasks[task].clone();
        let Part { weights, rows_per_head, x, out } = parts[part];
        Tiles { weights, rows_per_head, x, out, tiles }.run(tier);
    });
}

/// Runs of tiles, each with the number of its part.
fn tasks(parts: &[Part], threads: usize) -> Vec<(usize, Range<usize>)> {
    let mut left: usize = parts.iter().map(|part| part.tiles() * part.tile_work()).sum();
    let mut tasks = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let work = part.tile_work().max(1);
        let mut tile = 0;
        while tile < part.tiles() {
            let share = (left / (threads * SHARE_OF_REST)).max(TASK_WEIGHTS);
            let end = part.tiles().min(tile + share.div_ceil(work));
            left -= (end - tile) * part.tile_work();
            tasks.push((number, tile..end));
            tile = end;
        }
    }
    tasks
}

/// A product, checked.
#[derive(Clone, Copy)]
struct Part<'a> {
    weights: &'a Matrix,
    rows_per_head: usize,
    x: &'a Activations<'a>,
    out: Disjoint<'a>,
}

impl<'a> Part<'a> {
    fn new(Product { weights, heads, x, out }: Product<'a>) -> Self {
        let (rows, cols, tokens) = (weights.rows(), weights.cols(), x.tokens());
        assert_eq!(x.width, heads * cols, "inputs do not fit the weights");
        assert_eq!(out.len(), tokens * rows, "outputs do not fit the weights");
        assert!(rows.is_multiple_of(heads));
        let rows_per_head = rows / heads;
        assert!(heads == 1 || rows_per_head.is_multiple_of(TILE_ROWS), "a tile spans two heads");
        assert!(weights.block_type().is_plain() || !x.codes.is_empty());
        let out = Disjoint::new(out);
        Self { weights, rows_per_head, x, out }
    }

    fn tiles(&self) -> usize {
        self.weights.rows().div_ceil(TILE_ROWS)
    }

    /// Weights of a tile, each as often as it is unpacked: a few tokens share that.
    fn tile_work(&self) -> usize {
        TILE_ROWS * self.weights.cols() * self.x.tokens().div_ceil(4)
    }
}

/// The inputs of `T` tokens, by groups.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a, const T: usize> {
    pub codes: &'a [[[[i8; 4]; 8]; T]],
    pub scales: &'a [[f32; T]],
    pub sums: &'a [[i32; T]],
}

/// The part of a block that begins at `from`.
#[inline(always)]
pub(super) fn some_of<N, const T: usize>(block: &[N], from: usize) -> &[N; T] {
    block[from..].first_chunk().expect("blocks are divided in halves")
}

/// Rows of the tiles that go side by side, at the most.
pub(super) const MOST_ROWS: usize = MOST_TILES * TILE_ROWS;

/// Some tiles of a product.
pub(super) struct Tiles<'a> {
    /// `[rows, cols]`
    pub weights: &'a Matrix,
    /// Rows that see the same columns of `x`.
    pub rows_per_head: usize,
    /// `[tokens, heads * cols]`
    pub x: &'a Activations<'a>,
    /// `[tokens, rows]`
    pub out: Disjoint<'a>,
    /// Which.
    pub tiles: Range<usize>,
}

impl Tiles<'_> {
    /// Multiplies them.
    fn run(self, tier: Tier) {
        let ty = self.weights.block_type();
        if ty.is_plain() {
            tier.run(Plain(self));
        } else if ty.is_coded() {
            tier.run(Coded(self));
        } else {
            ggml::multiply(tier, &self);
        }
    }

    /// The rows of some tiles, the last of which may have fewer.
    pub fn rows(&self, tiles: Range<usize>) -> Range<usize> {
        tiles.start * TILE_ROWS..self.weights.rows().min(tiles.end * TILE_ROWS)
    }

    /// Where what a row sees begins in a token's inputs.
    #[inline(always)]
    pub fn input_at(&self, row: usize) -> usize {
        row / self.rows_per_head * self.weights.cols()
    }

    /// What a tile sees of one token.
    #[inline(always)]
    pub fn token(&self, tile: usize, token: usize) -> Inputs<'_, 1> {
        let at = (token * self.x.width + self.input_at(tile * TILE_ROWS)) / GROUP;
        let groups = at..at + self.weights.cols() / GROUP;
        let codes = self.x.codes.as_chunks::<4>().0.as_chunks::<8>().0.as_chunks::<1>().0;
        Inputs {
            codes: &codes[groups.clone()],
            scales: &self.x.scales.as_chunks::<1>().0[groups.clone()],
            sums: &self.x.sums.as_chunks::<1>().0[groups],
        }
    }

    /// What a tile sees of the block that `token` is in.
    #[inline(always)]
    pub fn block(&self, tile: usize, token: usize) -> Inputs<'_, BLOCK> {
        let blocks = self.x.blocks();
        let at = (token / BLOCK * self.x.width + self.input_at(tile * TILE_ROWS)) / GROUP;
        let groups = at..at + self.weights.cols() / GROUP;
        Inputs {
            codes: &blocks.codes[groups.clone()],
            scales: &blocks.scales[groups.clone()],
            sums: &blocks.sums[groups],
        }
    }

    /// [`Activations::halves`] of what a tile sees of one token.
    #[inline(always)]
    pub fn token_halves(&self, tile: usize, token: usize) -> &[[[f32; 1]; 2]] {
        let at = (token * self.x.width + self.input_at(tile * TILE_ROWS)) / GROUP;
        &self.x.halves()[at..][..self.weights.cols() / GROUP]
    }

    /// The same of the block that `token` is in.
    #[inline(always)]
    pub fn block_halves(&self, tile: usize, token: usize) -> &[[[f32; BLOCK]; 2]] {
        let at = (token / BLOCK * self.x.width + self.input_at(tile * TILE_ROWS)) / GROUP;
        &self.x.blocks().halves()[at..][..self.weights.cols() / GROUP]
    }
}
