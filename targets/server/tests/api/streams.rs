//! Streams: the same answer in pieces, progress, cancelling, the end of the server.

use std::io::{BufReader, Write};
use std::time::Duration;

use serde_json::{Value, json};
use vaquita_server::ServerOptions;

use crate::client::{SHARED, TestServer, question_body, read_chunk, read_head};

const QUESTION: &str = "723 * 8 = ?";

/// Content and reasoning of a stream, joined.
fn joined(events: &[Value]) -> (String, String) {
    let of = |name: &str| -> String {
        let deltas = events.iter().flat_map(|e| e["choices"].as_array().unwrap().iter());
        deltas.filter_map(|choice| choice["delta"][name].as_str()).collect()
    };
    (of("content"), of("reasoning_content"))
}

#[test]
fn a_stream_is_the_whole_answer_in_pieces() {
    let whole = SHARED.ask(QUESTION, json!({})).json();
    let stream = SHARED.ask(QUESTION, json!({"stream": true}));
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    assert!(stream.body.ends_with("data: [DONE]\n\n"));
    let events = stream.events();
    let message = &whole["choices"][0]["message"];
    let (content, reasoning) = joined(&events);
    assert_eq!(content, message["content"].as_str().unwrap());
    assert_eq!(reasoning, message["reasoning_content"].as_str().unwrap());
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": null}));
    let last = events.last().unwrap();
    assert_eq!(last["choices"][0]["delta"], json!({}));
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert!(last["timings"]["predicted_n"].as_u64().unwrap() > 10);
    for event in &events {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!(event["id"], events[0]["id"]);
        assert!(event.get("usage").is_none());
        let choice = event["choices"][0].as_object().unwrap();
        assert!(choice.contains_key("finish_reason"));
        assert_ne!(choice["delta"].get("content"), Some(&json!("")));
    }
}

#[test]
fn usage_comes_in_a_chunk_of_its_own_if_it_is_wanted() {
    let more = json!({"stream": true, "stream_options": {"include_usage": true}, "max_tokens": 5});
    let events = SHARED.ask(QUESTION, more).events();
    let last = events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 5);
    assert!(last["timings"].is_object());
    assert!(events[..events.len() - 1].iter().all(|event| event["usage"].is_null()));
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "length");
}

#[test]
fn log_probabilities_and_progress_are_streamed() {
    let more = json!({
        "stream": true, "logprobs": true, "top_logprobs": 1, "max_tokens": 9, "return_progress": true,
    });
    let events = SHARED.ask(QUESTION, more).events();
    let logprobs: usize = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array())
        .map(Vec::len)
        .sum();
    assert_eq!(logprobs, 9);
    let progress: Vec<&Value> =
        events.iter().map(|e| &e["prompt_progress"]).filter(|p| p.is_object()).collect();
    let last = progress.last().unwrap();
    assert_eq!(last["processed"], last["total"]);
}

#[test]
fn calls_are_streamed_as_name_then_arguments() {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false,
    }}}]);
    let more =
        json!({"stream": true, "tools": tools, "tool_choice": "required", "max_tokens": 300});
    let events = SHARED.ask(QUESTION, more).events();
    let calls: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0))
        .collect();
    assert_eq!(calls[0]["function"], json!({"name": "f", "arguments": ""}));
    assert_eq!(calls[0]["type"], "function");
    assert!(calls[1..].iter().all(|call| call.get("id").is_none() && call["index"] == 0));
    let arguments: String =
        calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect();
    assert!(serde_json::from_str::<Value>(&arguments).unwrap()["a"].is_i64(), "{arguments}");
}

/// Begins a stream that would take long, and reads its first chunk.
fn begin(server: &TestServer, question: &str) -> BufReader<std::net::TcpStream> {
    let mut stream = server.connect();
    let more =
        json!({"stream": true, "ignore_eos": true, "max_tokens": 1900, "logit_bias": {"1": -100}});
    let body = question_body(question, more).to_string();
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).unwrap().0, 200);
    assert!(read_chunk(&mut reader, &mut Vec::new()));
    reader
}

#[test]
fn a_client_that_leaves_cancels_its_answer_and_no_other() {
    let server = TestServer::new(ServerOptions::default());
    let left = begin(&server, "1 + 1 = ?");
    let mut stays = begin(&server, "2 + 2 = ?");
    drop(left);
    for _ in 0..500 {
        let metrics = server.get("/metrics").body;
        if metrics.contains("vaquita_cancelled_total 1\n") {
            let mut more = Vec::new();
            assert!(read_chunk(&mut stays, &mut more) && read_chunk(&mut stays, &mut more));
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the answer went on: {}", server.get("/metrics").body);
}

#[test]
fn an_answer_that_outlives_the_grace_ends_with_an_error() {
    let server = TestServer::new(ServerOptions {
        grace: Duration::from_millis(100),
        ..ServerOptions::default()
    });
    let mut stream = begin(&server, "1 + 1 = ?");
    server.end();
    let mut body = Vec::new();
    while read_chunk(&mut stream, &mut body) {}
    let text = String::from_utf8(body).unwrap();
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    let error: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["type"], "unavailable_error", "{text}");
}
