//! Chat templates render as transformers renders them. tests/golden/chat/make_chats.py makes the vectors.

use std::path::Path;

use serde_json::Value as Json;
use vaquita_runtime::session::chat::{ChatOptions, ChatTemplate, Message};

/// Templates that models are published with.
const PUBLISHED: usize = 12;

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

/// `tests/golden/chat/make_calls.py` makes the vectors.
#[test]
fn calls_render_as_transformers_renders_them() {
    let golden = |name: &str| -> Json {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/chat").join(name);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let (templates, cases) = (golden("chats.json")["templates"].clone(), golden("calls.json"));
    let options = ChatOptions {
        add_generation_prompt: true,
        bos: "<bos>",
        eos: "<eos>",
        ..ChatOptions::default()
    };
    let mut compared = 0;
    for case in cases.as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let source = templates[name].as_str().unwrap();
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let text = ChatTemplate::new(source).unwrap().render(&messages, &options).unwrap();
        // Of an empty text beside calls these templates lose the calls; here it is none, and they are kept.
        let kept = source.contains("content'] is none") && messages[1].content.is_empty();
        if kept && !messages[1].content_is_null {
            assert!(text.contains("get_weather"), "{name}: {text}");
            continue;
        }
        assert_eq!(text, case["text"].as_str().unwrap(), "{name}: {}", case["messages"][1]);
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}
