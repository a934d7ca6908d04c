//! Matrix products: `out[t, r] = sum over k of weights[r, k] * x[t, k]`.
//!
//! The inner loop depends on the block type: [`super::coded`] for vaquita's types, [`super::plain`]
//! for floating-point types, [`super::ggml`] for ggml's quantized types. Decoding is the case of
//! one token. Rows are divided among threads; nothing else is.

use std::ops::Range;

use super::Activations;
use super::activations::{BLOCK, Halves};
use super::coded::Coded;
use super::disjoint::Disjoint;
use super::ggml;
use super::plain::Plain;
use crate::blocks::{GROUP, Matrix, TILE_ROWS};
use crate::isa::MOST_TILES;
use crate::isa::Tier;
use crate::threads::Pool;

/// Smallest task, in weights; smaller ones are not worth their overhead.
const TASK_WEIGHTS: usize = 1 << 15;

/// Guided self-scheduling: a task is a thread's share of the remaining work, divided by this. Large
/// tasks come first, since memory is read fastest in long sequential runs; small ones come last, so
/// that threads finish together and a slow core takes fewer.
const REST_DIVISOR: usize = 2;

/// One product of a job: `out = x * weights^T`.
pub struct Product<'a> {
    /// Weights, `[rows, cols]`.
    pub weights: &'a Matrix,
    /// Number of heads into which the rows of `weights` and the columns of `x` are divided: each
    /// head's rows are multiplied with its columns.
    pub heads: usize,
    /// Inputs, `[tokens, heads * cols]`.
    pub x: &'a Activations<'a>,
    /// Outputs, `[tokens, rows]`.
    pub out: &'a mut [f32],
}

/// `out = x * weights^T`, `out` is `[tokens, rows]`.
///
/// # Panics
/// Panics if the shapes do not match.
pub fn matmul(tier: Tier, pool: &Pool, weights: &Matrix, x: &Activations, out: &mut [f32]) {
    matmul_all(tier, pool, [Product { weights, heads: 1, x, out }]);
}

/// One product per head: each head's rows of `weights` are multiplied with its columns of `x`,
/// `[tokens, heads * cols]`.
///
/// # Panics
/// Panics if the shapes do not match.
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

/// Several products as one job, without a barrier between them.
///
/// # Panics
/// Panics if the shapes do not match.
pub fn matmul_all<'a>(tier: Tier, pool: &Pool, products: impl IntoIterator<Item = Product<'a>>) {
    let parts: Vec<CheckedProduct> = products.into_iter().map(CheckedProduct::new).collect();
    let tasks = tasks(&parts, pool.active());
    pool.run(tasks.len(), &|task| {
        let (part, tiles) = tasks[task].clone();
        let CheckedProduct { weights, rows_per_head, x, out } = parts[part];
        Tiles { weights, rows_per_head, x, out, tiles }.run(tier);
    });
}

/// Ranges of tiles, each with the index of its product.
fn tasks(parts: &[CheckedProduct], threads: usize) -> Vec<(usize, Range<usize>)> {
    let mut left: usize = parts.iter().map(|part| part.tiles() * part.tile_work()).sum();
    let mut tasks = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let work = part.tile_work().max(1);
        let mut tile = 0;
        while tile < part.tiles() {
            let share = match threads {
                1 => left,
                _ => (left / (threads * REST_DIVISOR)).max(TASK_WEIGHTS),
            };
            let end = part.tiles().min(tile + share.div_ceil(work));
            left -= (end - tile) * part.tile_work();
            tasks.push((number, tile..end));
            tile = end;
        }
    }
    tasks
}

/// A product whose shapes were checked.
#[derive(Clone, Copy)]
struct CheckedProduct<'a> {
    weights: &'a Matrix,
    rows_per_head: usize,
    x: &'a Activations<'a>,
    out: Disjoint<'a>,
}

impl<'a> CheckedProduct<'a> {
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

