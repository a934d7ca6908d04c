//! Pieces and ends of answers.

use std::time::Duration;

use serde_json::{Value, json};
use vaquita_runtime::engine::{CacheSource, Finished};
use vaquita_runtime::model::Stats;
use vaquita_runtime::session::generate::{Generation, StopReason};
use vaquita_runtime::session::sampler::logprobs::Logprobs;
use vaquita_runtime::session::tools::ToolEvent;

/// A piece of an answer.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Requests ahead in the queue, and the estimated time until this one begins.
    Queued { ahead: usize, wait: Duration },
    /// Progress in reading the prompt.
    Prompt(Progress),
    /// A token was picked; its text follows now or with a later one.
    Token(u32),
    /// Text of the reasoning.
    Reasoning(String),
    /// Text of the answer.
    Text(String),
    /// Event of a call.
    Call(ToolEvent),
    /// Log probabilities of a token, before its text.
    Logprobs(Logprobs),
    /// End of the answer.
    Done(Box<Outcome>),
}

/// Progress in reading a prompt, in tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub done: usize,
    pub cached: usize,
    pub total: usize,
    pub time: Duration,
}

/// An answer that has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub generation: Generation,
    pub reasoning_tokens: usize,
    /// Speed, energy and experts, in llama.cpp's form.
    pub timings: Value,
    /// What could not be done as requested.
    pub warnings: Vec<String>,
}

impl Progress {
    /// The progress in llama.cpp's form.
    pub fn to_json(self) -> Value {
        json!({
            "total": self.total,
            "cache": self.cached,
            "processed": self.done,
            "time_ms": self.time.as_millis() as u64,
        })
    }
}

impl Outcome {
    /// Why the answer ended, in OpenAI's words.
    pub fn finish_reason(&self) -> &'static str {
        match self.generation.stop {
            StopReason::Length | StopReason::ContextFull => "length",
            _ if !self.generation.calls.is_empty() => "tool_calls",
            _ => "stop",
        }
    }
}

/// Times, energy, cache and experts of an answer. `meter` is the name of the energy meter.
pub(super) fn timings(finished: &Finished, meter: Option<&str>) -> Value {
    let generation = &finished.generation;
    let (read, written) =
        (generation.prompt_tokens - generation.cached_tokens, generation.tokens.len());
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let per_token = |time: Duration, tokens: usize| (tokens > 0).then(|| ms(time) / tokens as f64);
    let energy = finished.joules.map_or(json!("unmeasured"), |joules| {
        let per_token = (written > 0).then(|| joules / written as f64);
        json!({"joules": joules, "joules_per_token": per_token, "meter": meter})
    });
    let experts = finished.streaming.map(|Stats { uses, hits, bytes_read, .. }| {
        json!({"hits": hits, "misses": uses.saturating_sub(hits), "bytes_read": bytes_read})
    });
    let source = match finished.cache.source {
        CacheSource::Nothing => Value::Null,
        CacheSource::Memory => "memory".into(),
        CacheSource::Disk => "disk".into(),
    };
    let mut timings = json!({
        "queued_ms": ms(finished.queued),
        "cache_n": generation.cached_tokens,
        "cache": {"source": source, "miss": finished.cache.miss},
        "prompt_n": read,
        "prompt_ms": ms(generation.prefill),
        "prompt_per_token_ms": per_token(generation.prefill, read),
        "prompt_per_second": generation.prefill_rate(),
        "predicted_n": written,
        "predicted_ms": ms(generation.decode),
        "predicted_per_token_ms": per_token(generation.decode, written),
        "predicted_per_second": generation.decode_rate(),
        "energy": energy,
        "experts": experts,
    });
    if generation.drafts.all_drafted() > 0 {
        timings["draft_n"] = generation.drafts.all_drafted().into();
        timings["draft_n_accepted"] = generation.drafts.all_accepted().into();
    }
    timings
}
