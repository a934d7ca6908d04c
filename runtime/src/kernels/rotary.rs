//! Rotation of pairs of numbers by angles: the arithmetic of rotary position embedding (RoFormer,
//! arXiv 2104.09864, equation 34).
//!
//! ```text
//! (a, b) = (fma(a, cos, -(b * sin)), fma(a, sin, b * cos))
//! ```

use super::vector::{lane_at, store_first};
use crate::isa::{Isa, Kernel};

/// Rotates the heads of several tokens, each token by its own angles.
pub struct Rotate<'a> {
    /// Heads, `[tokens, heads, head_width]`, changed in place.
    pub x: &'a mut [f32],
    /// Numbers per token.
    pub token_width: usize,
    /// Numbers per head.
    pub head_width: usize,
    /// Offset of the numbers that turn, in a head.
    pub at: usize,
    /// Cosines, `[tokens, pairs]`.
    pub cos: &'a [f32],
    /// Sines, `[tokens, pairs]`.
    pub sin: &'a [f32],
    /// Pairs per head.
    pub pairs: usize,
    /// Whether a pair is adjacent; otherwise its second number is `pairs` after the first.
    pub interleaved: bool,
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if self.pairs == 0 || self.x.is_empty() {
            return;
        }
        let angles = self.cos.chunks_exact(self.pairs).zip(self.sin.chunks_exact(self.pairs));
        for (token, (cos, sin)) in self.x.chunks_exact_mut(self.token_width).zip(angles) {
            for head in token.chunks_exact_mut(self.head_width) {
                let x = &mut head[self.at..][..2 * self.pairs];
                match self.interleaved {
                    true => adjacent(isa, x, cos, sin),
                    false => halves(isa, x, cos, sin),
                }
            }
        }
    }
}

/// Rotates the pairs `(x[i], x[i + pairs])`.
#[inline(always)]
fn halves<I: Isa>(isa: I, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = x.split_at_mut(cos.len());
    let pairs = first.chunks_mut(8).zip(second.chunks_mut(8));
    for ((first, second), (cos, sin)) in pairs.zip(cos.chunks(8).zip(sin.chunks(8))) {
        let pairs = [lane_at(first, 0), lane_at(second, 0)];
        let [a, b] = rotate(isa, &pairs, &lane_at(cos, 0), &lane_at(sin, 0));
        store_first(isa, a, first);
        store_first(isa, b, second);
    }
}

/// Rotates the pairs `(x[2 * i], x[2 * i + 1])`.
#[inline(always)]
fn adjacent<I: Isa>(isa: I, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let pairs = x.as_chunks_mut::<2>().0.chunks_mut(8);
    for (pairs, (cos, sin)) in pairs.zip(cos.chunks(8).zip(sin.chunks(8))) {
        let [mut a, mut b] = [[0.0; 8]; 2];
        for (pair, (a, b)) in pairs.iter().zip(a.iter_mut().zip(&mut b)) {
            [*a, *b] = *pair;
        }
        let [turned_a, turned_b] = rotate(isa, &[a, b], &lane_at(cos, 0), &lane_at(sin, 0));
        isa.store(turned_a, &mut a);
        isa.store(turned_b, &mut b);
        for (pair, (a, b)) in pairs.iter_mut().zip(a.iter().zip(&b)) {
            *pair = [*a, *b];
        }
    }
}

/// Rotates eight pairs, given as their first and their second numbers.
#[inline(always)]
fn rotate<I: Isa>(isa: I, [a, b]: &[[f32; 8]; 2], cos: &[f32; 8], sin: &[f32; 8]) -> [I::F32; 2] {
    let (a, b, cos, sin) = (isa.load(a), isa.load(b), isa.load(cos), isa.load(sin));
    // The product's sign is exact, whichever factor has it.
    let minus = isa.mul(sin, isa.splat(-1.0));
    [isa.fma(a, cos, isa.mul(b, minus)), isa.fma(a, sin, isa.mul(b, cos))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Tier;
    use proptest::prelude::*;

    /// The definition, one pair after the other.
    fn defined(Rotate { x, token_width, head_width, at, cos, sin, pairs, interleaved }: Rotate) {
        for (t, token) in x.chunks_exact_mut(token_width).enumerate() {
            for head in token.chunks_exact_mut(head_width) {
                for pair in 0..pairs {
                    let (a, b) = match interleaved {
                        true => (at + 2 * pair, at + 2 * pair + 1),
                        false => (at + pair, at + pair + pairs),
                    };
                    let (cos, sin) = (cos[t * pairs + pair], sin[t * pairs + pair]);
                    let (xa, xb) = (head[a], head[b]);
                    head[a] = xa.mul_add(cos, -(xb * sin));
                    head[b] = xa.mul_add(sin, xb * cos);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_tier_turns_pairs_as_defined(
            (tokens, heads, pairs) in (1usize..4, 1usize..4, 1usize..20),
            (at, after) in (0usize..9, 0usize..9),
            interleaved: bool,
            seed: u64,
        ) {
            let mut random = vaquita_lcg::Lcg(seed);
            let head_width = at + 2 * pairs + after;
            let mut numbers = |n: usize| -> Vec<f32> {
                (0..n).map(|_| 4.0 * random.unit() - 2.0).collect()
            };
            let token_width = heads * head_width;
            let x = numbers(tokens * token_width);
            let (cos, sin) = (numbers(tokens * pairs), numbers(tokens * pairs));
            fn call<'a>(like: &Rotate<'a>, x: &'a mut [f32]) -> Rotate<'a> {
                let Rotate { token_width, head_width, at, cos, sin, pairs, interleaved, .. } = *like;
                Rotate { x, token_width, head_width, at, cos, sin, pairs, interleaved }
            }
            let (x_of_none, cos, sin) = (&mut [][..], &cos[..], &sin[..]);
            let like =
                Rotate { x: x_of_none, token_width, head_width, at, cos, sin, pairs, interleaved };
            let mut expected = x.clone();
            defined(call(&like, &mut expected));
            for tier in Tier::available() {
                let mut x = x.clone();
                tier.run(call(&like, &mut x));
                let [x, expected] =
                    [&x, &expected].map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
                prop_assert_eq!(x, expected, "{}", tier.name());
            }
        }
    }
}
