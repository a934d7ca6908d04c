//! Chat templates render as transformers renders them. tests/golden/chat/make_chats.py makes the vectors.

use std::path::Path;

use serde_json::Value as Json;
use vaquita_runtime::session::chat::{ChatOptions, ChatTemplate, Message};

/// Templates that models are published with.
const PUBLISHED: usize = 9;

#[test]
fn conversations_render_as_transformers_renders_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/chat/chats.json");
    let golden: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(golden["origins"].as_object().unwrap().len(), PUBLISHED);
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), (PUBLISHED + 5) * 8);
    for case in cases {
        let (name, number) = (case["template"].as_str().unwrap(), &case["chat"]);
        let template = ChatTemplate::new(golden["templates"][name].as_str().unwrap()).unwrap();
        let chat = &golden["chats"][number.as_u64().unwrap() as usize];
        let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
        let options = ChatOptions {
            add_generation_prompt: chat["prompt"].as_bool().unwrap_or(true),
            bos: "<bos>",
            eos: "<eos>",
            tools: chat.get("tools"),
            extra: chat["extra"].as_object(),
            now: golden["now"].as_u64(),
        };
        // Where the template refuses the conversation there, it does so here.
        let text = template.render(&messages, &options);
        assert_eq!(text.as_deref().ok(), case["text"].as_str(), "{name}, chat {number}");
    }
}
