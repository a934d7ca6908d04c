//! A streamed answer in llama.cpp's own form.

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::{Asked, probability};
use crate::answering::{Clock, Piece, Progress};
use crate::error::ApiError;
use crate::http::sse::{Protocol, data, queued};
use crate::served::Served;

/// Events of completions.
pub(super) struct Events {
    pub model: Arc<Served>,
    pub asked: Asked,
    /// Whether to send the progress of the prompt.
    pub progress: bool,
    /// Whether to send timings with every event.
    pub each: bool,
    pub choices: Vec<Choice>,
}

/// What was sent of an answer.
#[derive(Default)]
pub(super) struct Choice {
    clock: Clock,
    prompt_tokens: usize,
    /// Tokens whose text has not been sent, with their log probabilities.
    pending: Vec<(u32, Option<Value>)>,
}

impl Events {
    fn event(&self, index: usize, content: &str, tokens: &[u32]) -> Value {
        let choice = &self.choices[index];
        let mut json = json!({
            "index": index,
            "content": content,
            "tokens": tokens,
            "stop": false,
            "tokens_predicted": choice.clock.tokens(),
            "tokens_evaluated": choice.prompt_tokens,
        });
        if self.each {
            json["timings"] = choice.clock.timings();
        }
        json
    }

    fn progress(&mut self, index: usize, progress: Progress, out: &mut String) {
        let choice = &mut self.choices[index];
        choice.clock.progress(progress);
        choice.prompt_tokens = progress.total;
        if self.progress {
            let mut event = self.event(index, "", &[]);
            event["prompt_progress"] = progress.to_json();
            data(out, &event);
        }
    }

    /// Sends text with the tokens that it came from. Tokens with log probabilities get an event
    /// each, the last of which has the text.
    fn text(&mut self, index: usize, text: &str, out: &mut String) {
        let mut pending = std::mem::take(&mut self.choices[index].pending);
        let last = match pending.iter().any(|(_, logprob)| logprob.is_some()) {
            true => pending.split_off(pending.len().saturating_sub(1)),
            false => std::mem::take(&mut pending),
        };
        for token in pending {
            self.tokens(index, "", &[token], out);
        }
        if !text.is_empty() || !last.is_empty() {
            self.tokens(index, text, &last, out);
        }
    }

    fn tokens(&self, index: usize, text: &str, tokens: &[(u32, Option<Value>)], out: &mut String) {
        let ids: Vec<u32> = tokens.iter().map(|(token, _)| *token).collect();
        let mut event = self.event(index, text, &ids);
        let logprobs: Vec<&Value> =
            tokens.iter().filter_map(|(_, logprob)| logprob.as_ref()).collect();
        if !logprobs.is_empty() {
            event["completion_probabilities"] = json!(logprobs);
        }
        data(out, &event);
    }
}

impl Protocol for Events {
    fn piece(&mut self, index: usize, piece: Piece, out: &mut String) {
        match piece {
            Piece::Queued { ahead, wait } => queued(out, ahead, wait),
            Piece::Prompt(progress) => self.progress(index, progress, out),
            Piece::Token(token) => {
                let choice = &mut self.choices[index];
                choice.clock.token();
                choice.pending.push((token, None));
            }
            Piece::Logprobs(at) => {
                let json = probability(&self.model, &at, self.asked.settings.odds);
                if let Some((_, logprob)) = self.choices[index].pending.last_mut() {
                    *logprob = Some(json);
                }
            }
            Piece::Text(text) | Piece::Reasoning(text) => self.text(index, &text, out),
            Piece::Call(_) => {}
            Piece::Done(outcome) => {
                self.text(index, "", out);
                data(out, &self.asked.answer(&self.model, index, &outcome));
            }
        }
    }

    /// llama.cpp's own form has no mark at the end.
    fn end(&mut self, _out: &mut String) {}

    fn error(&mut self, error: &ApiError, out: &mut String) {
        data(out, &error.to_json());
    }
}
