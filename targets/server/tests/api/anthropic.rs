//! `/v1/messages`.

use serde_json::{Value, json};

use crate::client::SHARED;

fn body(more: Value) -> Value {
    let mut body = json!({
        "model": "claude", "max_tokens": 300, "temperature": 0,
        "messages": [{"role": "user", "content": "723 * 8 = ?"}],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Names and data of the events of a stream.
fn events(text: &str) -> Vec<(String, Value)> {
    let read = |event: &str| {
        let (name, data) = event.strip_prefix("event: ")?.split_once("\ndata: ")?;
        Some((name.to_string(), serde_json::from_str(data).unwrap()))
    };
    text.split("\n\n").filter_map(read).collect()
}

#[test]
fn a_message_has_thoughts_and_text() {
    let json = SHARED.post("/v1/messages", &body(json!({}))).json();
    assert_eq!(
        (json["type"].as_str(), json["role"].as_str()),
        (Some("message"), Some("assistant"))
    );
    assert_eq!(json["content"][0]["type"], "thinking");
    assert_eq!(json["content"][1], json!({"type": "text", "text": "5784"}));
    assert_eq!(json["stop_reason"], "end_turn");
    assert!(json.get("timings").is_none(), "Anthropic's API has no such member");
    let count = SHARED.post("/v1/messages/count_tokens", &body(json!({}))).json();
    let usage = &json["usage"];
    let of = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(count["input_tokens"], of("input_tokens") + of("cache_read_input_tokens"));
}

#[test]
fn a_stream_has_its_events_in_order() {
    let response = SHARED.post("/v1/messages", &body(json!({"stream": true})));
    let events = events(&response.body);
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["message_start", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert!(events.iter().all(|(name, data)| data["type"] == name.as_str()));
    let text: String =
        events.iter().filter_map(|(_, data)| data["delta"]["text"].as_str()).collect();
    assert_eq!(text, "5784");
    assert_eq!(events[events.len() - 2].1["delta"]["stop_reason"], "end_turn");
}

#[test]
fn tools_are_used_and_their_results_read() {
    let schema = json!({
        "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
        "additionalProperties": false,
    });
    let tools = json!([
        {"name": "f", "input_schema": schema},
        {"type": "web_search_20250305", "name": "web_search"},
    ]);
    let more = json!({"tools": tools, "tool_choice": {"type": "tool", "name": "f"}});
    let json = SHARED.post("/v1/messages", &body(more)).json();
    assert_eq!(json["stop_reason"], "tool_use", "{json}");
    let used =
        json["content"].as_array().unwrap().iter().find(|b| b["type"] == "tool_use").unwrap();
    assert!(used["input"]["a"].is_i64());
    let messages = json!([
        {"role": "user", "content": "723 * 8 = ?"},
        {"role": "assistant", "content": json["content"]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": used["id"], "content": [{"type": "text", "text": "5784"}]},
        ]},
    ]);
    let more = json!({"messages": messages, "tools": tools, "max_tokens": 5});
    assert_eq!(SHARED.post("/v1/messages", &body(more)).status, 200);
}

#[test]
fn errors_have_anthropics_form() {
    let image = json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]});
    let response = SHARED.post("/v1/messages", &body(image));
    assert_eq!(response.status, 400);
    let json = response.json();
    assert_eq!(
        (json["type"].as_str(), &json["error"]["type"]),
        (Some("error"), &json!("invalid_request_error"))
    );
    assert!(json["error"]["message"].as_str().unwrap().contains("messages[0].content[0]"));
}
