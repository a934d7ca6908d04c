//! Products with ggml's block types, which are stored row by row.
//!
//! ```text
//! for each row
//!     for each group of 32 columns, in order; lane i holds columns 4 i to 4 i + 3
//!         acc  = fma(scale[half] * activation_scale, f32(products of the lane), acc)
//!         min  = fma(-offset[half] * activation_scale, f32(activation codes of the lane, added), min)
//!     out = tree(acc) + tree(min)
//! ```

use super::matmul::Tiles;
use super::{Isa, Kernel, Needs};
use crate::blocks::GROUP;
use crate::blocks::ggml::{Block, WithBlock, with_block};

/// Tokens that share the unpacking of a row.
const TOKENS: usize = 4;

/// Tiles of a ggml type, which has rows only.
pub(super) struct Ggml<'a>(pub Tiles<'a>);

impl Kernel for Ggml<'_> {
    const NEEDS: Needs = Needs::Dots;
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let known = with_block(self.0.weights.block_type(), OnIsa { isa, tiles: self });
        debug_assert!(known.is_some(), "matrices of other types have their own kernels");
    }
}

struct OnIsa<'a, I> {
    isa: I,
    tiles: Ggml<'a>,
}

impl<I: Isa> WithBlock for OnIsa<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with<B: Block>(self) {
        let Self { isa, tiles: all } = self;
        let row_bytes = all.0.weights.cols() / B::WEIGHTS * B::BYTES;
        for row in all.0.rows(all.0.tiles.clone()) {
            let bytes = &all.0.weights.data()[row * row_bytes..][..row_bytes];
            let mut token = 0;
            while token < all.0.x.tokens() {
                if I::TOKENS >= TOKENS && all.0.x.tokens() - token >= TOKENS {
                    all.row::<I, B, TOKENS>(isa, bytes, row, token);
                    token += TOKENS;
                } else {
                    all.row::<I, B, 1>(isa, bytes, row, token);
                    token += 1;
                }
            }
        }
    }
}

impl Ggml<'_> {
    /// One row times `T` tokens.
    #[inline(always)]
    fn row<I: Isa, B: Block, const T: usize>(
        &self,
        isa: I,
        bytes: &[u8],
        row: usize,
        token: usize,
    ) {
        let cols = self.0.weights.cols();
        let inputs: [(&[[i8; GROUP]], &[f32]); T] = std::array::from_fn(|t| {
            let at = (token + t) * self.0.x.width + self.0.input_at(row);
            let codes = self.0.x.codes[at..][..cols].as_chunks::<GROUP>().0;
            (codes, &self.0.x.scales[at / GROUP..][..cols / GROUP])
        });
        let (mut sums, mut minima) = ([isa.splat(0.0); T], [isa.splat(0.0); T]);
        for (at, block) in bytes.chunks_exact(B::BYTES).enumerate() {
            for index in 0..B::WEIGHTS / GROUP {
                let group = B::group(block, index);
                let [low, high] = group.scales;
                let scales = isa.halves(low, high);
                let offsets = isa.halves(-group.offsets[0], -group.offsets[1]);
                let column = at * (B::WEIGHTS / GROUP) + index;
                for t in 0..T {
                    let codes = &inputs[t].0[column];
                    let scale = isa.splat(inputs[t].1[column]);
                    let products = isa.to_f32(isa.dot32(&group.codes, codes));
                    sums[t] = isa.fma(isa.mul(scales, scale), products, sums[t]);
                    if B::HAS_OFFSETS {
                        let added = isa.to_f32(isa.dot32(&[1; GROUP], codes));
                        minima[t] = isa.fma(isa.mul(offsets, scale), added, minima[t]);
                    }
                }
            }
        }
        for t in 0..T {
            let mut y = isa.sum(sums[t]);
            if B::HAS_OFFSETS {
                y += isa.sum(minima[t]);
            }
            // SAFETY: this row belongs to this task alone.
            unsafe { self.0.out.slice((token + t) * self.0.weights.rows() + row, 1)[0] = y };
        }
    }
}
