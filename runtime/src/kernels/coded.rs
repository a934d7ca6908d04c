//! Matrix products with coded weights (e2 to e8).
//!
//! ```text
//! for each tile of 8 rows, a lane per row
//!     for each group of 32 columns, in order
//!         i    = exact integer product of codes and activation codes
//!         acc  = fma(group_scale * activation_scale, f32(i), acc)
//!     out = acc * row_scale
//! ```

use std::iter::zip;
use std::ops::Range;

use super::activations::{BLOCK, HALF};
use super::codes::{Codes, E2, E3, E4, E8};
use super::matmul::{Inputs, MOST_ROWS, Tiles, subarray};
use crate::blocks::coded::{HEADER_BYTES, Layout, table};
use crate::blocks::{BlockType, TILE_ROWS};
use crate::isa::{Features, Isa, Kernel, MOST_TILES, TileSimd};

/// Prefetch distance in bytes. Memory latency is high, and the hardware prefetcher stops at page
/// boundaries.
const AHEAD: usize = 4096;

/// Most tokens whose inputs stay in the second cache while the weights of a matrix pass.
const MANY: usize = 64;

/// Index of the first tile, with the bytes, layout and code tables of the matrix.
#[derive(Clone, Copy)]
struct TileRef<'a> {
    data: &'a [u8],
    layout: &'a Layout,
    tables: &'a [[i8; 16]; 2],
    tile: usize,
}

/// Bytes of a tile, by group.
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

/// Accumulates a group's products with the tokens `AT` and `AT + 1`, as far as they exist.
#[inline(always)]
fn pair_at<W: TileSimd, C: Codes<RUNS>, const RUNS: usize, const T: usize, const AT: usize>(
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

/// A token's sums, with a group's products and their scales.
#[inline(always)]
fn add<W: TileSimd>(wide: W, sum: W::F32, products: W::I32, scale: W::F32, x_scale: f32) -> W::F32 {
    wide.fma(wide.mul(scale, wide.splat(x_scale)), wide.to_f32(products), sum)
}

/// Inputs of a block of tokens from a group of columns.
struct BlockInputs<'a> {
    x: &'a [[[i8; 4]; 8]; BLOCK],
    x_scales: &'a [f32; BLOCK],
    starts: &'a [i32; BLOCK],
}

/// Adds a group's products with the first tokens of a block to their sums.
#[inline(always)]
fn add_each<W: TileSimd, C: Codes<RUNS>, const RUNS: usize>(
    wide: W,
    sums: &mut [W::F32],
    weights: &[W::U8; 8],
    scale: W::F32,
    BlockInputs { x, x_scales, starts }: BlockInputs,
) {
    for (sum, ((x, x_scale), start)) in zip(sums, zip(zip(x, x_scales), starts)) {
        let product = C::dot(wide, C::start(wide, *start), weights, x);
        *sum = add(wide, *sum, product, scale, *x_scale);
    }
}

/// [`add_each`], two tokens at a time.
#[inline(always)]
fn add_pairs<W: TileSimd, C: Codes<RUNS>, const RUNS: usize>(
    wide: W,
    sums: &mut [W::F32],
    weights: &[W::U8; 8],
    scale: W::F32,
    BlockInputs { x, x_scales, starts }: BlockInputs,
) {
    let inputs = zip(zip(x.as_chunks().0, x_scales.as_chunks::<2>().0), starts.as_chunks::<2>().0);
    for (sums, (([a, b], x_scales), starts)) in zip(sums.as_chunks_mut::<2>().0, inputs) {
        let starts = [C::start(wide, starts[0]), C::start(wide, starts[1])];
        let products = C::dot_pair(wide, starts, weights, [a, b]);
        for (sum, (product, x_scale)) in zip(sums, zip(products, x_scales)) {
            *sum = add(wide, *sum, product, scale, *x_scale);
        }
    }
}

/// The first rows of a tile that is not whole. (Not inlined: a call to memcpy would cost the kernel
/// its registers for whole tiles, too.)
#[inline(never)]
fn copy_first(rows: &[f32; MOST_ROWS], out: &mut [f32]) {
    out.copy_from_slice(&rows[..out.len()]);
}

/// Prefetches the codes of later groups, of each tile in a register.
#[inline(always)]
fn prefetch<I: Isa, const RUNS: usize>(isa: I, codes: &[&[[u8; 32]; RUNS]]) {
    for codes in codes {
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
}

/// Product of coded tiles.
pub(super) struct Coded<'a>(pub Tiles<'a>);

