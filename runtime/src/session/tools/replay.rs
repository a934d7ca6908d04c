//! Exact replay: inserts the text that a model wrote for an answer with calls unchanged into later
//! prompts.
//!
//! Clients send calls back in forms of their own, with a different order of keys, white space or
//! number format. A template would render them differently, and everything that follows would have
//! to be read again. [`Replay`] stores answers by the identifiers of their calls and restores their
//! text where a message still has the same content.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stream::Call;
use crate::session::chat::Message;

/// Maximum number of answers stored; the oldest are removed first.
pub const MAX_ANSWERS: usize = 100_000;
/// Maximum total size of the stored answers in bytes.
pub const MAX_BYTES: usize = 64 << 20;
/// Placeholder for an answer during the rendering of a conversation: noncharacters for internal
/// use, which do not survive in a client's text.
const HOLE: &str = "\u{FDD1}\u{FDD2}";

/// An answer as the model wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    /// The whole answer except the reasoning.
    raw: String,
    /// The text outside of calls.
    text: String,
    /// Identifiers, names and arguments.
    calls: Vec<(String, String, String)>,
}

impl Written {
    /// Whether a message from a client has the same content.
    fn is_said_by(&self, message: &Message) -> bool {
        let calls =
            message.tool_calls.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let same = |((id, name, arguments), call): (&(String, String, String), &Value)| {
            let function = &call["function"];
            let sent = match &function["arguments"] {
                Value::String(text) => serde_json::from_str(text).ok(),
                other => Some(other.clone()),
            };
            call["id"] == *id
                && function["name"] == *name
                && sent == serde_json::from_str::<Value>(arguments).ok()
        };
        message.role == "assistant"
            && message.content.trim() == self.text.trim()
            && calls.len() == self.calls.len()
            && self.calls.iter().zip(calls).all(same)
    }
}

/// Stores answers with calls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Replay {
    /// Answers by the identifier of their first call.
    answers: HashMap<String, Written>,
    order: VecDeque<String>,
    bytes: usize,
}

impl Replay {
    /// Stores an answer: its text, its calls, and `raw`, which contains both as the model wrote
    /// them. Answers without calls or with an incomplete call are not stored: templates render text
    /// unchanged.
    pub fn remember(&mut self, text: &str, calls: &[Call], raw: &str) {
        let Some(first) = calls.first().filter(|_| calls.iter().all(|call| call.complete)) else {
            return;
        };
        let of = |call: &Call| (call.id.clone(), call.name.clone(), call.arguments.clone());
        let all = calls.iter().map(of).collect();
        let written = Written { raw: raw.into(), text: text.into(), calls: all };
        self.bytes += written.raw.len();
        if let Some(old) = self.answers.insert(first.id.clone(), written) {
            self.bytes -= old.raw.len();
        } else {
            self.order.push_back(first.id.clone());
        }
        while self.order.len() > MAX_ANSWERS || self.bytes > MAX_BYTES {
            let Some(id) = self.order.pop_front() else { break };
            self.bytes -= self.answers.remove(&id).map_or(0, |written| written.raw.len());
        }
    }

    /// Number of stored answers.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether no answers are stored.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    fn find(&self, message: &Message) -> Option<&Written> {
        let id = message.tool_calls.as_ref()?.get(0)?.get("id")?.as_str()?;
        self.answers.get(id).filter(|written| written.is_said_by(message))
    }

    /// Renders a conversation with `render`, and inserts stored answers as the model wrote them.
    ///
    /// The conversation is rendered twice: unchanged, and with placeholders as the texts of these
    /// answers. If both renderings agree outside the placeholders, the placeholders are filled;
    /// otherwise, for example if a template frames calls differently from text, the first rendering
    /// is used.
    pub fn render<E>(
        &self,
        messages: &[Message],
        mut render: impl FnMut(&[Message]) -> Result<String, E>,
    ) -> Result<String, E> {
        let plain = render(messages)?;
        let mut holes = messages.to_vec();
        let mut texts = Vec::new();
        for message in &mut holes {
            if let Some(written) = self.find(message) {
                (message.content, message.tool_calls) = (HOLE.into(), None);
                texts.push(written.raw.as_str());
            }
        }
        if texts.is_empty() || plain.contains(HOLE) {
            return Ok(plain);
        }
        Ok(render(&holes).ok().and_then(|text| fill(&plain, &text, &texts)).unwrap_or(plain))
    }
}

