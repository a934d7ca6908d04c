//! A whole answer in the form of Responses.

use serde_json::{Value, json};
use vaquita_runtime::session::generate::{GenerationOptions, StopReason};

use crate::answering::Outcome;
use crate::blocks::{self, Block, Kind};
use crate::http::record::random;
use crate::openai::answer::Envelope;

/// What a response repeats of its request.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub instructions: Option<String>,
    pub tools: Value,
    pub tool_choice: Value,
    pub parallel: bool,
    pub format: Option<Value>,
    pub effort: Option<String>,
    pub metadata: Value,
    pub temperature: f32,
    pub top_p: f32,
    pub max_tokens: Option<usize>,
}

impl Asked {
    /// Sets what the options say.
    pub fn set(&mut self, options: &GenerationOptions) {
        self.temperature = options.sampling.temperature;
        self.top_p = options.sampling.top_p;
        self.max_tokens = options.max_tokens;
    }
}

/// A new identifier for an item of the output.
pub(super) fn item_id(kind: &Kind) -> String {
    random(match kind {
        Kind::Reasoning => "rs_",
        Kind::Text => "msg_",
        Kind::Call { .. } => "fc_",
    })
}

/// The part of a message or of reasoning.
pub(super) fn part(kind: &Kind, text: &str) -> Value {
    match kind {
        Kind::Reasoning => json!({"type": "reasoning_text", "text": text}),
        _ => json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}),
    }
}

/// An item of the output.
pub(super) fn item(id: &str, Block { kind, text }: &Block, status: &str) -> Value {
    let content = match text.is_empty() {
        true => json!([]),
        false => json!([part(kind, text)]),
    };
    match kind {
        Kind::Reasoning => json!({
            "id": id, "type": "reasoning", "summary": [], "content": content, "status": status,
        }),
        Kind::Text => json!({
            "id": id, "type": "message", "role": "assistant", "content": content, "status": status,
        }),
        Kind::Call { id: call, name } => json!({
            "id": id, "type": "function_call", "call_id": call, "name": name, "arguments": text,
            "status": status,
        }),
    }
}

/// A response without output.
pub(super) fn begun(envelope: &Envelope, asked: &Asked) -> Value {
    json!({
        "id": envelope.id,
        "object": "response",
        "created_at": envelope.created,
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_tokens,
        "model": envelope.model.info.id,
        "output": [],
        "parallel_tool_calls": asked.parallel,
        "previous_response_id": null,
        "reasoning": {"effort": asked.effort, "summary": null},
        "store": false,
        "temperature": asked.temperature,
        "text": {"format": asked.format.clone().unwrap_or_else(|| json!({"type": "text"}))},
        "tool_choice": asked.tool_choice,
        "tools": asked.tools,
        "top_p": asked.top_p,
        "truncation": "disabled",
        "usage": null,
        "metadata": asked.metadata,
    })
}

/// Adds the end of an answer to a response, and returns whether it is complete.
pub(super) fn end(response: &mut Value, outcome: &Outcome) -> bool {
    let generation = &outcome.generation;
    let complete = !matches!(generation.stop, StopReason::Length | StopReason::ContextFull);
    response["status"] = if complete { "completed" } else { "incomplete" }.into();
    if !complete {
        response["incomplete_details"] = json!({"reason": "max_output_tokens"});
    }
    let output = generation.tokens.len();
    response["usage"] = json!({
        "input_tokens": generation.prompt_tokens,
        "input_tokens_details": {"cached_tokens": generation.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": outcome.reasoning_tokens},
        "total_tokens": generation.prompt_tokens + output,
    });
    response["timings"] = outcome.timings.clone();
    if !outcome.warnings.is_empty() {
        response["warnings"] = json!(outcome.warnings);
    }
    complete
}

/// The response to a request that is not streamed.
pub(super) fn whole(envelope: &Envelope, asked: &Asked, outcomes: &[Outcome]) -> Value {
    let mut response = begun(envelope, asked);
    let Some(outcome) = outcomes.first() else { return response };
    let complete = end(&mut response, outcome);
    let blocks = blocks::of(outcome);
    let last = blocks.len();
    let items = blocks.iter().enumerate().map(|(at, block)| {
        let whole = complete || at + 1 < last;
        item(&item_id(&block.kind), block, if whole { "completed" } else { "incomplete" })
    });
    response["output"] = items.collect();
    response
}
