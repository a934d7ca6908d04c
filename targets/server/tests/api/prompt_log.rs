//! Prompts and answers are logged where the operator asks for it, and only there.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use vaquita_server::{Address, Server, ServerOptions};

use crate::client::TestServer;

/// The entries, once there are `count`.
fn entries(path: &Path, count: usize) -> Vec<Value> {
    loop {
        let text = fs::read_to_string(path).unwrap();
        if text.lines().count() == count && text.ends_with('\n') {
            return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn prompts_and_answers_are_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let logged = folder.path().join("log");
    let log_prompts = Some(logged.clone());
    let server = TestServer::new(ServerOptions { log_prompts, ..ServerOptions::default() });
    let headers = [("content-type", "application/json"), ("x-request-id", "../../mine")];
    let body = json!({"messages": [{"role": "user", "content": "723 * 8 = ?"}], "temperature": 0});
    server.send("POST", "/v1/chat/completions", &headers, &body.to_string());
    let path = logged.join("prompts.jsonl");
    let first = &entries(&path, 1)[0];
    assert_eq!((&first["id"], &first["answer"]), (&json!("../../mine"), &json!("5784")));
    assert_eq!(first["route"], "POST /v1/chat/completions");
    assert!(first["prompt"].as_str().unwrap().contains("<｜User｜>723 * 8 = ?"), "{first}");
    assert!(first["reasoning"].as_str().unwrap().contains("carry"));
    // The file may be moved away.
    fs::rename(&path, logged.join("old.jsonl")).unwrap();
    server.post("/v1/completions", &json!({"prompt": ["1 + 1 =", "2"], "max_tokens": 1}));
    assert_eq!(entries(&path, 2).len(), 2);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&logged), mode(&path)), (0o700, 0o600));
}

#[test]
fn a_folder_of_others_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    fs::DirBuilder::new().mode(0o755).create(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    let options = ServerOptions { log_prompts: Some(open), ..ServerOptions::default() };
    let refused = Server::listen(&[Address::Tcp("127.0.0.1:0".into())], options);
    assert!(refused.err().unwrap().to_string().contains("chmod 700"));
}
