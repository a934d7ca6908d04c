//! `/v1/chat/completions` and `/v1/models`: whole answers.

use serde_json::{Value, json};

use crate::client::{SHARED, question_body};

const QUESTION: &str = "723 * 8 = ?";

#[test]
fn an_answer_has_every_member_that_clients_read() {
    let response = SHARED.ask(QUESTION, json!({}));
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "application/json");
    let json = response.json();
    assert_eq!(json["object"], "chat.completion");
    assert!(json["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(json["model"], "reference");
    assert!(json["system_fingerprint"].as_str().unwrap().ends_with("-0000000000000007"));
    let choice = &json["choices"][0];
    assert_eq!(choice["message"]["content"], "5784");
    let thoughts = choice["message"]["reasoning_content"].as_str().unwrap();
    assert!(thoughts.contains("carry 2") && !thoughts.contains("<think>"), "{thoughts}");
    assert_eq!(choice["message"]["refusal"], Value::Null);
    assert_eq!(choice["finish_reason"], "stop");
    assert!(choice.as_object().unwrap().contains_key("logprobs"));
    let usage = &json["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
    assert_eq!(
        count("prompt_cache_hit_tokens") + count("prompt_cache_miss_tokens"),
        count("prompt_tokens")
    );
    let reasoning = usage["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
    assert!(reasoning > 10 && reasoning < count("completion_tokens"));
    assert_eq!(json["timings"]["predicted_n"], usage["completion_tokens"]);
    assert!(json["timings"]["energy"].is_object() || json["timings"]["energy"] == "unmeasured");
}

#[test]
fn the_route_without_a_version_and_any_model_name_answer_the_same() {
    let text = |json: Value| json["choices"][0]["message"]["content"].clone();
    let body = question_body(QUESTION, json!({"model": "gpt-99"}));
    assert_eq!(text(SHARED.post("/chat/completions", &body).json()), "5784");
}

#[test]
fn the_same_seed_gives_the_same_text_and_n_gives_several() {
    let more = json!({"temperature": 3.0, "top_p": 1, "seed": 11, "n": 3, "max_tokens": 16});
    let texts = || -> Vec<String> {
        let json = SHARED.ask(QUESTION, more.clone()).json();
        let choices = json["choices"].as_array().unwrap();
        assert_eq!(
            choices.iter().map(|c| c["index"].as_u64().unwrap()).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        choices.iter().map(|choice| choice["message"].to_string()).collect()
    };
    let first = texts();
    assert_eq!(first, texts());
    assert!(first[0] != first[1] || first[1] != first[2]);
    let one = json!({"temperature": 3.0, "top_p": 1, "seed": 11, "max_tokens": 16});
    let alone = SHARED.ask(QUESTION, one).json();
    assert_eq!(
        alone["choices"][0]["message"].to_string(),
        first[0],
        "the first of n is that of the seed"
    );
}

#[test]
fn stop_strings_and_lengths_end_an_answer() {
    let json = SHARED.ask(QUESTION, json!({"stop": "78"})).json();
    assert_eq!(json["choices"][0]["message"]["content"], "5");
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    let json = SHARED.ask(QUESTION, json!({"stop": ["x", "84"]})).json();
    assert_eq!(json["choices"][0]["message"]["content"], "57");
    let json = SHARED.ask(QUESTION, json!({"max_completion_tokens": 4})).json();
    assert_eq!(json["choices"][0]["finish_reason"], "length");
    assert_eq!(json["usage"]["completion_tokens"], 4);
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let more = json!({"logprobs": true, "top_logprobs": 3, "max_tokens": 5});
    let json = SHARED.ask(QUESTION, more).json();
    let content = json["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 5);
    for at in content {
        assert_eq!(at["top_logprobs"].as_array().unwrap().len(), 3);
        assert_eq!(at["top_logprobs"][0]["token"], at["token"], "greedy picks the best");
        assert!(at["logprob"].as_f64().unwrap() <= 0.0);
        let bytes: Vec<u8> = serde_json::from_value(at["bytes"].clone()).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), at["token"].as_str().unwrap());
    }
}

#[test]
fn a_schema_holds_the_content_and_not_the_reasoning() {
    let schema = json!({
        "type": "object",
        "properties": {"answer": {"type": "integer"}},
        "required": ["answer"],
        "additionalProperties": false,
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": true}});
    let json = SHARED.ask(QUESTION, json!({"response_format": format})).json();
    let content = json["choices"][0]["message"]["content"].as_str().unwrap();
    let answer: Value = serde_json::from_str(content).unwrap();
    assert!(answer["answer"].is_i64(), "{content}");
    assert!(json["choices"][0]["message"]["reasoning_content"].as_str().unwrap().contains("carry"));
}

#[test]
fn a_required_call_is_made_in_the_form_of_its_schema() {
    let tools = json!([{"type": "function", "function": {
        "name": "multiply",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": false,
        },
    }}]);
    let more = json!({"tools": tools, "tool_choice": "required", "max_tokens": 300});
    let json = SHARED.ask(QUESTION, more).json();
    let message = &json["choices"][0]["message"];
    let call = &message["tool_calls"][0];
    assert_eq!(call["function"]["name"], "multiply", "{json}");
    let arguments: Value =
        serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["a"].is_i64() && arguments["b"].is_i64());
    assert_eq!(json["choices"][0]["finish_reason"], "tool_calls");
    // The call and its result go back, as clients send them.
    let messages = json!([
        {"role": "user", "content": QUESTION},
        message,
        {"role": "tool", "tool_call_id": call["id"], "content": "5784"},
    ]);
    let next = SHARED.ask("", json!({"messages": messages, "tools": tools, "max_tokens": 20}));
    assert_eq!(next.status, 200, "{next:?}");
}

#[test]
fn an_assistants_message_at_the_end_is_continued() {
    let messages = json!([
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "57", "prefix": true},
    ]);
    let json = SHARED.ask("", json!({"messages": messages, "max_tokens": 8})).json();
    let content = json["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!content.starts_with("57"), "{content}");
    assert!(json["choices"][0]["message"].get("reasoning_content").is_none());
}

#[test]
fn the_model_is_listed_under_its_names() {
    let list = SHARED.get("/v1/models").json();
    assert_eq!(list["data"][0]["id"], "reference");
    assert_eq!(list["data"][0]["meta"]["n_ctx"], 2048);
    assert_eq!(SHARED.get("/v1/models/deepseek-chat").status, 200);
    let missing = SHARED.get("/v1/models/gpt-99");
    assert_eq!(
        (missing.status, &missing.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    assert_eq!(SHARED.get("/health").json(), json!({"status": "ok"}));
}
