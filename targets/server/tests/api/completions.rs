//! `/v1/completions` and the tools for prompts.

use serde_json::{Value, json};
use vaquita_runtime::session::sampler::logprobs::Logprobs;

use crate::client::{MODEL, SHARED};

fn complete(body: Value) -> Value {
    let response = SHARED.post("/v1/completions", &body);
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

fn tokens(text: &str) -> Vec<u32> {
    let json = SHARED.post("/tokenize", &json!({"content": text})).json();
    serde_json::from_value(json["tokens"].clone()).unwrap()
}

#[test]
fn texts_lists_and_tokens_are_continued_the_same() {
    let text = "1 + 1 =";
    let ask =
        |prompt: Value| complete(json!({"prompt": prompt, "max_tokens": 4, "temperature": 0}));
    let one = ask(json!(text));
    assert_eq!(one["object"], "text_completion");
    assert_eq!(one["usage"]["completion_tokens"], 4);
    let continued = one["choices"][0]["text"].clone();
    let two = ask(json!([text, text]));
    let indices: Vec<&Value> =
        two["choices"].as_array().unwrap().iter().map(|c| &c["index"]).collect();
    assert_eq!(indices, [&json!(0), &json!(1)]);
    assert_eq!((&two["choices"][0]["text"], &two["choices"][1]["text"]), (&continued, &continued));
    let bos = MODEL.prompter().raw(text).unwrap().tokens;
    assert_eq!(ask(json!(bos))["choices"][0]["text"], continued);
    assert_eq!(ask(json!([bos]))["choices"][0]["text"], continued);
}

#[test]
fn an_echo_has_the_log_probabilities_of_the_prompt() {
    let prompt = tokens("723 * 8 = ? 5784 and more of it");
    let json = complete(json!({
        "prompt": [prompt], "echo": true, "logprobs": 2, "max_tokens": 1, "temperature": 0,
    }));
    let logprobs = &json["choices"][0]["logprobs"];
    let found = logprobs["token_logprobs"].as_array().unwrap();
    assert_eq!(found.len(), prompt.len() + 1);
    assert_eq!(found[0], Value::Null);
    let mut session = MODEL.loaded().session();
    let rows = MODEL.loaded().model.config().vocab_size;
    let logits = session.feed_all(&prompt).unwrap();
    for (at, token) in prompt.iter().enumerate().skip(1) {
        let expected = Logprobs::new(&logits[(at - 1) * rows..at * rows], *token, 0).picked.logprob;
        assert_eq!(found[at].as_f64().unwrap() as f32, expected, "token {at}");
        assert_eq!(logprobs["top_logprobs"][at].as_object().unwrap().len(), 2);
    }
    let text = json["choices"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("723 * 8 = ?"), "{text}");
}

#[test]
fn a_stream_of_texts_is_the_text_in_pieces() {
    let body = json!({"prompt": "1 + 1 =", "max_tokens": 6, "temperature": 0});
    let whole = complete(body.clone());
    let mut streamed = body;
    streamed["stream"] = true.into();
    let events = SHARED.post("/v1/completions", &streamed).events();
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, whole["choices"][0]["text"].as_str().unwrap());
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
}

#[test]
fn what_a_model_cannot_do_is_said() {
    let suffix = json!({"prompt": "a", "suffix": "b"});
    assert_eq!(SHARED.post("/v1/completions", &suffix).status, 501);
    let foreign = SHARED.post("/v1/completions", &json!({"prompt": [4_000_000_000u32]}));
    assert_eq!((foreign.status, &foreign.json()["error"]["param"]), (400, &json!("prompt")));
    assert_eq!(SHARED.post("/v1/completions", &json!({"prompt": []})).status, 400);
}

#[test]
fn tokens_and_templates_are_shown() {
    let text = "723 * 8 = ? Grüße";
    let ids = tokens(text);
    let back = SHARED.post("/detokenize", &json!({ "tokens": ids })).json();
    assert_eq!(back["content"], text);
    let pieces = SHARED.post("/tokenize", &json!({"content": text, "with_pieces": true})).json();
    assert_eq!(pieces["tokens"].as_array().unwrap().len(), ids.len());
    let messages = json!([
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "It is"},
    ]);
    let prompt = SHARED.post("/apply-template", &json!({ "messages": messages })).json();
    let prompt = prompt["prompt"].as_str().unwrap().to_string();
    assert!(
        prompt.contains("<｜User｜>2+2?<｜Assistant｜>") && prompt.ends_with("It is"),
        "{prompt}"
    );
    let count = SHARED.post("/v1/chat/completions/input_tokens", &json!({ "messages": messages }));
    assert!(count.json()["input_tokens"].as_u64().unwrap() > 5);
}
