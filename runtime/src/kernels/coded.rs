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

use super::activations::{BLOCK, HALF};
use super::codes::{Codes, E2, E3, E4, E8};
use super::matmul::{Inputs, MOST_ROWS, Tiles, subarray};
use crate::blocks::coded::{HEADER_BYTES, Layout, table};
use crate::blocks::{BlockType, TILE_ROWS};
use crate::isa::MOST_TILES;
use crate::isa::{Features, Isa, Kernel, TileSimd};

/// Prefetch distance in bytes. Memory latency is high, and the hardware prefetcher stops at page
/// boundaries.
const AHEAD: usize = 4096;

/// Index of the first tile, with the layout and code tables of the matrix.
#[derive(Clone, Copy)]
struct TileRef<'a> {
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
        let tables = &C::tables(table(self.weights.data()));
        // A single token is bound by memory, which reads one sequential stream faster than two.
        let several = self.x.tokens() > 1;
        let mut tile = self.tiles.start;
        while tile < self.tiles.end {
            let at = TileRef { layout: &layout, tables, tile };
            let last = tile + <I::Wide as TileSimd>::TILES - 1;
            // Tiles in one register must have the same inputs.
            if <I::Wide as TileSimd>::TILES > 1
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

    /// Multiplies the tiles of one register with all tokens.
    #[inline(always)]
    fn coded_tiles<I: Isa, W: TileSimd, C: Codes<RUNS>, const RUNS: usize>(
        &self,
        isa: I,
        wide: W,
        at: TileRef,
    ) {
        let tokens = self.x.tokens();
        let mut token = 0;
        while token < tokens {
            let left = tokens - token;
            if left == 1 || W::TOKENS == 1 {
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
            if W::TOKENS >= BLOCK && left > HALF {
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
        TileRef { layout, tables, tile }: TileRef,
        token: usize,
        inputs: Inputs<B>,
    ) {
        let data = self.weights.data();
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
                let scale = wide.mul(scale, wide.splat(x_scales[t]));
                sums[t] = wide.fma(scale, wide.to_f32(products[t]), sums[t]);
            }
        }

        let row = tile * TILE_ROWS;
        let rows = (self.weights.rows() - row).min(W::TILES * TILE_ROWS);
        let mut row_scales = [[0.0; TILE_ROWS]; MOST_TILES];
        let bytes = &data[HEADER_BYTES + row * 4..][..W::TILES * TILE_ROWS * 4];
        let scales = row_scales.as_flattened_mut().iter_mut();
        for (scale, bytes) in scales.zip(bytes.as_chunks::<4>().0) {
            *scale = f32::from_le_bytes(*bytes);
        }
        let row_scales = wide.load_tiles([&row_scales[0], &row_scales[1]]);
        let tokens = self.x.tokens() - token;
        for (t, sum) in sums.iter().take(tokens).enumerate() {
            let mut y = [0.0; MOST_ROWS];
            wide.store_tiles(wide.mul(*sum, row_scales), &mut y);
            // SAFETY: only this task writes the rows of these tiles.
            let out = unsafe { self.out.slice((token + t) * self.weights.rows() + row, rows) };
            // Whole tiles are copied without a call to memcpy.
            match out.as_chunks_mut::<TILE_ROWS>() {
                (tiles, []) => tiles.iter_mut().zip(y.as_chunks().0).for_each(|(out, y)| *out = *y),
                _ => out.copy_from_slice(&y[..rows]),
            }
        }
    }
}
