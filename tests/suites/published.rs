//! Calls as the chat templates write them that models are published with.

use std::path::Path;

use serde_json::{Value, json};
use vaquita_runtime::session::chat::{ChatOptions, ChatTemplate, Message};
use vaquita_runtime::session::tools::Format;
use vaquita_tests::calls::Meant;

/// A template of `tests/golden/chat/chats.json` that writes calls.
pub struct Published {
    /// Name of the model.
    pub name: String,
    /// Format of its calls.
    pub format: Format,
    template: ChatTemplate,
}

impl Published {
    /// All templates that write calls.
    pub fn all() -> Vec<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/chat/chats.json");
        let golden = std::fs::read(path).expect("chats.json is there");
        let golden: Value = serde_json::from_slice(&golden).expect("it is JSON");
        let names = golden["origins"].as_object().expect("origins").keys();
        let template = |name: &String| {
            let source = golden["templates"][name].as_str().expect("a template");
            let template = ChatTemplate::new(source).expect("it compiles");
            Self { name: name.clone(), format: Format::of_template(source), template }
        };
        names.map(template).filter(|one| one.format != Format::Generic).collect()
    }

    /// The text after the prompt with which a model makes `calls`; `None` if the template refuses them, or writes the first
    /// alone.
    pub fn render(&self, calls: &[Meant]) -> Option<String> {
        let call = |(number, call): (usize, &Meant)| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": format!("call{number:05}"), "type": "function", "function": function})
        };
        let calls: Value = calls.iter().enumerate().map(call).collect();
        let asked = Message::new("user", "Please.");
        let answer = |calls| Message { tool_calls: Some(calls), ..Message::new("assistant", "") };
        let render = |messages: &[Message], add_generation_prompt| {
            let (bos, eos, now) = ("<bos>", "<eos>", Some(0));
            let options =
                ChatOptions { add_generation_prompt, bos, eos, now, ..ChatOptions::default() };
            self.template.render(messages, &options).ok()
        };
        let prompt = render(std::slice::from_ref(&asked), true)?;
        let whole = render(&[asked.clone(), answer(calls.clone())], false)?;
        let first = Value::from(vec![calls[0].clone()]);
        if first != calls && render(&[asked, answer(first)], false)? == whole {
            return None;
        }
        let same = prompt.chars().zip(whole.chars()).take_while(|(a, b)| a == b);
        let common: usize = same.map(|(c, _)| c.len_utf8()).sum();
        // Where the prompt opens reasoning that the conversation leaves out, two tags may begin alike.
        let tag = whole[..common].rfind('<').filter(|&at| !whole[at..common].contains('>'));
        let written = &whole[tag.unwrap_or(common)..];
        let after_reasoning = written.rsplit_once("</think>").map_or(written, |(_, text)| text);
        Some(after_reasoning.into())
    }
}
