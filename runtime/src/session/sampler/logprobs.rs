//! Log probabilities of the model itself: before bias, penalties, temperature, filters and
//! constraints.

/// A token and the natural logarithm of its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logprob {
    /// The token.
    pub token: u32,
    /// Logarithm of the token's probability, at most 0; negative infinity for a token that the
    /// model excludes.
    pub logprob: f32,
}

/// Log probabilities at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// The token that was picked.
    pub picked: Logprob,
    /// The most likely tokens by decreasing likelihood, then by id.
    pub top: Vec<Logprob>,
}

impl Logprobs {
    /// Computes the log probabilities of `token` and of the `top` most likely tokens from the
    /// logits of all tokens: `logit - ln(sum(exp(logits)))`, where the sum is computed in double
    /// precision in vocabulary order. A token outside the vocabulary has negative infinity.
    pub fn new(logits: &[f32], token: u32, top: usize) -> Self {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| libm::exp(f64::from(logit - best))).sum();
        let normalizer = f64::from(best) + libm::log(sum);
        let of = |token: u32| {
            let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
            Logprob { token, logprob: (f64::from(logit) - normalizer).min(0.0) as f32 }
        };
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let top = top.min(order.len());
        let by_rank =
            |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if top > 0 && top < order.len() {
            order.select_nth_unstable_by(top - 1, by_rank);
        }
        order.truncate(top);
        order.sort_unstable_by(by_rank);
        Self { picked: of(token), top: order.into_iter().map(of).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_logarithms_of_a_softmax() {
        let logits = [1.0, 3.0, 2.0, 3.0];
        let found = Logprobs::new(&logits, 2, 3);
        let sum: f64 = logits.iter().map(|logit| f64::exp(f64::from(*logit))).sum();
        let expected = |logit: f64| (logit.exp() / sum).ln() as f32;
        assert!((found.picked.logprob - expected(2.0)).abs() < 1e-6);
        assert_eq!(found.top.iter().map(|l| l.token).collect::<Vec<_>>(), [1, 3, 2]);
        assert!((found.top[0].logprob - expected(3.0)).abs() < 1e-6);
    }

    #[test]
    fn all_probabilities_sum_to_one() {
        let logits: Vec<f32> = (0..1000).map(|i| (i % 37) as f32 * 0.3 - 4.0).collect();
        let all = Logprobs::new(&logits, 0, usize::MAX).top;
        let sum: f64 = all.iter().map(|l| f64::from(l.logprob).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn excluded_and_unknown_tokens_have_no_probability() {
        let found = Logprobs::new(&[0.0, f32::NEG_INFINITY], 7, 2);
        assert_eq!(found.picked.logprob, f32::NEG_INFINITY);
        assert_eq!(found.top[0], Logprob { token: 0, logprob: 0.0 });
        assert_eq!(found.top[1].logprob, f32::NEG_INFINITY);
    }
}
