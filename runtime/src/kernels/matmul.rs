//! Matrix products: `out[t, r] = sum over k of weights[r, k] * x[t, k]`.
//!
//! ```text
//! coded: for each tile of 8 rows, a lane per row
//!            for each group of 32 columns, in order
//!                i    = exact integer product of codes and activation codes
//!                acc  = fma(group_scale * activation_scale, f32(i), acc)
//!            out = acc * row_scale
//! ```
//!
//! Plain numbers are in [`super::plain`], ggml's types in [`super::ggml`]. Decode is the case of one token. Rows are divided among threads; nothing else is.

use std::iter::zip;
use std::ops::Range;

use super::activations::BLOCK;
use super::codes::{Codes, E2, E3, E4, E8};
use super::disjoint::Disjoint;
use super::ggml::Ggml;
use super::isa::MOST_TILES;
use super::plain::Plain;
use super::{Activations, Isa, Kernel, Needs, Tier, Wide};
use crate::blocks::coded::{HEADER_BYTES, Layout, table};
use crate::blocks::{BlockType, GROUP, Matrix, TILE_ROWS};
use crate::threads::Pool;

/// Weights that one task works through, at the least: smaller ones are not worth a hand-over.
const TASK_WEIGHTS: usize = 1 << 15;

/// A task is this share of what each thread has left to do: long runs first, since memory is read fastest in long runs,
/// and short ones last, so that threads end together and a slow core takes fewer.
const SHARE_OF_REST: usize = 2;

/// Bytes that are asked for ahead of use: memory answers late, and the processor's own guesses end with a page.
const AHEAD: usize = 4096;

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

/// The part of a block that begins at `from`.
#[inline(always)]
fn some_of<N, const T: usize>(block: &[N], from: usize) -> &[N; T] {
    block[from..].first_chunk().expect("blocks are divided in halves")
}

/// Rows of the tiles that go side by side, at the most.
const MOST_ROWS: usize = MOST_TILES * TILE_ROWS;

/// Which tiles, the first and those beside it, and the tables of their codes.
#[derive(Clone, Copy)]
struct At<'a> {
    layout: &'a Layout,
    tables: &'a [[i8; 16]; 2],
    tile: usize,
}

/// The bytes of a tile, by groups.
#[derive(Clone, Copy)]
struct Tile<'a, const RUNS: usize> {
    codes: &'a [[[u8; 32]; RUNS]],
    scales: &'a [[u8; TILE_ROWS]],
}

impl<'a, const RUNS: usize> Tile<'a, RUNS> {
    #[inline(always)]
    fn new(data: &'a [u8], layout: &Layout, tile: usize) -> Self {
        let bytes = &data[layout.tiles_at + tile * layout.tile_bytes..][..layout.tile_bytes];
        let (scales, codes) = bytes.split_at(layout.scale_bytes);
        let codes = codes.as_chunks::<32>().0.as_chunks().0;
        Self { codes, scales: scales.as_chunks().0 }
    }
}

/// A group's products with the tokens `AT` and `AT + 1`, those of them that are there.
#[inline(always)]
fn pair_at<W: Wide, C: Codes<RUNS>, const RUNS: usize, const T: usize, const AT: usize>(
    wide: W,
    products: &mut [W::I32; T],
    weights: &[W::U8; 8],
    x: &[[[i8; 4]; 8]; T],
) {
    if let Some([first, second]) = products.get_mut(AT..).and_then(|p| p.first_chunk_mut()) {
        let x = [&x[AT], &x[AT + 1]];
        [*first, *second] = C::dot_pair(wide, [*first, *second], weights, x);
    } else if let Some(product) = products.get_mut(AT) {
        *product = C::dot(wide, *product, weights, &x[AT]);
    }
}

/// Half a block of tokens: where registers hold no more.
const HALF: usize = BLOCK / 2;

