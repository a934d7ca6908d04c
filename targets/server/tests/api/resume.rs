//! Streams that are read on after their connection has ended, and reasoning that is ended.

use std::io::{BufReader, Write};

use serde_json::{Value, json};

use crate::client::{Response, SHARED, TestServer, question_body, read_chunk, read_head};

/// Begins a stream under a name and returns its first bytes; the connection is closed.
fn begin(server: &TestServer, id: &str, more: Value) -> Vec<u8> {
    let mut body = question_body("723 * 8 = ?", json!({"stream": true}));
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = body.to_string();
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         X-Conversation-Id: {id}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).unwrap().0, 200);
    let mut first = Vec::new();
    while !String::from_utf8_lossy(&first).contains("data: ") {
        assert!(read_chunk(&mut reader, &mut first));
    }
    first
}

/// The answer that a stream contains.
fn content(stream: &Response) -> String {
    let events = stream.events();
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[test]
fn a_stream_is_read_on_from_any_byte() {
    let id = "0b54b21e-67f1-4e39-9d3c-8a4f6c1d2e3f";
    let first = begin(&SHARED, id, json!({}));
    let rest = SHARED.get(&format!("/v1/stream?conv_id={id}&from={}", first.len()));
    assert_eq!(rest.status, 200);
    let whole = SHARED.get(&format!("/v1/stream?conv_id={id}&from=0"));
    assert_eq!(String::from_utf8(first).unwrap() + &rest.body, whole.body);
    assert!(whole.body.ends_with("data: [DONE]\n\n"));
    assert_eq!(content(&whole), "5784");
    assert_eq!(SHARED.get(&format!("/v1/stream?conv_id={id}&from=99999999")).status, 404);
    assert_eq!(SHARED.send("DELETE", &format!("/v1/stream?conv_id={id}"), &[], "").status, 204);
    assert_eq!(SHARED.get(&format!("/v1/stream?conv_id={id}")).status, 404);
}

#[test]
fn a_stream_that_is_ended_before_it_begins_computes_nothing() {
    let path = "/v1/stream?conv_id=3b54b21e-67f1-4e39-9d3c-8a4f6c1d2e3f";
    let id = path.rsplit('=').next().unwrap();
    assert_eq!(SHARED.send("DELETE", path, &[], "").status, 202);
    assert_eq!(SHARED.send("DELETE", path, &[], "").status, 202);
    assert_eq!(SHARED.get(path).status, 404);
    let ask = || {
        let body = question_body("723 * 8 = ?", json!({"stream": true})).to_string();
        let headers = [("Content-Type", "application/json"), ("X-Conversation-Id", id)];
        content(&SHARED.send("POST", "/v1/chat/completions", &headers, &body))
    };
    assert_eq!(ask(), "");
    // The name is free again.
    assert_eq!(ask(), "5784");
}

#[test]
fn streams_are_named_by_what_nobody_can_guess() {
    assert_eq!(SHARED.get("/v1/stream?conv_id=short").status, 400);
    assert_eq!(SHARED.get("/v1/stream?conv_id=..%2f..%2fetc%2fpasswd-0000").status, 400);
    assert_eq!(SHARED.get("/v1/stream?conv_id=0000000000000000000").status, 404);
    assert_eq!(SHARED.get("/v1/stream").status, 400);
}

#[test]
fn reasoning_can_be_ended() {
    let id = "1b54b21e-67f1-4e39-9d3c-8a4f6c1d2e3f";
    // A bias against its end keeps the model thinking.
    let end = SHARED.post("/tokenize", &json!({"content": "</think>"})).json();
    let bias: Vec<Value> =
        end["tokens"].as_array().unwrap().iter().map(|token| json!([token, -100])).collect();
    let first = begin(&SHARED, id, json!({"logit_bias": bias, "max_tokens": 600}));
    let first = String::from_utf8(first).unwrap();
    let data = first.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let chunk: Value = serde_json::from_str(data).unwrap();
    let wish = json!({"id": chunk["id"], "action": "reasoning_end"});
    let mut status = 0;
    for _ in 0..50 {
        status = SHARED.post("/v1/chat/completions/control", &wish).status;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!([200, 404].contains(&status));
    let events = SHARED.get(&format!("/v1/stream?conv_id={id}&from=0")).events();
    let has =
        |name: &str| events.iter().any(|event| event["choices"][0]["delta"][name].is_string());
    assert!(has("reasoning_content") && has("content"));
    assert!(events.last().unwrap()["choices"][0]["finish_reason"].is_string());
    let unknown = json!({"id": "chatcmpl-0", "action": "reasoning_end"});
    assert_eq!(SHARED.post("/v1/chat/completions/control", &unknown).status, 404);
}
