//! Times of an answer while it is generated, in llama.cpp's form.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vaquita_runtime::session::generate::Generation;

use super::Progress;

/// What an answer took so far.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    progress: Progress,
    /// When the last progress came.
    read: Option<Instant>,
    /// When the first token came.
    first: Option<Instant>,
    tokens: usize,
}

impl Clock {
    /// Takes progress in reading the prompt.
    pub fn progress(&mut self, progress: Progress) {
        (self.progress, self.read) = (progress, Some(Instant::now()));
    }

    /// Counts a token.
    pub fn token(&mut self) {
        self.first.get_or_insert_with(Instant::now);
        self.tokens += 1;
    }

    /// Number of tokens so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Times so far. Before the first token, they are those of the last progress.
    pub fn timings(&self) -> Value {
        let Progress { done, cached, total, time } = self.progress;
        let after = self.first.zip(self.read).map_or(Duration::ZERO, |(first, read)| first - read);
        let read = if self.first.is_some() { total.max(done) } else { done } - cached;
        let prompt = if read == 0 { Duration::ZERO } else { time + after };
        let decode = self.first.map_or(Duration::ZERO, |first| first.elapsed());
        timings(cached, (read, prompt), (self.tokens, decode))
    }
}

/// Times of an answer that has ended: numbers alone, which clients of llama.cpp rely on.
pub(crate) fn of_generation(generation: &Generation) -> Value {
    let cached = generation.cached_tokens;
    let read = (generation.prompt_tokens - cached, generation.prefill);
    let mut timings = timings(cached, read, (generation.tokens.len(), generation.decode));
    let drafts = &generation.drafts;
    if drafts.all_drafted() > 0 {
        timings["draft_n"] = drafts.all_drafted().into();
        timings["draft_n_accepted"] = drafts.all_accepted().into();
    }
    timings
}

/// The first token comes from the pass that read the prompt: rates of the answer leave it out.
fn timings(
    cached: usize,
    (read, prompt): (usize, Duration),
    (tokens, decode): (usize, Duration),
) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let each = |time: Duration, count: usize| if count > 0 { ms(time) / count as f64 } else { 0.0 };
    let rate = |count: usize, time: Duration| match time.is_zero() {
        true => 0.0,
        false => count as f64 / time.as_secs_f64(),
    };
    let steps = tokens.saturating_sub(1);
    json!({
        "cache_n": cached,
        "prompt_n": read,
        "prompt_ms": ms(prompt),
        "prompt_per_token_ms": each(prompt, read),
        "prompt_per_second": rate(read, prompt),
        "predicted_n": tokens,
        "predicted_ms": ms(decode),
        "predicted_per_token_ms": each(decode, steps),
        "predicted_per_second": rate(steps, decode),
    })
}
