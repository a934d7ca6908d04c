//! Matrix products with F32, F16 and BF16 weights:
//!
//! ```text
//! for each row, eight lanes over the columns, acc = fma(w, x, acc); then the fixed tree
//! ```
//!
//! Several accumulators hide FMA latency: several rows and tokens are computed together, each with
//! its own sum.

use std::ops::Range;

use super::matmul::Tiles;
use crate::blocks::BlockType;
use crate::isa::{Isa, Kernel};

/// Tokens computed together.
const TOKENS: usize = 4;
/// Rows computed together with `TOKENS` tokens.
const ROWS: usize = 2;
/// Rows computed together with one token.
const ROWS_ALONE: usize = 4;

/// Number of tokens whose inputs stay in the L2 cache while rows are read, and a few of them in L1.
const TOKENS_AT_ONCE: usize = 16;

/// Product of plain tiles.
pub(super) struct Plain<'a>(pub Tiles<'a>);

impl Kernel for Plain<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.0.weights.block_type() {
            BlockType::F16 => self.tiles::<I, F16>(isa),
            BlockType::BF16 => self.tiles::<I, BF16>(isa),
            _ => self.tiles::<I, F32>(isa),
        }
    }
}

impl Plain<'_> {
    #[inline(always)]
    fn tiles<I: Isa, N: Number>(&self, isa: I) {
        let data = self.0.weights.data();
        let tokens = self.0.x.tokens();
        for first in (0..tokens).step_by(TOKENS_AT_ONCE) {
            let tokens = first..tokens.min(first + TOKENS_AT_ONCE);
            for tile in self.0.tiles.clone() {
                self.tile::<I, N>(isa, data, self.0.rows(tile..tile + 1), tokens.clone());
            }
        }
    }

    #[inline(always)]
    fn tile<I: Isa, N: Number>(
        &self,
        isa: I,
        data: &[u8],
        rows: Range<usize>,
        tokens: Range<usize>,
    ) {
        let mut token = tokens.start;
        while I::TOKENS >= TOKENS && token + TOKENS <= tokens.end {
            for row in rows.clone().step_by(ROWS) {
                self.block::<I, N, ROWS, TOKENS>(isa, data, row, token);
            }
            token += TOKENS;
        }
        for token in token..tokens.end {
            for row in rows.clone().step_by(ROWS_ALONE) {
                self.block::<I, N, ROWS_ALONE, 1>(isa, data, row, token);
            }
        }
    }

    /// Multiplies `R` rows with `T` tokens. Rows beyond the last repeat the last and are not
    /// stored.
    #[inline(always)]
    fn block<I: Isa, N: Number, const R: usize, const T: usize>(
        &self,
        isa: I,
        data: &[u8],
        row: usize,
        token: usize,
    ) {
        let (rows, cols) = (self.0.weights.rows(), self.0.weights.cols());
        let input = self.0.input_at(row);
        let steps = cols / 8;
        // Loops, no closures: one that is not inlined is compiled without the caller's target
        // features.
        let (mut weights, mut w_steps) = ([&data[..0]; R], [N::eights(&data[..0]); R]);
        for r in 0..R {
            let row = (row + r).min(rows - 1);
            weights[r] = &data[row * cols * N::BYTES..][..cols * N::BYTES];
            w_steps[r] = &N::eights(weights[r])[..steps];
        }
        let (values, none) = (&*self.0.x.values, [].as_slice());
        let (mut x, mut x_steps) = ([&values[..0]; T], [none; T]);
        for t in 0..T {
            x[t] = &values[(token + t) * self.0.x.width + input..][..cols];
            x_steps[t] = &x[t].as_chunks::<8>().0[..steps];
        }

        let mut sums = [[isa.splat(0.0); T]; R];
        for step in 0..steps {
            let mut w = [isa.splat(0.0); R];
            for r in 0..R {
                if T == 1 {
                    // Prefetch the same columns of the next rows.
                    let next = R * cols * N::BYTES;
                    isa.prefetch::<0>(
                        (&raw const w_steps[r][step]).cast::<u8>().wrapping_add(next),
                    );
                }
                w[r] = N::load(isa, &w_steps[r][step]);
            }
            for t in 0..T {
                let x = isa.load(&x_steps[t][step]);
                for r in 0..R {
                    sums[r][t] = isa.fma(w[r], x, sums[r][t]);
                }
            }
        }
        if !cols.is_multiple_of(8) {
            for r in 0..R {
                let w = N::load(isa, &N::padded(&weights[r][steps * 8 * N::BYTES..]));
                for t in 0..T {
                    let mut end = [0.0; 8];
                    end[..cols % 8].copy_from_slice(&x[t][steps * 8..]);
                    sums[r][t] = isa.fma(w, isa.load(&end), sums[r][t]);
                }
            }
        }
        for (row, sums) in (row..rows).zip(&sums) {
            for (token, sum) in (token..).zip(sums) {
                // SAFETY: only this task writes the rows of these tiles.
                unsafe { self.0.out.slice(token * rows + row, 1)[0] = isa.sum(*sum) };
            }
        }
    }
}

/// A floating-point type, little-endian in memory.
trait Number {
    const BYTES: usize;
    /// Eight encoded elements.
    type Eight;
    fn eights(bytes: &[u8]) -> &[Self::Eight];
    /// Fewer than eight elements, padded with zeros.
    fn padded(bytes: &[u8]) -> Self::Eight;
    fn load<I: Isa>(isa: I, from: &Self::Eight) -> I::F32;
}

struct F32;
struct F16;
struct BF16;

/// Implementation shared by the element types.
macro_rules! number {
    ($name:ident, $bytes:literal, $load:expr) => {
        impl Number for $name {
            const BYTES: usize = $bytes;
            type Eight = [u8; 8 * $bytes];

            #[inline(always)]
            fn eights(bytes: &[u8]) -> &[Self::Eight] {
                bytes.as_chunks().0
            }

            #[inline(always)]
            fn padded(bytes: &[u8]) -> Self::Eight {
                let mut eight = [0; 8 * $bytes];
                eight[..bytes.len()].copy_from_slice(bytes);
                eight
            }

            #[inline(always)]
            fn load<I: Isa>(isa: I, from: &Self::Eight) -> I::F32 {
                $load(isa, from)
            }
        }
    };
}

number!(F16, 2, I::load_f16);
number!(BF16, 2, I::load_bf16);
number!(F32, 4, load_f32);

/// Converts to native byte order, a no-op on little-endian machines.
#[inline(always)]
fn load_f32<I: Isa>(isa: I, from: &[u8; 32]) -> I::F32 {
    let numbers = from.as_chunks::<4>().0;
    let mut eight = [0.0; 8];
    for (x, bytes) in eight.iter_mut().zip(numbers) {
        *x = f32::from_le_bytes(*bytes);
    }
    isa.load(&eight)
}
