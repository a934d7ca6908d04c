//! Penalties, filters and log-probabilities against values that `golden/sampling/make.py` computed from their definitions.

use std::collections::BTreeSet;

use serde::Deserialize;
use vaquita_runtime::session::sampler::dry::DryOptions;
use vaquita_runtime::session::sampler::logprobs::Logprobs;
use vaquita_runtime::session::sampler::{Sampler, SamplingOptions};

#[derive(Deserialize)]
struct Case {
    options: Options,
    logits: Vec<f32>,
    history: Vec<u32>,
    penalized: Vec<f32>,
    logprobs: Vec<f32>,
    kept: BTreeSet<u32>,
}

#[derive(Deserialize)]
struct Options {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    xtc_probability: f32,
    xtc_threshold: f32,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    repetition_window: usize,
    dry_multiplier: f32,
    dry_base: f32,
    dry_allowed_length: usize,
    dry_window: usize,
    logit_bias: Vec<(u32, f32)>,
}

impl Options {
    fn sampling(&self) -> SamplingOptions {
        SamplingOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repetition_window: self.repetition_window,
            dry: DryOptions {
                multiplier: self.dry_multiplier,
                base: self.dry_base,
                allowed_length: self.dry_allowed_length,
                window: (self.dry_window > 0).then_some(self.dry_window),
                ..DryOptions::default()
            },
            logit_bias: self.logit_bias.clone(),
            seed: 5,
        }
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../golden/sampling/cases.json")).unwrap()
}

fn close(found: &[f32], expected: &[f32]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-5)
}

#[test]
fn penalties_are_as_they_are_defined() {
    for case in cases() {
        let mut logits = case.logits.clone();
        let mut sampler = Sampler::new(case.options.sampling()).unwrap();
        sampler.sample(&mut logits, &case.history).unwrap();
        assert!(close(&logits, &case.penalized), "{logits:?} {:?}", case.penalized);
    }
}

#[test]
fn exactly_the_tokens_that_filters_keep_are_drawn() {
    for case in cases() {
        let mut sampler = Sampler::new(case.options.sampling()).unwrap();
        let mut drawn = BTreeSet::new();
        for _ in 0..3000 {
            drawn.insert(sampler.sample(&mut case.logits.clone(), &case.history).unwrap());
        }
        assert!(drawn.is_subset(&case.kept), "{drawn:?} of {:?}", case.kept);
        let best = case.penalized.iter().copied().fold(f32::MIN, f32::max);
        let common = |token: &&u32| {
            (case.penalized[**token as usize] - best) / case.options.temperature > -4.0
        };
        // A token with this probability is missed by all draws once in 10^8 runs.
        let common: BTreeSet<u32> = case.kept.iter().filter(common).copied().collect();
        assert!(common.is_subset(&drawn), "{common:?} not in {drawn:?}");
    }
}

#[test]
fn log_probabilities_are_the_models_own() {
    for case in cases() {
        let found = Logprobs::new(&case.logits, 0, case.logits.len());
        let mut by_token = vec![0.0; case.logits.len()];
        for one in &found.top {
            by_token[one.token as usize] = one.logprob;
        }
        assert!(close(&by_token, &case.logprobs), "{by_token:?} {:?}", case.logprobs);
        assert_eq!(found.picked.logprob, by_token[0]);
    }
}
