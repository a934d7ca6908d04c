//! A whole answer in OpenAI's form.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use vaquita_runtime::session::sampler::logprobs::{Logprob, Logprobs};
use vaquita_runtime::session::tools::Call;

use crate::answering::Outcome;
use crate::http::record::random;
use crate::served::Served;

/// What all chunks of an answer have in common.
pub(crate) struct Envelope {
    pub model: Arc<Served>,
    pub id: String,
    pub created: u64,
    /// The prompt, for clients that ask for it.
    pub prompt: Option<String>,
}

impl Envelope {
    /// The envelope of a new answer.
    pub fn new(model: &Arc<Served>, prefix: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { model: model.clone(), id: random(prefix), created: now.as_secs(), prompt: None }
    }

    /// An object with these choices.
    pub fn wrap(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model.info.id,
            "system_fingerprint": self.model.fingerprint(),
            "choices": choices,
        })
    }

    /// Log probabilities in OpenAI's form.
    pub fn logprob(&self, at: &Logprobs) -> Value {
        let tokenizer = self.model.prompter().tokenizer();
        let of = |one: &Logprob| {
            let bytes = tokenizer.piece(one.token).unwrap_or_default();
            // JSON has no infinity: OpenAI writes -9999.
            let logprob = f64::from(one.logprob).max(-9999.0);
            json!({
                "token": String::from_utf8_lossy(&bytes),
                "logprob": logprob,
                "bytes": bytes,
                "id": one.token,
            })
        };
        let mut json = of(&at.picked);
        json["top_logprobs"] = at.top.iter().map(of).collect();
        json
    }
}

/// Tokens of answers to one prompt, in the forms of OpenAI and DeepSeek.
pub(crate) fn usage(outcomes: &[Outcome]) -> Value {
    let first = outcomes.first().map(|outcome| &outcome.generation);
    let prompt = first.map_or(0, |generation| generation.prompt_tokens);
    let cached = first.map_or(0, |generation| generation.cached_tokens);
    let completion: usize = outcomes.iter().map(|outcome| outcome.generation.tokens.len()).sum();
    let reasoning: usize = outcomes.iter().map(|outcome| outcome.reasoning_tokens).sum();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "prompt_cache_hit_tokens": cached,
        "prompt_cache_miss_tokens": prompt - cached,
    })
}

/// Adds timings and warnings.
pub(crate) fn close(json: &mut Value, envelope: &Envelope, outcomes: &[Outcome]) {
    let Some(last) = outcomes.last() else { return };
    if let Some(prompt) = &envelope.prompt {
        json["__verbose"] = json!({ "prompt": prompt });
    }
    json["timings"] = last.timings.clone();
    let mut warnings: Vec<&String> = outcomes.iter().flat_map(|one| &one.warnings).collect();
    warnings.dedup();
    if !warnings.is_empty() {
        json["warnings"] = json!(warnings);
    }
}

/// The response to a request that is not streamed.
pub(crate) fn whole(envelope: &Envelope, outcomes: Vec<Outcome>) -> Value {
    let choice = |(index, outcome): (usize, &Outcome)| {
        let generation = &outcome.generation;
        let calls = &generation.calls;
        let empty = generation.answer.is_empty() && !calls.is_empty();
        let mut message = json!({
            "role": "assistant",
            "content": if empty { Value::Null } else { generation.answer.as_str().into() },
            "refusal": null,
        });
        if !generation.reasoning.is_empty() {
            message["reasoning_content"] = generation.reasoning.as_str().into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.iter().map(Call::to_json).collect();
        }
        let logprobs: Vec<Value> =
            generation.logprobs.iter().map(|at| envelope.logprob(at)).collect();
        json!({
            "index": index,
            "message": message,
            "logprobs": match logprobs.is_empty() {
                true => Value::Null,
                false => json!({"content": logprobs, "refusal": null}),
            },
            "finish_reason": outcome.finish_reason(),
        })
    };
    let choices = outcomes.iter().enumerate().map(choice).collect();
    let mut json = envelope.wrap("chat.completion", choices);
    json["usage"] = usage(&outcomes);
    close(&mut json, envelope, &outcomes);
    json
}
