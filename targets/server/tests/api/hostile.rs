//! Requests that are wrong, hostile or not allowed: each is refused with its status, and the server
//! answers the next one.

use serde_json::{Value, json};
use vaquita_server::{Keys, ServerOptions};

use crate::client::{SHARED, TestServer};

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");

fn refused(body: &str, status: u16) -> Value {
    let response = SHARED.send("POST", CHAT, &[JSON], body);
    let shown: String = body.chars().take(200).collect();
    assert_eq!(response.status, status, "{shown}: {}", response.body);
    let error = response.json()["error"].clone();
    for member in ["message", "type", "param", "code"] {
        assert!(error.get(member).is_some(), "{member}: {error}");
    }
    assert!(error["message"].as_str().unwrap().len() < 1000);
    error
}

/// A request with one further member.
fn with(member: &str) -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"max_tokens":1,{member}}}"#)
}

#[test]
fn malformed_bodies_are_refused() {
    for body in ["", "null", "[]", "{", "{}x", r#"{"messages":"x"}"#, r#"{"messages":[]}"#] {
        refused(body, 400);
    }
    refused(r#"{"messages":[{"role":"user","content":"\ud800"}]}"#, 400);
    refused(&with(r#""temperature":1,"temperature":2"#), 400);
    refused(&with(&format!(r#""x":{}{}"#, "[".repeat(100_000), "]".repeat(100_000))), 400);
    let error = refused(&with(r#""temperature":"hot""#), 400);
    assert_eq!(error["param"], "temperature");
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    for name in ["temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "n"] {
        for number in ["-1e9", "1e300", "9223372036854775807"] {
            let response =
                SHARED.send("POST", CHAT, &[JSON], &with(&format!("\"{name}\":{number}")));
            assert!([400, 422].contains(&response.status), "{name}={number}: {}", response.body);
            assert_eq!(response.json()["error"]["param"], name);
        }
    }
    for number in ["NaN", "1e999", "-", "Infinity"] {
        refused(&with(&format!("\"temperature\":{number}")), 400);
    }
    for number in ["9223372036854775808", "-2", "1.5"] {
        let body = with(&format!("\"seed\":1,\"top_logprobs\":{number}"));
        let response = SHARED.send("POST", CHAT, &[JSON], &body);
        assert!([400, 422].contains(&response.status), "{number}");
    }
    refused(&with(r#""top_logprobs":21,"logprobs":true"#), 422);
    refused(&with(r#""max_completion_tokens":2"#), 400);
}

#[test]
fn quantities_are_bounded() {
    let stops = vec!["x"; 100_000];
    refused(&with(&format!(r#""stop":{}"#, json!(stops))), 422);
    let biases: Vec<String> = (0..100_000).map(|token| format!("\"{token}\":1")).collect();
    refused(&with(&format!(r#""logit_bias":{{{}}}"#, biases.join(","))), 422);
    let large = with(&format!(r#""user":"{}""#, "x".repeat(5 << 20)));
    assert_eq!(SHARED.send("POST", CHAT, &[JSON], &large).status, 413);
    refused(&with(&format!(r#""user":"{}""#, "x".repeat(513))), 422);
    let head = "x".repeat(40 << 10);
    assert_eq!(SHARED.send("GET", "/health", &[("x-long", &head)], "").status, 431);
    let words = "word ".repeat(5000);
    let long = json!({"messages": [{"role": "user", "content": words}]});
    let error = refused(&long.to_string(), 400);
    assert_eq!(error["type"], "exceed_context_size_error");
    assert_eq!(error["n_ctx"], 2048);
    assert!(error["n_prompt_tokens"].as_u64().unwrap() >= 5000);
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let schema = |schema: Value| {
        with(&format!(
            r#""response_format":{}"#,
            json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
        ))
    };
    refused(&schema(json!({"type": "object", "$ref": "http://evil.example/schema"})), 400);
    refused(&schema(json!({"type": "string", "pattern": "(".repeat(60_000)})), 400);
    let nested = format!("root ::= {}\"a\"{}", "(".repeat(60_000), ")".repeat(60_000));
    refused(&with(&format!(r#""grammar":{}"#, json!(nested))), 400);
    refused(&with(r#""grammar":"root ::= x""#), 400);
    refused(&with(r#""tools":[{"type":"function","function":{"name":"a b"}}]"#), 400);
    refused(&with(r#""tool_choice":"required""#), 400);
    refused(&with(r#""thinking":{"type":"disabled"},"reasoning_effort":"high""#), 400);
    refused(&with(r#""chat_template_kwargs":{"messages":[]}"#), 400);
}

#[test]
fn foreign_names_origins_and_forms_are_refused() {
    let get =
        |name: &str, value: &str| SHARED.send("GET", "/v1/models", &[(name, value)], "").status;
    assert_eq!(get("host", "evil.example"), 403);
    assert_eq!(get("host", "localhost:1"), 200);
    assert_eq!(get("origin", "https://evil.example"), 403);
    assert_eq!(get("origin", "null"), 403);
    assert_eq!(get("origin", &format!("http://{}", SHARED.address)), 200);
    let body = with(r#""n":1"#);
    let plain = [("content-type", "text/plain"), ("origin", "https://evil.example")];
    assert_eq!(SHARED.send("POST", CHAT, &plain, &body).status, 403);
    assert_eq!(SHARED.send("POST", CHAT, &plain[..1], &body).status, 415);
    let two = [JSON, ("transfer-encoding", "chunked")];
    assert_eq!(SHARED.send("POST", CHAT, &two, &body).status, 400);
    assert_eq!(SHARED.send("DELETE", CHAT, &[], "").status, 405);
    assert_eq!(SHARED.get("/../../etc/passwd").status, 404);
    assert_eq!(SHARED.get("/nowhere").status, 404);
}

#[test]
fn keys_are_needed_where_there_are_some() {
    let keys = Keys::parse("alice:0123456789abcdef").unwrap();
    let server = TestServer::new(ServerOptions { keys, ..ServerOptions::default() });
    let models = |headers: &[(&str, &str)]| server.send("GET", "/v1/models", headers, "");
    let refused = models(&[]);
    assert_eq!(refused.status, 401);
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    assert_eq!(refused.json()["error"]["code"], "invalid_api_key");
    assert_eq!(models(&[("authorization", "Bearer 0123456789abcdee")]).status, 401);
    assert_eq!(models(&[("authorization", "Bearer 0123456789abcdef")]).status, 200);
    assert_eq!(models(&[("x-api-key", "0123456789abcdef")]).status, 200);
    assert_eq!(server.get("/nowhere").status, 401, "paths are told to holders of keys only");
    // The body is not read before the key.
    let mut stream = server.connect();
    std::io::Write::write_all(
        &mut stream,
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
          Content-Length: 1000000\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    assert_eq!(crate::client::Response::read(stream).status, 401);
}

#[test]
fn a_request_keeps_its_identifier() {
    let with_id = |id: &str| SHARED.send("GET", "/health", &[("x-request-id", id)], "");
    assert_eq!(with_id("abc-7").headers["x-request-id"], "abc-7");
    assert!(with_id(&"x".repeat(500)).headers["x-request-id"].starts_with("req-"));
}
