//! What went wrong in other servers, one test for each advisory that no other test here is about.
//! docs/security.md has the whole list.

use serde_json::{Value, json};
use vaquita_server::{Keys, ServerOptions};

use crate::client::{SHARED, TestServer};

/// CVE-2026-21869 (llama-server): a negative `n_discard` wrote outside of a buffer.
#[test]
fn counts_below_zero_index_nothing() {
    for member in ["n_discard", "n_keep", "n_indent", "id_slot", "n_predict", "n_probs", "top_k"] {
        for number in [json!(-1), json!(i64::MIN), json!(u64::MAX), json!(1e300)] {
            let mut body = json!({"prompt": "1 + 1 =", "max_tokens": 1});
            body[member] = number.clone();
            let status = SHARED.post("/completion", &body).status;
            assert!([200, 400, 422].contains(&status), "{member} = {number}: {status}");
        }
    }
    let tokens = json!({"tokens": [-1]});
    assert_eq!(SHARED.post("/detokenize", &tokens).status, 400);
    let tokens = json!({"tokens": [u32::MAX]});
    assert_eq!(SHARED.post("/detokenize", &tokens).status, 400);
}

/// CVE-2026-7482 and CVE-2026-5530 (Ollama): models that were uploaded read memory, and fetching one
/// reached addresses of the inner network.
#[test]
fn models_are_neither_taken_nor_fetched() {
    let body = json!({"model": "http://127.0.0.1:1/x", "name": "x", "from": "../../etc/passwd"});
    for path in
        ["/api/create", "/api/pull", "/api/push", "/api/copy", "/api/blobs/sha256:00", "/load"]
    {
        assert_eq!(SHARED.post(path, &body).status, 404, "{path}");
    }
    assert_eq!(SHARED.send("DELETE", "/api/delete", &[], "").status, 404);
    assert_eq!(SHARED.send("HEAD", "/api/blobs/sha256:00", &[], "").status, 404);
}

/// CVE-2026-44563 and CVE-2026-45349 (Open WebUI): conversations of others by their identifier.
#[test]
fn streams_of_another_key_are_not_there() {
    let keys = Keys::parse("alice:0123456789abcdef\nbob:fedcba9876543210").unwrap();
    let server = TestServer::new(ServerOptions { keys, ..ServerOptions::default() });
    let id = "1f0e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
    let body = json!({
        "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "stream": true,
    });
    let as_key = |key: &'static str| ("x-api-key", key);
    let headers = [
        ("content-type", "application/json"),
        ("x-conversation-id", id),
        as_key("0123456789abcdef"),
    ];
    let answer = server.send("POST", "/v1/chat/completions", &headers, &body.to_string());
    assert_eq!(answer.status, 200);
    let read = |key| server.send("GET", &format!("/v1/stream?conv_id={id}"), &[as_key(key)], "");
    assert_eq!(read("fedcba9876543210").status, 404);
    assert_eq!(read("0123456789abcdef").body, answer.body);
}

/// llama.cpp pull request 6162 (cpp-httplib): files above the folder that is served. There is none.
#[test]
fn paths_are_no_files() {
    for path in [
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/assets/../../etc/passwd",
        "/etc/passwd%00.html",
        "//etc/passwd",
        "/..\\..\\etc\\passwd",
    ] {
        let response = SHARED.get(path);
        assert!([400, 404].contains(&response.status), "{path}: {}", response.status);
        assert!(!response.body.contains("root:"), "{path}");
    }
}

/// CVE-2026-22773 (vLLM): an image of one pixel took the server down. None is decoded, or fetched.
#[test]
fn images_are_refused_by_their_place() {
    for (part, place) in [
        (json!({"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x"}}), 0),
        (json!({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}), 0),
        (json!({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}), 0),
    ] {
        let body = json!({"messages": [{"role": "user", "content": [part]}]});
        let response = SHARED.post("/v1/chat/completions", &body);
        assert_eq!(response.status, 400, "{part}");
        let expected = format!("messages[0].content[{place}]");
        assert_eq!(response.json()["error"]["param"], Value::from(expected));
    }
    let media = json!({"prompt_string": "<__media__>", "multimodal_data": ["AA=="]});
    assert_eq!(SHARED.post("/completion", &json!({"prompt": media})).status, 400);
}
