//! The next token from its logits: greedy, or drawn under temperature, top-k, top-p and min-p.
//!
//! Filters apply in the order of the `transformers` library: repetition penalty, temperature, top-k,
//! top-p, min-p. The same seed gives the same tokens on every machine.

use std::cmp::Ordering;

use super::random::Xoshiro256;

/// How tokens are picked.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Flattens or sharpens the distribution; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Only so many of the likeliest; 0 takes all.
    pub top_k: usize,
    /// The likeliest tokens that together reach this probability; 1 takes all.
    pub top_p: f32,
    /// Tokens at least this likely relative to the likeliest; 0 takes all.
    pub min_p: f32,
    /// Divides the logits of recent tokens (multiplies negative ones); 1 changes nothing.
    pub repetition_penalty: f32,
    /// So many tokens are recent.
    pub repetition_window: usize,
    /// Start of the random numbers.
    pub seed: u64,
}

impl Default for SamplingOptions {
    /// What DeepSeek recommends for R1: temperature 0.6, top-p 0.95.
    fn default() -> Self {
        Self {
            temperature: 0.6,
            top_k: 0,
            top_p: 0.95,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 256,
            seed: 0,
        }
    }
}

impl SamplingOptions {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }
}

/// Why tokens cannot be picked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplerError {
    /// An option is out of range.
    #[error("{option} is {found}; allowed: {allowed}")]
    Option {
        /// Which.
        option: &'static str,
        /// Its value.
        found: f32,
        /// What it may be.
        allowed: &'static str,
    },
    /// The model computed something that is no number.
    #[error("the logit of token {token} is {value}: the model's weights are damaged or overflow")]
    NotFinite {
        /// The token.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// No logits.
    #[error("there are no logits to pick a token from")]
    Empty,
}

/// Picks tokens, one after the other.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplingOptions,
    random: Xoshiro256,
}

/// A token that may be picked, with what is first its logit, then its weight.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: usize,
    value: f32,
}

/// Likelier first, then the lower id.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.value.total_cmp(&a.value).then(a.token.cmp(&b.token))
}

impl Sampler {
    /// Checks the options.
    pub fn new(options: SamplingOptions) -> Result<Self, SamplerError> {
        let check = |option, found: f32, good: bool, allowed| match good && found.is_finite() {
            true => Ok(()),
            false => Err(SamplerError::Option { option, found, allowed }),
        };
        let SamplingOptions { temperature, top_p, min_p, repetition_penalty, seed, .. } = options;
        check("temperature", temperature, temperature >= 0.0, "0 or more")?;
        check("top-p", top_p, top_p > 0.0 && top_p <= 1.0, "above 0, to 1")?;
        check("min-p", min_p, (0.0..=1.0).contains(&min_p), "0 to 1")?;
        check("repetition penalty", repetition_penalty, repetition_penalty > 0.0, "above 0")?;
        Ok(Self { options, random: Xoshiro256::new(seed) })
    }

    /// The next token after `history`, whose end the repetition penalty looks at.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32, SamplerError> {
        let bad = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY);
        if let Some(token) = bad {
            return Err(SamplerError::NotFinite { token, value: logits[token] });
        }
        self.penalize(logits, history);
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let best_token =
            logits.iter().position(|logit| *logit == best).ok_or(SamplerError::Empty)?;
        if self.options.temperature == 0.0 || best == f32::NEG_INFINITY {
            return Ok(best_token as u32);
        }
        let candidates = self.weigh(logits, best);
        let kept = self.filter(candidates);
        let total: f64 = kept.iter().map(|candidate| f64::from(candidate.value)).sum();
        let mut left = self.random.unit() * total;
        let drawn = kept.iter().find(|candidate| {
            left -= f64::from(candidate.value);
            left < 0.0
        });
        Ok(drawn.or(kept.last()).map_or(best_token, |candidate| candidate.token) as u32)
    }

    fn penalize(&self, logits: &mut [f32], history: &[u32]) {
        let penalty = self.options.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        let recent = history.len().saturating_sub(self.options.repetition_window);
        let mut recent = history[recent..].to_vec();
        recent.sort_unstable();
        recent.dedup();
        for token in recent {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// Weights relative to the likeliest token's, without tokens too unlikely to ever matter.
    fn weigh(&self, logits: &[f32], best: f32) -> Vec<Candidate> {
        const LEAST: f32 = -30.0; // e^-30 of a 10^6 vocabulary: one draw in 10^7
        let exponents = logits.iter().map(|logit| (logit - best) / self.options.temperature);
        let likely = exponents.enumerate().filter(|(_, exponent)| *exponent > LEAST);
        likely.map(|(token, x)| Candidate { token, value: libm::expf(x) }).collect()
    }

    /// The candidates that all filters leave, likeliest first.
    fn filter(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        let SamplingOptions { top_k, top_p, min_p, .. } = self.options;
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, by_rank);
            candidates.truncate(top_k);
        }
        candidates.sort_unstable_by(by_rank);
        if top_p < 1.0 {
            let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.value)).sum();
            let mut sum = 0.0;
            let reached = candidates.iter().position(|candidate| {
                sum += f64::from(candidate.value);
                sum >= f64::from(top_p) * total
            });
            candidates.truncate(reached.map_or(candidates.len(), |last| last + 1));
        }
        if let Some(first) = candidates.first().copied() {
            candidates.retain(|candidate| candidate.value >= min_p * first.value);
        }
        candidates
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