/// Fills the placeholders in `holed`, if it agrees with `plain` around them.
fn fill(plain: &str, holed: &str, texts: &[&str]) -> Option<String> {
    let around: Vec<&str> = holed.split(HOLE).collect();
    if around.len() != texts.len() + 1 {
        return None;
    }
    let mut rest = plain.strip_prefix(around[0])?;
    let mut filled = around[0].to_string();
    let last = around.len() - 1;
    for (at, (text, after)) in texts.iter().zip(&around[1..]).enumerate() {
        rest = match at + 1 == last {
            true => rest.strip_suffix(after).map(|_| "")?,
            false => rest.split_once(after)?.1,
        };
        filled.extend([*text, *after]);
    }
    Some(filled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::session::chat::{ChatOptions, ChatTemplate};

    const HERMES: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls %}{% if m.content %}\n{% endif %}<tool_call>\n{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}";
    const RAW: &str =
        "Well.\n<tool_call>\n{\"name\":\"f\",\"arguments\":{\"b\":1.0,\"a\":\"x\"}}\n</tool_call>";

    fn remembered() -> Replay {
        let mut parser =
            super::super::ToolParser::of_text(super::super::Format::Hermes, Default::default());
        let mut answer = super::super::Answer::default();
        parser.push(RAW).iter().for_each(|event| answer.apply(event));
        answer.calls[0].id = "call_1".into();
        let mut replay = Replay::default();
        replay.remember(&answer.text, &answer.calls, RAW);
        replay
    }

    fn conversation(arguments: Value) -> [Message; 3] {
        let calls = json!([{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}]);
        let mut call = Message::new("assistant", "Well.");
        call.tool_calls = Some(calls);
        [Message::new("user", "Hi"), call, Message::new("tool", "42")]
    }

    fn render(replay: &Replay, template: &str, messages: &[Message]) -> String {
        let template = ChatTemplate::new(template).unwrap();
        replay
            .render(messages, |messages| template.render(messages, &ChatOptions::default()))
            .unwrap()
    }

    #[test]
    fn a_call_that_comes_back_in_another_form_is_what_the_model_wrote() {
        let expected = format!(
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{RAW}<|im_end|>\n<|im_start|>tool\n42<|im_end|>\n"
        );
        for arguments in [json!("{\"a\": \"x\", \"b\": 1.0}"), json!({"b": 1.0, "a": "x"})] {
            assert_eq!(render(&remembered(), HERMES, &conversation(arguments)), expected);
        }
    }

    #[test]
    fn a_call_that_was_changed_is_rendered() {
        let changed = conversation(json!({"b": 2.0, "a": "x"}));
        let plain = render(&Replay::default(), HERMES, &changed);
        assert_eq!(render(&remembered(), HERMES, &changed), plain);
        assert!(plain.contains("2.0"));
    }

    #[test]
    fn a_template_that_frames_calls_otherwise_is_left_alone() {
        let other = "{% for m in messages %}{% if m.tool_calls %}CALL {{ m.content }} {{ m.tool_calls | tojson }}{% else %}TEXT {{ m.content }}{% endif %}\n{% endfor %}";
        let messages = conversation(json!({"b": 1.0, "a": "x"}));
        assert_eq!(
            render(&remembered(), other, &messages),
            render(&Replay::default(), other, &messages)
        );
    }

    #[test]
    fn the_oldest_answers_are_forgotten() {
        let mut replay = Replay::default();
        for i in 0..200 {
            let call = Call {
                id: format!("call_{i}"),
                name: "f".into(),
                arguments: "{}".into(),
                complete: true,
            };
            replay.remember("", &[call], &"x".repeat(1 << 20));
        }
        assert_eq!(replay.len(), 64);
        assert!(replay.answers.contains_key("call_199") && !replay.answers.contains_key("call_0"));
        let back: Replay = serde_json::from_str(&serde_json::to_string(&replay).unwrap()).unwrap();
        assert_eq!(back.answers, replay.answers);
    }
}
