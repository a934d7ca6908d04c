//! An answer in Anthropic's form, whole and streamed.

use serde_json::{Value, json};
use vaquita_runtime::session::generate::StopReason;

use crate::answering::{Outcome, Piece, Progress};
use crate::blocks::{self, Block, Blocks, Change, Kind};
use crate::error::{ApiError, Dialect};
use crate::http::sse::{Protocol, event, queued};
use crate::openai::answer::Envelope;

fn stop_reason(outcome: &Outcome) -> &'static str {
    match outcome.generation.stop {
        StopReason::Length | StopReason::ContextFull => "max_tokens",
        _ if !outcome.generation.calls.is_empty() => "tool_use",
        StopReason::StopString => "stop_sequence",
        _ => "end_turn",
    }
}

/// The stop string that ended an answer, if there is no doubt.
fn stop_sequence<'a>(outcome: &Outcome, stops: &'a [String]) -> Option<&'a String> {
    stops.first().filter(|_| outcome.generation.stop == StopReason::StopString && stops.len() == 1)
}

fn usage(prompt: usize, cached: usize, output: usize) -> Value {
    json!({
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
    })
}

fn message(envelope: &Envelope) -> Value {
    json!({
        "id": envelope.id,
        "type": "message",
        "role": "assistant",
        "model": envelope.model.info.id,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
    })
}

/// The response to a request that is not streamed.
pub(super) fn whole(envelope: &Envelope, stops: &[String], outcomes: &[Outcome]) -> Value {
    let mut json = message(envelope);
    let Some(outcome) = outcomes.first() else { return json };
    let block = |Block { kind, text }: Block| match kind {
        Kind::Reasoning => json!({"type": "thinking", "thinking": text, "signature": ""}),
        Kind::Text => json!({"type": "text", "text": text}),
        Kind::Call { id, name } => {
            // A call that was cut short has no whole object.
            let input = serde_json::from_str(&text).unwrap_or_else(|_| json!({}));
            json!({"type": "tool_use", "id": id, "name": name, "input": input})
        }
    };
    json["content"] = blocks::of(outcome).into_iter().map(block).collect();
    json["stop_reason"] = stop_reason(outcome).into();
    json["stop_sequence"] = json!(stop_sequence(outcome, stops));
    let generation = &outcome.generation;
    json["usage"] =
        usage(generation.prompt_tokens, generation.cached_tokens, generation.tokens.len());
    json
}

/// The events of a streamed message.
pub(super) struct Events {
    envelope: Envelope,
    stops: Vec<String>,
    begun: bool,
    blocks: Blocks,
}

impl Events {
    /// A stream.
    pub fn new(envelope: Envelope, stops: Vec<String>) -> Self {
        Self { envelope, stops, begun: false, blocks: Blocks::default() }
    }

    fn begin(&mut self, Progress { total, cached, .. }: Progress, out: &mut String) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let mut message = message(&self.envelope);
        message["usage"] = usage(total, cached, 0);
        event(out, "message_start", &json!({"type": "message_start", "message": message}));
    }

    fn write(&self, changes: Vec<Change>, out: &mut String) {
        for change in changes {
            match change {
                Change::Open { index, kind } => {
                    let block = match &kind {
                        Kind::Reasoning => {
                            json!({"type": "thinking", "thinking": "", "signature": ""})
                        }
                        Kind::Text => json!({"type": "text", "text": ""}),
                        Kind::Call { id, name } => {
                            json!({"type": "tool_use", "id": id, "name": name, "input": {}})
                        }
                    };
                    let json = json!({"type": "content_block_start", "index": index, "content_block": block});
                    event(out, "content_block_start", &json);
                }
                Change::Delta { index, kind, text } => {
                    let delta = match kind {
                        Kind::Reasoning => json!({"type": "thinking_delta", "thinking": text}),
                        Kind::Text => json!({"type": "text_delta", "text": text}),
                        Kind::Call { .. } => {
                            json!({"type": "input_json_delta", "partial_json": text})
                        }
                    };
                    let json =
                        json!({"type": "content_block_delta", "index": index, "delta": delta});
                    event(out, "content_block_delta", &json);
                }
                Change::Close { index, .. } => {
                    let json = json!({"type": "content_block_stop", "index": index});
                    event(out, "content_block_stop", &json);
                }
            }
        }
    }
}

impl Protocol for Events {
    fn piece(&mut self, _choice: usize, piece: Piece, out: &mut String) {
        let changes = self.blocks.push(&piece);
        self.write(changes, out);
        match piece {
            Piece::Queued { ahead, wait } => queued(out, ahead, wait),
            Piece::Prompt(progress) => self.begin(progress, out),
            Piece::Done(outcome) => {
                let changes = self.blocks.close();
                self.write(changes, out);
                let generation = &outcome.generation;
                let usage = usage(
                    generation.prompt_tokens,
                    generation.cached_tokens,
                    generation.tokens.len(),
                );
                let delta = json!({
                    "stop_reason": stop_reason(&outcome),
                    "stop_sequence": stop_sequence(&outcome, &self.stops),
                });
                let json = json!({"type": "message_delta", "delta": delta, "usage": usage});
                event(out, "message_delta", &json);
            }
            _ => {}
        }
    }

    fn end(&mut self, out: &mut String) {
        event(out, "message_stop", &json!({"type": "message_stop"}));
    }

    fn error(&mut self, error: &ApiError, out: &mut String) {
        event(out, "error", &Dialect::Anthropic.error(error));
    }

    fn ping(&mut self, out: &mut String) {
        match self.begun {
            true => event(out, "ping", &json!({"type": "ping"})),
            false => out.push_str(": keep-alive\n\n"),
        }
    }
}
