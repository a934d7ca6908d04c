//! Chat templates render as transformers renders them. tests/golden/chat/make_chats.py makes the vectors.

use std::path::Path;

use serde_json::Value as Json;
use vaquita_runtime::session::chat::{ChatOptions, ChatTemplate, Message};

#[test]
fn conversations_render_as_transformers_renders_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/chat/chats.json");
    let golden: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let template = ChatTemplate::new(golden["templates"][name].as_str().unwrap()).unwrap();
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let options = ChatOptions {
            add_generation_prompt: case["prompt"].as_bool().unwrap(),
            bos: "<bos>",
            eos: "<eos>",
            tools: Some(&case["tools"]).filter(|tools| !tools.is_null()),
            extra: None,
        };
        let text = template.render(&messages, &options).unwrap();
        assert_eq!(text, case["text"].as_str().unwrap(), "{name}: {messages:?}");
    }
}
