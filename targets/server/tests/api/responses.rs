//! `/v1/responses`.

use serde_json::{Value, json};

use crate::client::SHARED;

fn body(more: Value) -> Value {
    let mut body = json!({"model": "x", "input": "723 * 8 = ?", "temperature": 0});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn a_response_has_reasoning_and_a_message() {
    let json = SHARED.post("/v1/responses", &body(json!({}))).json();
    assert_eq!(
        (json["object"].as_str(), json["status"].as_str()),
        (Some("response"), Some("completed"))
    );
    let kinds: Vec<&Value> =
        json["output"].as_array().unwrap().iter().map(|i| &i["type"]).collect();
    assert_eq!(kinds, ["reasoning", "message"]);
    assert_eq!(json["output"][1]["content"][0]["text"], "5784");
    let short = SHARED.post("/v1/responses", &body(json!({"max_output_tokens": 5}))).json();
    assert_eq!(short["status"], "incomplete");
    assert_eq!(short["incomplete_details"]["reason"], "max_output_tokens");
}

#[test]
fn a_stream_ends_with_the_response_that_it_built() {
    let text = SHARED.post("/v1/responses", &body(json!({"stream": true}))).body;
    let events: Vec<Value> = text
        .split("\n\n")
        .filter_map(|event| event.split_once("\ndata: "))
        .map(|(_, data)| serde_json::from_str(data).unwrap())
        .collect();
    let numbers: Vec<u64> = events.iter().map(|e| e["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    assert_eq!(events[0]["type"], "response.created");
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    let deltas: String = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(deltas, "5784");
    assert_eq!(last["response"]["output"][1]["content"][0]["text"], "5784");
    let added = events.iter().filter(|e| e["type"] == "response.output_item.added");
    let ids: Vec<&Value> = added.map(|event| &event["item"]["id"]).collect();
    assert_eq!(ids, [&last["response"]["output"][0]["id"], &last["response"]["output"][1]["id"]]);
}

#[test]
fn tools_of_providers_are_left_out_and_turns_are_read_back() {
    let tools = json!([
        {"type": "function", "name": "f", "parameters": {
            "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
            "additionalProperties": false,
        }},
        {"type": "web_search"}, {"type": "image_generation"}, {"type": "custom", "name": "c"},
    ]);
    let json = SHARED
        .post("/v1/responses", &body(json!({"tools": tools, "tool_choice": "required"})))
        .json();
    let output = json["output"].as_array().unwrap();
    let call = output.iter().find(|item| item["type"] == "function_call").expect("a call");
    assert_eq!(call["name"], "f");
    let mut input = vec![json!({"role": "user", "content": "723 * 8 = ?"})];
    input.extend(output.iter().cloned());
    input.push(
        json!({"type": "function_call_output", "call_id": call["call_id"], "output": "5784"}),
    );
    let more = json!({"input": input, "tools": tools, "max_output_tokens": 5});
    assert_eq!(SHARED.post("/v1/responses", &body(more)).status, 200);
}

#[test]
fn nothing_is_stored() {
    let more = json!({"previous_response_id": "resp_1"});
    let refused = SHARED.post("/v1/responses", &body(more));
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("send the whole input again"));
    assert_eq!(SHARED.get("/v1/responses/resp_1").status, 404);
}
