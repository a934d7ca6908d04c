//! Filters that select the tokens to draw from: temperature, top-k, top-p, min-p, XTC.

use std::cmp::Ordering;

use super::options::SamplingOptions;
use crate::session::random::Xoshiro256;

/// A token that may be picked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub token: usize,
    /// Logit relative to that of the most likely token, before the temperature.
    pub logit: f32,
    /// Weight proportional to the probability under the temperature; 1 for the most likely token.
    pub weight: f32,
}

/// Orders by decreasing likelihood, then by increasing id.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token))
}

/// Weights relative to the most likely token's, excluding tokens whose probability is negligible.
pub(super) fn weigh(logits: &[f32], best: f32, temperature: f32) -> Vec<Candidate> {
    const LEAST: f32 = -30.0; // e^-30 of a 10^6 vocabulary: one draw in 10^7
    let relative = logits.iter().map(|logit| logit - best).enumerate();
    let likely = relative.filter(|(_, logit)| logit / temperature > LEAST);
    likely
        .map(|(token, logit)| Candidate { token, logit, weight: libm::expf(logit / temperature) })
        .collect()
}

/// Applies all filters and returns the remaining candidates, most likely first.
pub(super) fn filter(
    mut candidates: Vec<Candidate>,
    options: &SamplingOptions,
    random: &mut Xoshiro256,
) -> Vec<Candidate> {
    let SamplingOptions { top_k, top_p, min_p, .. } = *options;
    if top_k > 0 && top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, by_rank);
        candidates.truncate(top_k);
    }
    candidates.sort_unstable_by(by_rank);
    if top_p < 1.0 {
        let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
        let mut sum = 0.0;
        let reached = candidates.iter().position(|candidate| {
            sum += f64::from(candidate.weight);
            sum >= f64::from(top_p) * total
        });
        candidates.truncate(reached.map_or(candidates.len(), |last| last + 1));
    }
    if let Some(first) = candidates.first().copied() {
        candidates.retain(|candidate| candidate.weight >= min_p * first.weight);
    }
    exclude_top_choices(&mut candidates, options, random);
    candidates
}

/// XTC (p-e-w, text-generation-webui pull request 6335), as in llama.cpp: with probability
/// `xtc_probability`, all candidates whose probability is at least `xtc_threshold` are removed,
/// except the last of them. Probabilities are at temperature 1 among the remaining candidates. One
/// random number is drawn for every token at which XTC can act.
fn exclude_top_choices(
    candidates: &mut Vec<Candidate>,
    options: &SamplingOptions,
    random: &mut Xoshiro256,
) {
    let SamplingOptions { xtc_probability, xtc_threshold, .. } = *options;
    if xtc_probability <= 0.0 || xtc_threshold > 0.5 || candidates.len() < 2 {
        return;
    }
    if random.unit() >= f64::from(xtc_probability) {
        return;
    }
    let weights: Vec<f64> =
        candidates.iter().map(|candidate| f64::from(libm::expf(candidate.logit))).collect();
    let total: f64 = weights.iter().sum();
    let likely = |weight: &&f64| **weight >= f64::from(xtc_threshold) * total;
    let top = weights.iter().take_while(likely).count();
    candidates.drain(..top.saturating_sub(1));
}
