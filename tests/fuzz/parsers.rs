//! Inputs that are parsed from memory.

use std::path::Path;

use serde_json::json;
use vaquita_runtime::app::judge;
use vaquita_runtime::bytes::Bytes;
use vaquita_runtime::checkpoint::families::config_from_hf;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::experts::ExpertIndex;
use vaquita_runtime::gguf::Gguf;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::opening::budget::{Footprint, Workload};
use vaquita_runtime::session::chat::{ChatOptions, ChatTemplate, Message};
use vaquita_runtime::session::reasoning::ReasoningSplitter;
use vaquita_runtime::session::tools::offer::Tools;
use vaquita_runtime::session::tools::{Format, ToolParser};
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_runtime::trace::Trace;

/// A text with words, numbers, white space, and characters of several bytes.
const TEXT: &str = "Hello, wörld!  1234 <|im_end|>\n\t\u{4f60}\u{597d} \u{1f40b} it's";

fn path() -> &'static Path {
    Path::new("input")
}

/// A model file: its header, its configuration, its tensors and its tokenizer.
pub fn gguf(bytes: &[u8]) {
    let Ok(gguf) = Gguf::parse(Bytes::from(bytes.to_vec()), path()) else { return };
    for info in gguf.tensors() {
        assert_eq!(gguf.bytes(info).len() as u64, info.len);
    }
    let Ok(weights) = GgufWeights::new(gguf, Verify::Always) else { return };
    let workload = Workload { context: 64, prefill_chunk: 16, cache: CacheType::F16, sessions: 1 };
    if let Ok(index) = ExpertIndex::find(&weights) {
        let _ = Footprint::of(&weights, &index, &workload, 0);
    }
    let _ = judge(&weights, Tokenizer::from_metadata(weights.gguf().metadata()));
}

/// A `config.json`.
pub fn config(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice(bytes) else { return };
    let Ok(config) = config_from_hf(&json) else { return };
    let _ = config.family.tensors(&config).len();
}

fn encode(tokenizer: &Tokenizer) {
    for special in [false, true] {
        if let Ok(ids) = tokenizer.encode_within(TEXT, special, 1000) {
            let _ = tokenizer.decode(&ids);
        }
    }
}

/// A `tokenizer.json`.
pub fn tokenizer(bytes: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_json(bytes) {
        encode(&tokenizer);
    }
}

/// The metadata of a GGUF file, for its tokenizer.
pub fn tokenizer_keys(bytes: &[u8]) {
    let Ok(metadata) = Gguf::parse_metadata(bytes, path()) else { return };
    if let Ok(tokenizer) = Tokenizer::from_metadata(&metadata) {
        encode(&tokenizer);
    }
}

/// A chat template.
pub fn template(bytes: &[u8]) {
    let Ok(template) = ChatTemplate::new(String::from_utf8_lossy(bytes)) else { return };
    let calls = json!([{"function": {"name": "f", "arguments": {"a": [1, "b"]}}}]);
    let messages = [
        Message::new("system", "Be brief."),
        Message::new("user", TEXT),
        Message { tool_calls: Some(calls), ..Message::new("assistant", "<think>\nx\n</think>") },
        Message::new("tool", "{\"a\": 1}"),
    ];
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let options = ChatOptions {
        add_generation_prompt: true,
        bos: "<s>",
        eos: "</s>",
        tools: Some(&tools),
        now: Some(1_700_000_000),
        ..ChatOptions::default()
    };
    let _ = template.render(&messages, &options);
}

/// A routing trace.
pub fn trace(bytes: &[u8]) {
    if let Ok(trace) = Trace::parse(&String::from_utf8_lossy(bytes), path()) {
        let _ = trace.decoded_tokens();
    }
}

/// Cuts a text at places that its own bytes determine, as tokens would.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.bytes().next()?;
        let len = rest.ceil_char_boundary(1 + usize::from(first % 7)).min(rest.len());
        let (piece, after) = rest.split_at(len);
        rest = after;
        Some(piece)
    })
}

/// What a model wrote, with calls in it: the first byte selects the format.
pub fn tools(bytes: &[u8]) {
    let Some((first, text)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let offer = json!([{"type": "function", "function": {"name": "f", "parameters": schema}}]);
    let Ok(offer) = Tools::from_json(&offer) else { return };
    let format = Format::ALL[usize::from(*first) % Format::ALL.len()];
    let mut parser = ToolParser::of_text(format, offer);
    for piece in pieces(&text) {
        let _ = parser.push(piece);
    }
    let _ = parser.finish();
}

/// What a model wrote, with its thoughts. Nothing of it may be lost but markers and white space.
pub fn reasoning(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for open in [false, true] {
        let mut parser = ReasoningSplitter::new(open);
        let mut written = 0;
        for piece in pieces(&text) {
            written += parser.push(piece).len();
        }
        let _ = (parser.flush(), written);
    }
}
