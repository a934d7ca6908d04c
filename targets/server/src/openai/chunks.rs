//! A streamed answer in OpenAI's form.

use serde_json::{Value, json};
use vaquita_runtime::session::tools::ToolEvent;

use super::answer::{Envelope, close, usage};
use crate::answering::{Clock, Outcome, Piece};
use crate::error::ApiError;
use crate::http::sse::{Protocol, data, queued};

/// Chunks of chat completions.
pub(crate) struct Chunks {
    envelope: Envelope,
    include_usage: bool,
    /// Whether to send the progress of the prompt.
    progress: bool,
    /// Whether to send timings with every chunk.
    each: bool,
    logprobs: bool,
    choices: Vec<Choice>,
    outcomes: Vec<Outcome>,
}

/// What was sent of a choice.
#[derive(Default)]
struct Choice {
    begun: bool,
    /// Log probabilities whose text has not been sent.
    logprobs: Vec<Value>,
    clock: Clock,
}

impl Chunks {
    /// A stream of `choices` answers.
    pub fn new(
        envelope: Envelope,
        choices: usize,
        include_usage: bool,
        progress: bool,
        each: bool,
        logprobs: bool,
    ) -> Self {
        let choices = (0..choices).map(|_| Choice::default()).collect();
        let outcomes = Vec::new();
        Self { envelope, include_usage, progress, each, logprobs, choices, outcomes }
    }

    fn chunk(&self, choices: Value) -> Value {
        let mut chunk = self.envelope.wrap("chat.completion.chunk", choices);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn delta(&mut self, index: usize, delta: Value, finish: Option<&str>, out: &mut String) {
        let choice = &mut self.choices[index];
        let first = !std::mem::replace(&mut choice.begun, true);
        let logprobs = match std::mem::take(&mut choice.logprobs) {
            list if list.is_empty() => Value::Null,
            list => json!({"content": list, "refusal": null}),
        };
        let timings = self.each.then(|| choice.clock.timings());
        if first {
            let role = json!([{
                "index": index,
                "delta": {"role": "assistant", "content": null},
                "logprobs": null,
                "finish_reason": null,
            }]);
            data(out, &self.chunk(role));
        }
        let mut chunk = self.chunk(json!([{
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish,
        }]));
        if let Some(timings) = timings {
            chunk["timings"] = timings;
        }
        if finish.is_some() && !self.include_usage && self.outcomes.len() == self.choices.len() {
            close(&mut chunk, &self.envelope, &self.outcomes);
        }
        data(out, &chunk);
    }

    fn call(&mut self, choice: usize, event: ToolEvent, out: &mut String) {
        let call = match event {
            ToolEvent::Begin { index, id, name } => json!({
                "index": index,
                "id": id,
                "type": "function",
                "function": {"name": name, "arguments": ""},
            }),
            ToolEvent::Arguments { index, json } if !json.is_empty() => {
                json!({"index": index, "function": {"arguments": json}})
            }
            // What was sent of a call that turns out to be none cannot be taken back.
            _ => return,
        };
        self.delta(choice, json!({"tool_calls": [call]}), None, out);
    }
}

impl Protocol for Chunks {
    fn piece(&mut self, choice: usize, piece: Piece, out: &mut String) {
        match piece {
            Piece::Queued { ahead, wait } => queued(out, ahead, wait),
            Piece::Prompt(progress) => {
                self.choices[choice].clock.progress(progress);
                if self.progress && choice == 0 {
                    let mut chunk = self.chunk(json!([]));
                    chunk["prompt_progress"] = progress.to_json();
                    data(out, &chunk);
                }
            }
            Piece::Token(_) => self.choices[choice].clock.token(),
            Piece::Logprobs(at) => {
                if self.logprobs {
                    let json = self.envelope.logprob(&at);
                    self.choices[choice].logprobs.push(json);
                }
            }
            Piece::Reasoning(text) if text.is_empty() => {}
            Piece::Reasoning(text) => {
                self.delta(choice, json!({"reasoning_content": text}), None, out);
            }
            Piece::Text(text) if text.is_empty() => {}
            Piece::Text(text) => self.delta(choice, json!({"content": text}), None, out),
            Piece::Call(event) => self.call(choice, event, out),
            Piece::Done(outcome) => {
                let reason = outcome.finish_reason();
                self.outcomes.push(*outcome);
                self.delta(choice, json!({}), Some(reason), out);
            }
        }
    }

    fn end(&mut self, out: &mut String) {
        if self.include_usage {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = usage(&self.outcomes);
            close(&mut chunk, &self.envelope, &self.outcomes);
            data(out, &chunk);
        }
        out.push_str("data: [DONE]\n\n");
    }

    fn error(&mut self, error: &ApiError, out: &mut String) {
        data(out, &error.to_json());
    }
}
