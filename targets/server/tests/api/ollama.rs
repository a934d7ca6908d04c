//! Ollama's API.

use serde_json::{Value, json};

use crate::client::SHARED;

fn chat(more: Value) -> Value {
    let mut body = json!({
        "model": "m", "options": {"temperature": 0},
        "messages": [{"role": "user", "content": "723 * 8 = ?"}],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn a_chat_is_streamed_in_lines_by_default() {
    let response = SHARED.post("/api/chat", &chat(json!({})));
    assert_eq!(response.headers["content-type"], "application/x-ndjson");
    let lines: Vec<Value> =
        response.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let text: String =
        lines.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
    assert_eq!(text, "5784");
    assert!(lines.iter().any(|line| line["message"]["thinking"].is_string()));
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
    assert!(last["eval_count"].as_u64().unwrap() > 10 && last["model"] == "m");
    let whole = SHARED.post("/api/chat", &chat(json!({"stream": false}))).json();
    assert_eq!(whole["message"]["content"], "5784");
}

#[test]
fn schemas_options_and_levels_are_followed() {
    let schema = json!({
        "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
        "additionalProperties": false,
    });
    let held = SHARED.post("/api/chat", &chat(json!({"stream": false, "format": schema}))).json();
    let content = held["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(content).unwrap()["a"].is_i64(), "{content}");
    let options =
        json!({"stream": false, "options": {"temperature": 0, "num_predict": 3, "num_ctx": 16}});
    let short = SHARED.post("/api/chat", &chat(options)).json();
    assert_eq!((&short["done_reason"], &short["eval_count"]), (&json!("length"), &json!(3)));
    let wrong = SHARED.post("/api/chat", &chat(json!({"think": "a lot"})));
    assert_eq!(wrong.status, 400);
    assert!(wrong.json()["error"].is_string());
}

#[test]
fn prompts_are_answered_or_continued() {
    let ask = |more: Value| {
        let mut body = json!({"prompt": "723 * 8 = ?", "stream": false, "options": {"temperature": 0, "num_predict": 200}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        SHARED.post("/api/generate", &body).json()
    };
    assert_eq!(ask(json!({}))["response"], "5784");
    let raw = ask(json!({"raw": true, "options": {"temperature": 0, "num_predict": 4}}));
    assert_eq!(raw["eval_count"], 4);
    assert_eq!(ask(json!({"prompt": ""}))["done_reason"], "load");
}

#[test]
fn the_model_is_described() {
    assert_eq!(SHARED.get("/api/tags").json()["models"][0]["name"], "reference");
    assert_eq!(SHARED.get("/api/ps").json()["models"][0]["model"], "reference");
    let show = SHARED.post("/api/show", &json!({"model": "reference"})).json();
    assert_eq!(show["model_info"]["general.architecture"], "deepseek2");
    assert!(SHARED.get("/api/version").json()["version"].is_string());
    for gone in ["/api/pull", "/api/create", "/api/push"] {
        assert_eq!(SHARED.post(gone, &json!({})).status, 404);
    }
}
