//! Picks the next token from its logits: greedily, or by a draw from the tokens that the filters
//! leave.
//!
//! The steps, each of which can be disabled by its options, are: logit bias, repetition, presence
//! and frequency penalties ([`penalties`]), DRY ([`dry`]), the mask of a [`Constraint`], then
//! temperature, top-k, top-p and min-p in the order of the `transformers` library, XTC
//! ([`filters`]), and one draw. The same seed gives the same tokens on every machine. Tokens are
//! drawn one at a time, so that a token never depends on whether it was drafted.

pub mod dry;
mod filters;
pub mod logprobs;
mod options;
mod penalties;

use super::constraint::{Constraint, ConstraintError};
use super::random::Xoshiro256;
use crate::kernels::scan::{all_finite, largest};
use filters::Candidate;
use logprobs::{Logprob, Logprobs};
pub use options::{MAX_BIASES, SamplingOptions};

/// Reason why tokens cannot be picked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// An option is out of range.
    #[error("{option} is {found}; allowed: {allowed}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Value of the option.
        found: f32,
        /// Allowed values.
        allowed: &'static str,
    },
    /// A bias is NaN or positive infinity.
    #[error("the logit bias of token {token} is {bias}; allowed: a number, or negative infinity")]
    Bias {
        /// The token.
        token: u32,
        /// Its bias.
        bias: f32,
    },
    /// Too many tokens have a bias.
    #[error("{found} tokens have a logit bias; at most {MAX_BIASES} may")]
    Biases {
        /// Number of tokens.
        found: usize,
    },
    /// The model computed a logit that is NaN or infinite.
    #[error("the logit of token {token} is {value}: the model's weights are damaged or overflow")]
    NotFinite {
        /// The token.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// There are no logits.
    #[error("there are no logits to pick a token from")]
    Empty,
    /// No token is left.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

/// Picks tokens one at a time.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplingOptions,
    random: Xoshiro256,
}

impl Sampler {
    /// Creates a sampler after validating the options.
    pub fn new(options: SamplingOptions) -> Result<Self, SamplerError> {
        options.check()?;
        let random = Xoshiro256::new(options.seed);
        Ok(Self { options, random })
    }