impl Kernel for Coded<'_> {
    const FEATURES: Features = Features::Products;
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
        let data = self.weights.data();
        let tables = &C::tables(table(data));
        // Tokens first: their inputs stay in the second cache while the weights pass.
        let tokens = self.x.tokens();
        for token in (0..tokens).step_by(MANY) {
            let tokens = token..tokens.min(token + MANY);
            let mut tile = self.tiles.start;
            while tile < self.tiles.end {
                let at = TileRef { data, layout: &layout, tables, tile };
                let last = tile + <I::Wide as TileSimd>::TILES - 1;
                // A single token is bound by memory, which reads one sequential stream faster than
                // two. Tiles in one register must have the same inputs.
                if <I::Wide as TileSimd>::TILES > 1
                    && self.x.tokens() > 1
                    && last < self.tiles.end
                    && self.input_at(tile * TILE_ROWS) == self.input_at(last * TILE_ROWS)
                {
                    self.coded_tiles::<I, I::Wide, C, RUNS>(isa, isa.wide(), at, tokens.clone());
                    tile = last + 1;
                } else {
                    self.coded_tiles::<I, I, C, RUNS>(isa, isa, at, tokens.clone());
                    tile += 1;
                }
            }
        }
    }

    /// Multiplies the tiles of one register with some tokens, at most [`MANY`].
    #[inline(always)]
    fn coded_tiles<I: Isa, W: TileSimd, C: Codes<RUNS>, const RUNS: usize>(
        &self,
        isa: I,
        wide: W,
        at: TileRef,
        tokens: Range<usize>,
    ) {
        let many = C::many_from::<W>();
        if many <= MANY && tokens.len() >= many {
            return self.run_many::<I, W, C, RUNS>(isa, wide, at, tokens);
        }
        let mut token = tokens.start;
        while token < tokens.end {
            let left = tokens.end - token;
            // With `many` at two, this is the only token: known when it is compiled.
            if left == 1 || W::TOKENS == 1 || many <= 2 {
                let x = self.token(at.tile, token);
                self.run_batch::<I, W, C, RUNS, 1, 1>(isa, wide, at, token, x);
                token += 1;
                continue;
            }
            let x = self.block(at.tile, token);
            if left == 2 {
                self.run_batch::<I, W, C, RUNS, 2, BLOCK>(isa, wide, at, token, x);
                token += 2;
                continue;
            }
            if W::TOKENS == BLOCK && left > HALF {
                self.run_batch::<I, W, C, RUNS, BLOCK, BLOCK>(isa, wide, at, token, x);
                token += BLOCK;
            } else {
                self.run_batch::<I, W, C, RUNS, HALF, BLOCK>(isa, wide, at, token, x);
                token += HALF;
            }
        }
    }

    /// Multiplies tiles with `T` tokens from a block of `B`, starting at `token`.
    #[inline(always)]
    fn run_batch<
        I: Isa,
        W: TileSimd,
        C: Codes<RUNS>,
        const RUNS: usize,
        const T: usize,
        const B: usize,
    >(
        &self,
        isa: I,
        wide: W,
        at: TileRef,
        token: usize,
        inputs: Inputs<B>,
    ) {
        let TileRef { data, layout, tables, tile } = at;
        let tables = [wide.table(&tables[0]), wide.table(&tables[1])];
        let tiles = [Tile::new(data, layout, tile), Tile::new(data, layout, tile + W::TILES - 1)];

        let from = if T == B { 0 } else { token % B };
        let mut sums = [wide.splat(0.0); T];
        // Zipped, so that the loop has no bounds checks.
        let [first, second] = tiles;
        let codes = zip(first.codes, second.codes);
        let scales = zip(first.scales, second.scales);
        let inputs = zip(zip(inputs.codes, inputs.scales), inputs.sums);
        for ((codes, scales), ((x, x_scales), x_sums)) in zip(zip(codes, scales), inputs) {
            let (codes, scales) = ([codes.0, codes.1], [scales.0, scales.1]);
            prefetch::<I, RUNS>(isa, &codes[..W::TILES]);
            let weights = C::decode(wide, tables, codes);
            let scale = wide.scales_tiles(scales);
            let x: &[_; T] = subarray(x, from);
            let x_scales: &[_; T] = subarray(x_scales, from);
            let x_sums: &[_; T] = subarray(x_sums, from);
            let mut products = [wide.splat_i32(0); T];
            for (product, sum) in products.iter_mut().zip(x_sums) {
                *product = wide.splat_i32(-C::bias::<W>() * sum);
            }
            // Four explicit steps instead of a loop, whose long body would make the compiler spill
            // registers.
            pair_at::<W, C, RUNS, T, 0>(wide, &mut products, &weights, x);
            pair_at::<W, C, RUNS, T, 2>(wide, &mut products, &weights, x);
            pair_at::<W, C, RUNS, T, 4>(wide, &mut products, &weights, x);
            pair_at::<W, C, RUNS, T, 6>(wide, &mut products, &weights, x);
            for t in 0..T {
                sums[t] = add(wide, sums[t], products[t], scale, x_scales[t]);
            }
        }

        self.store(wide, at, token, &sums);
    }

    /// Multiplies a register's tiles with many tokens, at most [`MANY`], from the start of a block: the
    /// weights of a group stay in registers while all tokens pass, and the tokens' sums wait in
    /// memory.
    #[inline(always)]
    fn run_many<I: Isa, W: TileSimd, C: Codes<RUNS>, const RUNS: usize>(
        &self,
        isa: I,
        wide: W,
        at: TileRef,
        tokens: Range<usize>,
    ) {
        let TileRef { data, layout, tables, tile } = at;
        let tables = [wide.table(&tables[0]), wide.table(&tables[1])];
        let first = Tile::<RUNS>::new(data, layout, tile);
        let second = Tile::<RUNS>::new(data, layout, tile + W::TILES - 1);
        let blocks = self.blocks(tile, tokens.clone());

        let mut sums = [wide.splat(0.0); MANY];
        // Pairs may have a token too much, whose inputs are zeros.
        let sums = &mut sums[..tokens.len().next_multiple_of(1 + usize::from(W::PAIRS))];
        let codes = zip(first.codes, second.codes);
        let scales = zip(first.scales, second.scales);
        for (group, (codes, scales)) in zip(codes, scales).enumerate() {
            let (codes, scales) = ([codes.0, codes.1], [scales.0, scales.1]);
            prefetch::<I, RUNS>(isa, &codes[..W::TILES]);
            let weights = C::decode(wide, tables, codes);
            let scale = wide.scales_tiles(scales);
            for (sums, block) in sums.chunks_mut(BLOCK).zip(&blocks) {
                let (x, x_scales) = (&block.codes[group], &block.scales[group]);
                let inputs = BlockInputs { x, x_scales, starts: &block.starts[group] };
                match W::PAIRS {
                    true => add_pairs::<W, C, RUNS>(wide, sums, &weights, scale, inputs),
                    false => add_each::<W, C, RUNS>(wide, sums, &weights, scale, inputs),
                }
            }
        }
        self.store(wide, at, tokens.start, sums);
    }

    /// The inputs of a tile for some tokens, at most [`MANY`], from the start of a block.
    #[inline(never)]
    fn blocks(&self, tile: usize, tokens: Range<usize>) -> [Inputs<'_, BLOCK>; MANY / BLOCK] {
        let mut blocks = [self.block(tile, tokens.start); MANY / BLOCK];
        for (block, token) in blocks.iter_mut().zip(tokens.step_by(BLOCK)) {
            *block = self.block(tile, token);
        }
        blocks
    }

    /// Stores the sums of tokens from `token` on, as far as they exist, times the scales of the rows.
    /// On ARM, whose vectors need no target feature, it is not copied into each kernel: that took 13 KB
    /// of apps' libraries.
    #[cfg_attr(target_arch = "aarch64", inline(never))]
    #[cfg_attr(not(target_arch = "aarch64"), inline(always))]
    fn store<W: TileSimd>(&self, wide: W, at: TileRef, token: usize, sums: &[W::F32]) {
        let TileRef { data, tile, .. } = at;
        let row = tile * TILE_ROWS;
        let rows = (self.weights.rows() - row).min(W::TILES * TILE_ROWS);
        let scales = data[HEADER_BYTES + row * 4..].as_chunks::<{ 4 * TILE_ROWS }>().0;
        let mut row_scales = [[0.0; TILE_ROWS]; MOST_TILES];
        for (to, from) in row_scales.iter_mut().zip(&scales[..W::TILES]) {
            for (scale, bytes) in to.iter_mut().zip(from.as_chunks::<4>().0) {
                *scale = f32::from_le_bytes(*bytes);
            }
        }
        let row_scales = wide.load_tiles([&row_scales[0], &row_scales[1]]);
        let tokens = self.x.tokens() - token;
        for (t, sum) in sums.iter().take(tokens).enumerate() {
            // SAFETY: only this task writes the rows of these tiles.
            let out = unsafe { self.out.slice((token + t) * self.weights.rows() + row, rows) };
            let sum = wide.mul(*sum, row_scales);
            match out.get_mut(..W::TILES * TILE_ROWS) {
                Some(whole) => wide.store_tiles(sum, whole),
                None => {
                    let mut rows = [0.0; MOST_ROWS];
                    wide.store_tiles(sum, &mut rows);
                    copy_first(&rows, out);
                }
            }
        }
    }
}
