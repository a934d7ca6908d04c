//! Options of sampling: those given, else those that the model's authors suggest, else ours.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use clap::Args;
use serde_json::{Map, Value, json};
use vaquita_runtime::checkpoint::suggested::SuggestedSampling;
use vaquita_runtime::session::constraint::Grammar;
use vaquita_runtime::session::generate::GenerationOptions;
use vaquita_runtime::session::sampler::{Sampler, SamplingOptions};
use vaquita_runtime::tokenizer::Tokenizer;

use crate::failure::Result;
use crate::penalties::Penalties;

/// Sampling options.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// Maximum number of tokens to generate, including reasoning; -1 is no maximum [default: until
    /// the context is full]
    #[arg(
        short = 'n',
        long,
        visible_alias = "predict",
        alias = "n-predict",
        alias = "num-predict",
        value_name = "N",
        value_parser = max_tokens
    )]
    max_tokens: Option<MaxTokens>,
    /// Sampling temperature; 0 is greedy decoding [default: the model's own, or 0.6]
    #[arg(long, visible_alias = "temperature", value_name = "X")]
    temp: Option<f32>,
    /// Top-k sampling: keep the K most probable tokens; 0 keeps all [default: the model's own, or
    /// 0]
    #[arg(long, alias = "top_k", value_name = "K")]
    top_k: Option<usize>,
    /// Top-p (nucleus) sampling: keep the most probable tokens up to this cumulative probability
    /// [default: the model's own, or 0.95]
    #[arg(long, alias = "top_p", value_name = "P")]
    top_p: Option<f32>,
    /// Min-p sampling: keep tokens with at least this fraction of the highest probability
    /// [default: the model's own, or 0]
    #[arg(long, alias = "min_p", value_name = "P")]
    min_p: Option<f32>,
    /// Repetition penalty on recent tokens; 1 disables it [default: the model's own, or 1]
    #[arg(long, value_name = "X")]
    repeat_penalty: Option<f32>,
    /// Random seed: the same seed gives the same answer [default: a random one, which is printed]
    #[arg(short = 's', long, value_name = "N", value_parser = seed)]
    seed: Option<Seed>,
    /// Stop string: end the answer before this text; repeatable
    #[arg(long, visible_alias = "reverse-prompt", value_name = "TEXT")]
    stop: Vec<String>,
    /// Do not print the model's reasoning
    #[arg(long)]
    hide_thinking: bool,
    #[command(flatten)]
    penalties: Penalties,
    /// Report the log-probability of each token and of its N most probable alternatives (with
    /// --json)
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
}

/// A number of tokens, or no maximum.
#[derive(Clone, Copy, Debug)]
struct MaxTokens(Option<usize>);

fn max_tokens(text: &str) -> std::result::Result<MaxTokens, String> {
    match text {
        // llama.cpp's for "no limit" and for "until the context is full".
        "-1" | "-2" => Ok(MaxTokens(None)),
        _ => match text.parse() {
            Ok(tokens) => Ok(MaxTokens(Some(tokens))),
            Err(_) => Err("allowed: a number of tokens, or -1 for no maximum".into()),
        },
    }
}

/// A seed, or the wish for a random one.
#[derive(Clone, Copy, Debug)]
struct Seed(Option<u64>);

fn seed(text: &str) -> std::result::Result<Seed, String> {
    match text {
        "-1" | "random" => Ok(Seed(None)),
        _ => match text.parse() {
            Ok(seed) => Ok(Seed(Some(seed))),
            Err(_) => {
                Err("allowed: a number from 0 to 18446744073709551615, or -1 for a random one"
                    .into())
            }
        },
    }
}

/// A seed that differs from run to run, short enough to be typed.
fn random_seed() -> u64 {
    // The standard library keys its hashes with the system's randomness.
    u64::from(RandomState::new().build_hasher().finish() as u32)
}

/// Source of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Option,
    Model,
    Default,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Self::Option => "option",
            Self::Model => "model",
            Self::Default => "default",
        }
    }
}

/// Options with all their values.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Options of the generation.
    pub generation: GenerationOptions,
    /// Whether reasoning is left out of what is printed.
    pub hide_thinking: bool,
    /// Name, value and source of each option of sampling.
    values: Vec<(&'static str, Value, Origin)>,
}

impl Sampling {
    /// All values for a model, checked.
    pub fn settle(
        &self,
        model: &SuggestedSampling,
        tokenizer: &Tokenizer,
        grammar: Option<Arc<dyn Grammar>>,
    ) -> Result<Settled> {
        let mut values = Vec::new();
        let ours = SamplingOptions::default();
        let to = &mut values;
        let sampling = SamplingOptions {
            temperature: pick(to, "temperature", self.temp, model.temperature, ours.temperature),
            top_k: pick(to, "top_k", self.top_k, model.top_k, ours.top_k),
            top_p: pick(to, "top_p", self.top_p, model.top_p, ours.top_p),
            min_p: pick(to, "min_p", self.min_p, model.min_p, ours.min_p),
            repetition_penalty: pick(
                to,
                "repeat_penalty",
                self.repeat_penalty,
                model.repetition_penalty,
                ours.repetition_penalty,
            ),
            seed: pick(to, "seed", self.seed.and_then(|Seed(seed)| seed), None, random_seed()),
            ..ours
        };
        let sampling = self.penalties.options(sampling, tokenizer)?;
        Sampler::new(sampling.clone())?;
        let generation = GenerationOptions {
            sampling,
            max_tokens: self.max_tokens.and_then(|MaxTokens(most)| most),
            stop: self.stop.clone(),
            grammar,
            logprobs: self.logprobs,
            ..GenerationOptions::default()
        };
        Ok(Settled { generation, hide_thinking: self.hide_thinking, values })
    }
}

/// Picks a value and records where it came from.
fn pick<T: Copy + ToString>(
    values: &mut Vec<(&'static str, Value, Origin)>,
    name: &'static str,
    given: Option<T>,
    suggested: Option<T>,
    ours: T,
) -> T {
    let (value, origin) = match (given, suggested) {
        (Some(value), _) => (value, Origin::Option),
        (None, Some(value)) => (value, Origin::Model),
        (None, None) => (ours, Origin::Default),
    };
    // By its text: 0.6 as f32 is 0.60000002384 as f64.
    let json = serde_json::from_str(&value.to_string()).unwrap_or_default();
    values.push((name, json, origin));
    value
}

impl Settled {
    /// Greedy decoding.
    pub fn greedy(max_tokens: usize) -> Self {
        let generation = GenerationOptions {
            sampling: SamplingOptions::greedy(),
            max_tokens: Some(max_tokens),
            ..GenerationOptions::default()
        };
        Self { generation, hide_thinking: false, values: Vec::new() }
    }

    /// The seed, where it has an effect.
    pub fn seed(&self) -> Option<u64> {
        let sampling = &self.generation.sampling;
        (sampling.temperature > 0.0).then_some(sampling.seed)
    }

    /// Draws from another seed.
    pub fn reseed(&mut self) {
        self.generation.sampling.seed = random_seed();
    }

    /// Values and their sources, for `--json`.
    pub fn json(&self) -> Value {
        let one = |(name, value, origin): &(&str, Value, Origin)| {
            (name.to_string(), json!({ "value": value, "from": origin.name() }))
        };
        Value::Object(self.values.iter().map(one).collect::<Map<_, _>>())
    }
}