    /// Picks the next token after `history`, which the penalties inspect.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32, SamplerError> {
        self.sample_with(logits, history, None)
    }

    /// Picks the next token among those that `constraint` allows. The caller must pass the token on
    /// to the constraint.
    pub fn sample_with(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
        constraint: Option<&mut (dyn Constraint + '_)>,
    ) -> Result<u32, SamplerError> {
        self.draw(logits, history, constraint).map(|(token, _)| token)
    }

    /// Like [`Self::sample_with`], with the log probabilities of the draw: of the picked token and
    /// of the `top` most likely ones among those that bias, penalties, constraint and filters left.
    pub fn sample_with_odds(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
        constraint: Option<&mut (dyn Constraint + '_)>,
        top: usize,
    ) -> Result<(u32, Logprobs), SamplerError> {
        let (token, kept) = self.draw(logits, history, constraint)?;
        let total: f64 = kept.iter().map(|candidate| f64::from(candidate.weight)).sum();
        let of = |candidate: &Candidate| Logprob {
            token: candidate.token as u32,
            logprob: libm::log(f64::from(candidate.weight) / total).min(0.0) as f32,
        };
        let picked = kept.iter().find(|candidate| candidate.token == token as usize).map(of);
        let picked = picked.unwrap_or(Logprob { token, logprob: 0.0 });
        Ok((token, Logprobs { picked, top: kept.iter().take(top).map(of).collect() }))
    }

    /// Picks a token, and returns it with those that it was drawn from, the most likely first.
    fn draw(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
        constraint: Option<&mut (dyn Constraint + '_)>,
    ) -> Result<(u32, Vec<Candidate>), SamplerError> {
        if !all_finite(logits) {
            let bad = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY);
            if let Some(token) = bad {
                return Err(SamplerError::NotFinite { token, value: logits[token] });
            }
        }
        penalties::bias(logits, &self.options);
        penalties::penalize(logits, history, &self.options);
        dry::penalize(logits, history, &self.options.dry);
        let constrained = constraint.is_some();
        if let Some(constraint) = constraint {
            constraint.mask(logits)?;
        }
        let best = largest(logits);
        let best_token =
            logits.iter().position(|logit| *logit == best).ok_or(SamplerError::Empty)?;
        if best == f32::NEG_INFINITY && constrained {
            return Err(ConstraintError::Exhausted.into());
        }
        if self.options.temperature == 0.0 || best == f32::NEG_INFINITY {
            let only = Candidate { token: best_token, logit: 0.0, weight: 1.0 };
            return Ok((best_token as u32, vec![only]));
        }
        let candidates = filters::weigh(logits, best, self.options.temperature);
        let kept = filters::filter(candidates, &self.options, &mut self.random);
        let total: f64 = kept.iter().map(|candidate| f64::from(candidate.weight)).sum();
        let mut left = self.random.unit() * total;
        let drawn = kept.iter().find(|candidate| {
            left -= f64::from(candidate.weight);
            left < 0.0
        });
        let token = drawn.or(kept.last()).map_or(best_token, |candidate| candidate.token);
        Ok((token as u32, kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(options: SamplingOptions, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(options).unwrap();
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampler.sample(&mut logits.to_vec(), &[]).unwrap() as usize] += 1;
        }
        counts
    }

    fn plain() -> SamplingOptions {
        SamplingOptions { temperature: 1.0, top_p: 1.0, ..SamplingOptions::default() }
    }

    /// Logits of probabilities 1/2, 1/4, 1/8, 1/8.
    fn halves() -> [f32; 4] {
        [0.5f32, 0.25, 0.125, 0.125].map(f32::ln)
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest() {
        let mut sampler = Sampler::new(SamplingOptions::greedy()).unwrap();
        assert_eq!(sampler.sample(&mut [0.0, 3.0, 3.0, -1.0], &[]), Ok(1));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        for (count, part) in counts(plain(), &halves(), 40_000).into_iter().zip([2, 4, 8, 8]) {
            assert!(count.abs_diff(40_000 / part) < 400, "{count} of 40000/{part}");
        }
    }

    #[test]
    fn a_low_temperature_sharpens() {
        let options = SamplingOptions { temperature: 0.5, ..plain() };
        let counts = counts(options, &halves(), 22_000);
        // Squared: 16, 4, 1 and 1 parts of 22.
        assert!(counts[0].abs_diff(16_000) < 400, "{counts:?}");
    }

    #[test]
    fn filters_leave_the_likeliest() {
        let kept =
            |options| counts(options, &halves(), 1000).iter().filter(|count| **count > 0).count();
        assert_eq!(kept(SamplingOptions { top_k: 2, ..plain() }), 2);
        assert_eq!(kept(SamplingOptions { top_p: 0.5, ..plain() }), 1);
        assert_eq!(kept(SamplingOptions { top_p: 0.51, ..plain() }), 2);
        assert_eq!(kept(SamplingOptions { min_p: 0.5, ..plain() }), 2);
        assert_eq!(kept(SamplingOptions { min_p: 1.0, ..plain() }), 1);
        assert_eq!(kept(plain()), 4);
    }

    #[test]
    fn odds_are_those_of_the_draw() {
        let odds = |options| {
            let mut sampler = Sampler::new(options).unwrap();
            let (token, odds) = sampler.sample_with_odds(&mut halves(), &[], None, 3).unwrap();
            assert_eq!(odds.picked.token, token);
            odds.top.iter().map(|one| (one.token, one.logprob.exp())).collect::<Vec<_>>()
        };
        let near = |found: Vec<(u32, f32)>, expected: &[f32]| {
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for ((token, p), (at, expected)) in found.iter().zip((0u32..).zip(expected)) {
                assert!(*token == at && (p - expected).abs() < 1e-6, "{found:?}");
            }
        };
        near(odds(plain()), &[0.5, 0.25, 0.125]);
        near(odds(SamplingOptions { top_k: 2, ..plain() }), &[2.0 / 3.0, 1.0 / 3.0]);
        near(odds(SamplingOptions::greedy()), &[1.0]);
    }

    #[test]
    fn repetition_is_penalized_within_the_window() {
        let options = SamplingOptions {
            repetition_penalty: 2.0,
            repetition_window: 2,
            ..SamplingOptions::greedy()
        };
        let mut sampler = Sampler::new(options).unwrap();
        let logits = [4.0, 3.0, -1.0];
        assert_eq!(sampler.sample(&mut logits.clone(), &[0, 1, 1]), Ok(0));
        assert_eq!(sampler.sample(&mut logits.clone(), &[1, 0, 0]), Ok(1));
        let mut logits = [-1.0, -1.5];
        assert_eq!(sampler.sample(&mut logits, &[0, 900]), Ok(1));
    }

    #[test]
    fn a_seed_repeats_itself() {
        let draw = |seed| {
            let mut sampler = Sampler::new(SamplingOptions { seed, ..plain() }).unwrap();
            (0..20).map(|_| sampler.sample(&mut halves(), &[]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let mut sampler = Sampler::new(plain()).unwrap();
        let error = sampler.sample(&mut [0.0, f32::NAN], &[]).unwrap_err();
        assert!(matches!(error, SamplerError::NotFinite { token: 1, .. }), "{error}");
        assert_eq!(sampler.sample(&mut [], &[]), Err(SamplerError::Empty));
        assert_eq!(sampler.sample(&mut [f32::NEG_INFINITY, 0.0], &[]), Ok(1));
        for options in [
            SamplingOptions { temperature: -1.0, ..plain() },
            SamplingOptions { temperature: f32::NAN, ..plain() },
            SamplingOptions { top_p: 0.0, ..plain() },
            SamplingOptions { min_p: 1.5, ..plain() },
            SamplingOptions { repetition_penalty: 0.0, ..plain() },
        ] {
            assert!(matches!(Sampler::new(options), Err(SamplerError::Option { .. })));
        }
    }
}
