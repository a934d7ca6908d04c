//! Answers in llama.cpp's own form.

use serde_json::{Map, Value, json};
use vaquita_runtime::session::generate::StopReason;
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::sampler::logprobs::{Logprob, Logprobs};

use crate::answering::{Outcome, of_generation};
use crate::chat::Settings;
use crate::served::Served;

/// What a request asked for, for its answers.
pub(super) struct Asked {
    pub settings: Settings,
    pub stream: bool,
    pub return_tokens: bool,
    /// Paths of the members of the answer that are sent; empty for all.
    pub fields: Vec<String>,
    /// The prompts, as text.
    pub prompts: Vec<String>,
}

/// Settings in the form of `generation_settings`.
pub(super) fn settings(settings: &Settings) -> Value {
    let SamplingOptions { dry, logit_bias, .. } = &settings.sampling;
    let most = settings.max_tokens.map_or(json!(-1), Value::from);
    // JSON has no infinity: llama.cpp writes null.
    let bias = |(token, bias): &(u32, f32)| json!({"token": token, "bias": bias});
    let mut json = sampling(&settings.sampling);
    let more = json!({
        "seed": settings.sampling.seed,
        "dry_multiplier": dry.multiplier,
        "dry_base": dry.base,
        "dry_allowed_length": dry.allowed_length,
        "stop": settings.stop,
        "max_tokens": most,
        "n_predict": most,
        "n_probs": settings.logprobs.unwrap_or(0),
        "post_sampling_probs": settings.odds,
        "logit_bias": logit_bias.iter().map(bias).collect::<Vec<_>>(),
    });
    if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
        json.extend(more);
    }
    json
}

/// Options of sampling under llama.cpp's names.
pub(super) fn sampling(options: &SamplingOptions) -> Value {
    json!({
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "repeat_penalty": options.repetition_penalty,
        "repeat_last_n": options.repetition_window,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "xtc_probability": options.xtc_probability,
        "xtc_threshold": options.xtc_threshold,
    })
}

/// A token with its probability: that of the draw, or the logarithm of the model's.
pub(super) fn probability(model: &Served, at: &Logprobs, odds: bool) -> Value {
    let of = |one: &Logprob| {
        let bytes = model.prompter().tokenizer().piece(one.token).unwrap_or_default();
        let mut json = json!({
            "id": one.token,
            "token": String::from_utf8_lossy(&bytes),
            "bytes": bytes,
        });
        let logprob = f64::from(one.logprob);
        match odds {
            true => json["prob"] = logprob.exp().into(),
            false => json["logprob"] = logprob.max(-9999.0).into(),
        }
        json
    };
    let mut json = of(&at.picked);
    let top = if odds { "top_probs" } else { "top_logprobs" };
    json[top] = at.top.iter().map(of).collect();
    json
}

/// The string that ended an answer: the one that is complete first in what was generated.
fn stopping_word<'a>(model: &Served, asked: &'a Asked, outcome: &Outcome) -> &'a str {
    if outcome.generation.stop != StopReason::StopString {
        return "";
    }
    let text = model.prompter().tokenizer().decode(&outcome.generation.tokens);
    let end = |stop: &&String| text.find(*stop).map_or(usize::MAX, |at| at + stop.len());
    asked.settings.stop.iter().min_by_key(end).map_or("", String::as_str)
}

impl Asked {
    /// The answer to the prompt at `index`. A stream has sent its text before.
    pub fn answer(&self, model: &Served, index: usize, outcome: &Outcome) -> Value {
        let generation = &outcome.generation;
        let text = || generation.reasoning.clone() + &generation.answer;
        let tokens: &[u32] = match self.return_tokens && !self.stream {
            true => &generation.tokens,
            false => &[],
        };
        let stop = match generation.stop {
            StopReason::EndOfSentence => "eos",
            StopReason::StopString => "word",
            StopReason::Length | StopReason::ContextFull => "limit",
            StopReason::Cancelled => "none",
        };
        let mut settings = settings(&self.settings);
        settings["stream"] = self.stream.into();
        let prompt = self.prompts.get(index / self.settings.n.max(1));
        let mut json = json!({
            "index": index,
            "content": if self.stream { String::new() } else { text() },
            "tokens": tokens,
            "stop": true,
            "model": model.info.id,
            "tokens_predicted": generation.tokens.len(),
            "tokens_evaluated": generation.prompt_tokens,
            "tokens_cached": generation.prompt_tokens + generation.tokens.len(),
            "generation_settings": settings,
            "prompt": prompt,
            "has_new_line": generation.answer.contains('\n'),
            "truncated": generation.stop == StopReason::ContextFull,
            "stop_type": stop,
            "stopping_word": stopping_word(model, self, outcome),
            "timings": of_generation(generation),
        });
        // What vaquita adds is apart: clients of llama.cpp expect numbers in `timings`.
        for own in ["energy", "experts", "cache", "queued_ms"] {
            json[own] = outcome.timings[own].clone();
        }
        if !self.stream && !generation.logprobs.is_empty() {
            let one = |at: &Logprobs| probability(model, at, self.settings.odds);
            json["completion_probabilities"] = generation.logprobs.iter().map(one).collect();
        }
        match self.fields.is_empty() {
            true => json,
            false => self.selected(&json),
        }
    }

    /// The members that were asked for, under their paths, such as `timings/prompt_n`.
    fn selected(&self, json: &Value) -> Value {
        let member = |path: &String| {
            let found = path.split('/').try_fold(json, |json, name| json.get(name))?;
            Some((path.clone(), found.clone()))
        };
        Value::Object(self.fields.iter().filter_map(member).collect::<Map<_, _>>())
    }
}