    /// Number of weights of a tile, times the number of times that each is unpacked.
    fn tile_work(&self) -> usize {
        TILE_ROWS * self.weights.cols() * self.x.tokens().div_ceil(4)
    }
}

/// Inputs of `T` tokens, by group.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a, const T: usize> {
    pub codes: &'a [[[[i8; 4]; 8]; T]],
    pub scales: &'a [[f32; T]],
    pub sums: &'a [[i32; T]],
    /// The sums times minus [`BIAS`](crate::isa::BIAS); empty for one token by itself.
    pub starts: &'a [[i32; T]],
}

/// The `T` elements of a block that start at `from`.
#[inline(always)]
pub(super) fn subarray<N, const T: usize>(block: &[N], from: usize) -> &[N; T] {
    block[from..].first_chunk().expect("blocks are divided in halves")
}

/// Maximum number of rows of the tiles in one register.
pub(super) const MOST_ROWS: usize = MOST_TILES * TILE_ROWS;

/// A range of tiles of a product.
pub(super) struct Tiles<'a> {
    /// Weights, `[rows, cols]`.
    pub weights: &'a Matrix,
    /// Rows per head, which share the same columns of `x`.
    pub rows_per_head: usize,
    /// Inputs, `[tokens, heads * cols]`.
    pub x: &'a Activations<'a>,
    /// Outputs, `[tokens, rows]`.
    pub out: Disjoint<'a>,
    /// Range of tiles to compute.
    pub tiles: Range<usize>,
}

impl Tiles<'_> {
    /// Computes the products of the tiles.
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

    /// Rows of a range of tiles; the last tile may be partial.
    pub fn rows(&self, tiles: Range<usize>) -> Range<usize> {
        tiles.start * TILE_ROWS..self.weights.rows().min(tiles.end * TILE_ROWS)
    }

    /// Offset of a row's inputs within a token's.
    #[inline(always)]
    pub fn input_at(&self, row: usize) -> usize {
        row / self.rows_per_head * self.weights.cols()
    }

    /// Inputs of a tile for one token.
    #[inline(always)]
    pub fn token(&self, tile: usize, token: usize) -> Inputs<'_, 1> {
        let at = (token * self.x.width + self.input_at(tile * TILE_ROWS)) / GROUP;
        let groups = at..at + self.weights.cols() / GROUP;
        let codes = self.x.codes.as_chunks::<4>().0.as_chunks::<8>().0.as_chunks::<1>().0;
        Inputs {
            codes: &codes[groups.clone()],
            scales: &self.x.scales.as_chunks::<1>().0[groups.clone()],
            sums: &self.x.sums.as_chunks::<1>().0[groups],
            starts: &[],
        }
    }

    /// Inputs of a tile for the block that contains `token`.
    #[inline(always)]
    pub fn block(&self, tile: usize, token: usize) -> Inputs<'_, BLOCK> {
        let blocks = self.x.blocks();
        let at = (token / BLOCK * self.x.width + self.input_at(tile * TILE_ROWS)) / GROUP;
        let groups = at..at + self.weights.cols() / GROUP;
        Inputs {
            codes: &blocks.codes[groups.clone()],
            scales: &blocks.scales[groups.clone()],
            sums: &blocks.sums[groups.clone()],
            starts: &blocks.starts[groups],
        }
    }

    /// [`Activations::halves`] of a tile's inputs for one token.
    #[inline(always)]
    pub fn token_halves(&self, tile: usize, token: usize) -> &[Halves<1>] {
        let at = (token * self.x.width + self.input_at(tile * TILE_ROWS)) / GROUP;
        &self.x.halves()[at..][..self.weights.cols() / GROUP]
    }

    /// The same for the block that contains `token`.
    #[inline(always)]
    pub fn block_halves(&self, tile: usize, token: usize) -> &[Halves<BLOCK>] {
        let at = (token / BLOCK * self.x.width + self.input_at(tile * TILE_ROWS)) / GROUP;
        &self.x.blocks().halves()[at..][..self.weights.cols() / GROUP]
    }
}
