//! A streamed completion of texts in OpenAI's form.

use serde_json::{Value, json};

use super::answer::{Envelope, close, usage};
use super::completions::{Echo, LogprobList};
use crate::answering::{Outcome, Piece};
use crate::error::ApiError;
use crate::http::sse::{Protocol, data, queued};

/// Chunks of text completions.
pub(crate) struct TextChunks {
    envelope: Envelope,
    include_usage: bool,
    has_logprobs: bool,
    echoes: Vec<Option<Echo>>,
    lists: Vec<LogprobList>,
    outcomes: Vec<Outcome>,
}

impl TextChunks {
    /// A stream of as many answers as there are echoes.
    pub fn new(
        envelope: Envelope,
        echoes: Vec<Echo>,
        include_usage: bool,
        has_logprobs: bool,
    ) -> Self {
        let lists = echoes.iter().map(|echo| LogprobList::new(&echo.logprobs, &envelope)).collect();
        let echoes = echoes.into_iter().map(Some).collect();
        Self { envelope, include_usage, has_logprobs, echoes, lists, outcomes: Vec::new() }
    }

    fn chunk(&self, choices: Value) -> Value {
        let mut chunk = self.envelope.wrap("text_completion", choices);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn text(&mut self, index: usize, text: &str, finish: Option<&str>, out: &mut String) {
        let echo = self.echoes[index].take().map_or(String::new(), |echo| echo.text);
        let logprobs = self.lists[index].json();
        let chunk = self.chunk(json!([{
            "index": index,
            "text": echo + text,
            "logprobs": logprobs,
            "finish_reason": finish,
        }]));
        data(out, &chunk);
    }
}

impl Protocol for TextChunks {
    fn piece(&mut self, choice: usize, piece: Piece, out: &mut String) {
        match piece {
            Piece::Queued { ahead, wait } => queued(out, ahead, wait),
            Piece::Logprobs(at) if self.has_logprobs => {
                self.lists[choice].push(at.picked.token, Some(&at), &self.envelope);
            }
            Piece::Text(text) | Piece::Reasoning(text) if !text.is_empty() => {
                self.text(choice, &text, None, out);
            }
            Piece::Done(outcome) => {
                let reason = outcome.finish_reason();
                self.outcomes.push(*outcome);
                self.text(choice, "", Some(reason), out);
            }
            _ => {}
        }
    }

    fn end(&mut self, out: &mut String) {
        let mut chunk = self.chunk(json!([]));
        if self.include_usage {
            chunk["usage"] = usage(&self.outcomes);
        }
        close(&mut chunk, &self.envelope, &self.outcomes);
        if self.include_usage {
            data(out, &chunk);
        }
        out.push_str("data: [DONE]\n\n");
    }

    fn error(&mut self, error: &ApiError, out: &mut String) {
        data(out, &error.to_json());
    }
}