/// The inputs of `T` tokens, by groups.
#[derive(Clone, Copy)]
struct Inputs<'a, const T: usize> {
    codes: &'a [[[[i8; 4]; 8]; T]],
    scales: &'a [[f32; T]],
    sums: &'a [[i32; T]],
}

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
            tier.run(Ggml(self));
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
}

/// Tiles of coded weights.
struct Coded<'a>(Tiles<'a>);

impl Kernel for Coded<'_> {
    const NEEDS: Needs = Needs::Products;
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.0.weights.block_type() {
            BlockType::E2 => self.0.coded::<I, E2, 2>(isa),
            BlockType::E3 => self.0.coded::<I, E3, 3>(isa),
            BlockType::E4 => self.0.coded::<I, E4, 4>(isa),
            _ => self.0.coded::<I, E8, 8>(isa),
        }
    }
}

impl Tiles<'_> {
    #[inline(always)]
    fn coded<I: Isa, C: Codes<RUNS>, const RUNS: usize>(self, isa: I) {
        let layout =
            Layout::new(self.weights.block_type(), self.weights.rows(), self.weights.cols())
                .expect("checked at construction");
        let tables = &C::tables(table(self.weights.data()));
        // One token alone waits for memory, which gives one run of bytes faster than two.
        let several = self.x.tokens() > 1;
        let mut tile = self.tiles.start;
        while tile < self.tiles.end {
            let at = At { layout: &layout, tables, tile };
            let last = tile + <I::Wide as Wide>::TILES - 1;
            // Tiles side by side see the same inputs.
            if <I::Wide as Wide>::TILES > 1
                && several
                && last < self.tiles.end
                && self.input_at(tile * TILE_ROWS) == self.input_at(last * TILE_ROWS)
            {
                self.coded_tiles::<I, I::Wide, C, RUNS>(isa, isa.wide(), at);
                tile = last + 1;
            } else {
                self.coded_tiles::<I, I, C, RUNS>(isa, isa, at);
                tile += 1;
            }
        }
    }

    /// Some tiles side by side times all tokens.
    #[inline(always)]
    fn coded_tiles<I: Isa, W: Wide, C: Codes<RUNS>, const RUNS: usize>(
        &self,
        isa: I,
        wide: W,
        at: At,
    ) {
        let tokens = self.x.tokens();
        let mut token = 0;
        while token < tokens {
            let left = tokens - token;
            if left == 1 || W::TOKENS == 1 {
                let x = self.token(at, token);
                self.some::<I, W, C, RUNS, 1, 1>(isa, wide, at, token, x);
                token += 1;
                continue;
            }
            let x = self.block(at, token);
            if W::TOKENS >= BLOCK && left > HALF {
                self.some::<I, W, C, RUNS, BLOCK, BLOCK>(isa, wide, at, token, x);
                token += BLOCK;
            } else {
                self.some::<I, W, C, RUNS, HALF, BLOCK>(isa, wide, at, token, x);
                token += HALF;
            }
        }
    }

    /// What a tile sees of one token.
    #[inline(always)]
    fn token(&self, At { layout, tile, .. }: At, token: usize) -> Inputs<'_, 1> {
        let at = (token * self.x.width + self.input_at(tile * TILE_ROWS)) / GROUP;
        let groups = at..at + layout.groups;
        let codes = self.x.codes.as_chunks::<4>().0.as_chunks::<8>().0.as_chunks::<1>().0;
        Inputs {
            codes: &codes[groups.clone()],
            scales: &self.x.scales.as_chunks::<1>().0[groups.clone()],
            sums: &self.x.sums.as_chunks::<1>().0[groups],
        }
    }

    /// What a tile sees of the block that `token` is in.
    #[inline(always)]
    fn block(&self, At { layout, tile, .. }: At, token: usize) -> Inputs<'_, BLOCK> {
        let blocks = self.x.blocks();
        let at = (token / BLOCK * self.x.width + self.input_at(tile * TILE_ROWS)) / GROUP;
        let groups = at..at + layout.groups;
        Inputs {
            codes: &blocks.codes[groups.clone()],
            scales: &blocks.scales[groups.clone()],
            sums: &blocks.sums[groups],
        }
    }

    /// Tiles times `T` tokens of a block of `B`, from `token` on.
    #[inline(always)]
    fn some<I: Isa, W: Wide, C: Codes<RUNS>, const RUNS: usize, const T: usize, const B: usize>(
        &self,
        isa: I,
        wide: W,
        At { layout, tables, tile }: At,
        token: usize,
        inputs: Inputs<B>,
    ) {
        let data = self.weights.data();
        let tables = [wide.table(&tables[0]), wide.table(&tables[1])];
        let tiles = [Tile::new(data, layout, tile), Tile::new(data, layout, tile + W::TILES - 1)];

        let from = if T == B { 0 } else { token % B };
        let mut sums = [wide.splat(0.0); T];
        // Side by side, so that nothing is checked within the loop.
        let [first, second] = tiles;
        let codes = zip(first.codes, second.codes);
        let scales = zip(first.scales, second.scales);
        let inputs = zip(zip(inputs.codes, inputs.scales), inputs.sums);
        for ((codes, scales), ((x, x_scales), x_sums)) in zip(zip(codes, scales), inputs) {
            let (codes, scales) = ([codes.0, codes.1], [scales.0, scales.1]);
            for codes in &codes[..W::TILES] {
                let at = codes.as_ptr().cast();
                isa.prefetch::<AHEAD>(at);
                if RUNS > 2 {
                    isa.prefetch::<{ AHEAD + 64 }>(at);
                }
                if RUNS > 4 {
                    isa.prefetch::<{ AHEAD + 128 }>(at);
                    isa.prefetch::<{ AHEAD + 192 }>(at);
                }
            }
            let weights = C::decode(wide, tables, codes);
            let scale = wide.scales(scales);
            let x: &[_; T] = some_of(x, from);
            let x_scales: &[_; T] = some_of(x_scales, from);
            let x_sums: &[_; T] = some_of(x_sums, from);
            let mut products = [wide.splat_i32(0); T];
            for (product, sum) in products.iter_mut().zip(x_sums) {
                *product = wide.splat_i32(-C::bias::<W>() * sum);
            }
            // Four steps, not a loop: of one with a long body the compiler keeps everything in memory.
            pair_at::<W, C, RUNS, T, 0>(wide, &mut products, &weights, x);
            pair_at::<W, C, RUNS, T, 2>(wide, &mut products, &weights, x);
            pair_at::<W, C, RUNS, T, 4>(wide, &mut products, &weights, x);
            pair_at::<W, C, RUNS, T, 6>(wide, &mut products, &weights, x);
            for t in 0..T {
                let scale = wide.mul(scale, wide.splat(x_scales[t]));
                sums[t] = wide.fma(scale, wide.to_f32(products[t]), sums[t]);
            }
        }

        let row = tile * TILE_ROWS;
        let rows = (self.weights.rows() - row).min(W::TILES * TILE_ROWS);
        let mut row_scales = [0.0; MOST_ROWS];
        let bytes = &data[HEADER_BYTES + row * 4..][..W::TILES * TILE_ROWS * 4];
        for (scale, bytes) in row_scales.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *scale = f32::from_le_bytes(*bytes);
        }
        let row_scales = wide.load(&row_scales);
        let tokens = self.x.tokens() - token;
        for (t, sum) in sums.iter().take(tokens).enumerate() {
            let mut y = [0.0; MOST_ROWS];
            wide.store(wide.mul(*sum, row_scales), &mut y);
            // SAFETY: rows of these tiles belong to this task alone.
            let out = unsafe { self.out.slice((token + t) * self.weights.rows() + row, rows) };
            // A whole number of tiles at once, without a call.
            match out.as_chunks_mut::<TILE_ROWS>() {
                (tiles, []) => tiles.iter_mut().zip(y.as_chunks().0).for_each(|(out, y)| *out = *y),
                _ => out.copy_from_slice(&y[..rows]),
            }
        }
    }
}
