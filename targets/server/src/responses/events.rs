//! A streamed answer in the form of Responses.

use serde_json::{Value, json};

use super::answer::{self, Asked, begun, item, item_id, part};
use crate::answering::{Outcome, Piece};
use crate::blocks::{Block, Blocks, Change, Kind};
use crate::error::ApiError;
use crate::http::sse::{Protocol, event, queued};
use crate::openai::answer::Envelope;

/// The events of a response.
pub(super) struct Events {
    envelope: Envelope,
    asked: Asked,
    blocks: Blocks,
    /// Identifier of the open item.
    id: String,
    output: Vec<Value>,
    sent: u64,
}

impl Events {
    /// A stream.
    pub fn new(envelope: Envelope, asked: Asked) -> Self {
        let (blocks, id, output) = (Blocks::default(), String::new(), Vec::new());
        Self { envelope, asked, blocks, id, output, sent: 0 }
    }

    fn send(&mut self, name: &str, mut json: Value, out: &mut String) {
        json["type"] = name.into();
        json["sequence_number"] = self.sent.into();
        self.sent += 1;
        event(out, name, &json);
    }

    fn write(&mut self, changes: Vec<Change>, status: &str, out: &mut String) {
        for change in changes {
            match change {
                Change::Open { index, kind } => self.open(index, kind, out),
                Change::Delta { index, kind, text } => {
                    let json = json!({"output_index": index, "item_id": self.id, "delta": text});
                    self.of_part(&kind, "delta", json, out);
                }
                Change::Close { index, block } => self.close(index, &block, status, out),
            }
        }
    }

    fn open(&mut self, index: usize, kind: Kind, out: &mut String) {
        self.id = item_id(&kind);
        let empty = Block { kind: kind.clone(), text: String::new() };
        let item = item(&self.id, &empty, "in_progress");
        self.send("response.output_item.added", json!({"output_index": index, "item": item}), out);
        if !matches!(kind, Kind::Call { .. }) {
            let json = json!({
                "output_index": index, "item_id": self.id, "content_index": 0, "part": part(&kind, ""),
            });
            self.send("response.content_part.added", json, out);
        }
    }

    fn close(&mut self, index: usize, block: &Block, status: &str, out: &mut String) {
        let json = |member: &str| {
            let mut json = json!({"output_index": index, "item_id": self.id});
            json[member] = block.text.as_str().into();
            json
        };
        if let Kind::Call { name, .. } = &block.kind {
            let mut json = json("arguments");
            json["name"] = name.as_str().into();
            self.of_part(&block.kind, "done", json, out);
        } else {
            let json = json("text");
            self.of_part(&block.kind, "done", json, out);
            let json = json!({
                "output_index": index, "item_id": self.id, "content_index": 0,
                "part": part(&block.kind, &block.text),
            });
            self.send("response.content_part.done", json, out);
        }
        let item = item(&self.id, block, status);
        self.output.push(item.clone());
        self.send("response.output_item.done", json!({"output_index": index, "item": item}), out);
    }

    /// An event about the content of an item.
    fn of_part(&mut self, kind: &Kind, event: &str, mut json: Value, out: &mut String) {
        let name = match kind {
            Kind::Reasoning => "reasoning_text",
            Kind::Text => "output_text",
            Kind::Call { .. } => "function_call_arguments",
        };
        if !matches!(kind, Kind::Call { .. }) {
            json["content_index"] = 0.into();
        }
        if *kind == Kind::Text {
            json["logprobs"] = json!([]);
        }
        self.send(&format!("response.{name}.{event}"), json, out);
    }

    fn done(&mut self, outcome: &Outcome, out: &mut String) {
        let mut response = begun(&self.envelope, &self.asked);
        let complete = answer::end(&mut response, outcome);
        let status = if complete { "completed" } else { "incomplete" };
        let changes = self.blocks.close();
        self.write(changes, status, out);
        response["output"] = std::mem::take(&mut self.output).into();
        self.send(&format!("response.{status}"), json!({ "response": response }), out);
    }
}

impl Protocol for Events {
    fn begin(&mut self, out: &mut String) {
        for name in ["response.created", "response.in_progress"] {
            let response = begun(&self.envelope, &self.asked);
            self.send(name, json!({ "response": response }), out);
        }
    }

    fn piece(&mut self, _choice: usize, piece: Piece, out: &mut String) {
        let changes = self.blocks.push(&piece);
        self.write(changes, "completed", out);
        match piece {
            Piece::Queued { ahead, wait } => queued(out, ahead, wait),
            Piece::Done(outcome) => self.done(&outcome, out),
            _ => {}
        }
    }

    fn end(&mut self, _out: &mut String) {}

    fn error(&mut self, error: &ApiError, out: &mut String) {
        let mut response = begun(&self.envelope, &self.asked);
        response["status"] = "failed".into();
        response["error"] = json!({"code": "server_error", "message": error.message});
        self.send("response.failed", json!({ "response": response }), out);
    }
}
