//! The server makes no connections: it serves where there is no network, and the kernel's counts say that it sent nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{iter, thread};

use serde_json::{Value, json};

use crate::program::{reference, vaquita};
use crate::serve::POLLS;

/// Kills a process when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// `unshare` with a network of its own; `None` where that is not permitted.
fn without_network() -> Option<Command> {
    let of = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", program]);
        command
    };
    let tried = of("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried
        .is_ok_and(|status| status.success())
        .then(|| of(vaquita([""; 0]).get_program().to_str().unwrap()))
}

/// Sends a request and returns the whole response.
fn send(socket: &Path, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    String::from_utf8_lossy(&response).into_owned()
}

/// Packets that a network namespace has sent or tried to send, by the kernel's counters.
fn sent(process: u32) -> Vec<(String, u64)> {
    let of =
        |file: &str| fs::read_to_string(format!("/proc/{process}/net/{file}")).unwrap_or_default();
    let text = of("snmp");
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for pair in lines.chunks_exact(2) {
        let protocol = pair[0].split(':').next().unwrap_or_default();
        let values = pair[1].split(' ').skip(1);
        for (name, value) in pair[0].split(' ').skip(1).zip(values) {
            if ["OutRequests", "OutNoRoutes", "ActiveOpens", "OutDatagrams"].contains(&name) {
                found.push((format!("{protocol}.{name}"), value.parse().unwrap()));
            }
        }
    }
    for line in of("snmp6").lines() {
        if let Some((name @ ("Ip6OutNoRoutes" | "Udp6OutDatagrams"), value)) =
            line.split_once(char::is_whitespace)
        {
            found.push((name.into(), value.trim().parse().unwrap()));
        }
    }
    found
}

#[test]
fn nothing_is_sent_to_a_network() {
    let Some(mut command) = without_network() else {
        vaquita_skips::skipped("a network of its own is not permitted here (root may have one)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    command.arg("serve").arg("--listen").arg(format!("unix:{}", socket.display()));
    // A hub and a proxy, which a server that fetched something would ask.
    command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("HTTPS_PROXY", "http://127.0.0.1:9");
    command.arg(reference());
    let mut child = Killed(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
    let served = lines.by_ref().any(|line| line.is_ok_and(|line| line.contains(" is served at ")));
    assert!(served, "it serves without a network");
    thread::spawn(move || lines.for_each(drop));
    let loads = || !send(&socket, "GET", "/health", "").starts_with("HTTP/1.1 200");
    let polls = iter::repeat_with(|| thread::sleep(Duration::from_millis(20))).take(POLLS);
    assert!(polls.take_while(|()| loads()).count() < POLLS, "the model is loaded");

    let link = json!("Read http://127.0.0.1:9/a and ![b](http://127.0.0.1:9/b.png).");
    let messages = json!([{"role": "user", "content": link}]);
    let tool = json!({"type": "function", "function": {
        "name": "fetch", "parameters": {"type": "object", "properties": {"url": {"type": "string", "maxLength": 4}}, "required": ["url"]},
    }});
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/c.png"}}]}]);
    let tool_call = json!({"messages": messages, "tools": [tool], "tool_choice": "required", "max_tokens": 200});
    let posts: [(&str, Value, &str); 7] = [
        ("/v1/chat/completions", json!({"messages": messages, "max_tokens": 4}), "200"),
        (
            "/v1/chat/completions",
            json!({"messages": messages, "max_tokens": 4, "stream": true}),
            "200",
        ),
        ("/v1/chat/completions", tool_call, "200"),
        ("/v1/chat/completions", json!({"messages": image, "max_tokens": 1}), "400"),
        (
            "/v1/responses",
            json!({"input": link, "max_output_tokens": 4, "tools": [{"type": "web_search"}]}),
            "200",
        ),
        ("/v1/messages", json!({"messages": messages, "max_tokens": 4}), "200"),
        ("/api/pull", json!({"model": "a/b"}), "404"),
    ];
    for (path, body, status) in posts {
        let response = send(&socket, "POST", path, &body.to_string());
        assert_eq!(response.split(' ').nth(1), Some(status), "{path}: {response}");
    }
    for path in ["/", "/health", "/props", "/v1/models", "/metrics", "/slots"] {
        let response = send(&socket, "GET", path, "");
        assert!(response.starts_with("HTTP/1.1 200"), "{path}: {response}");
    }
    let counts = sent(child.0.id());
    assert!(counts.len() >= 4, "{counts:?}");
    assert!(counts.iter().all(|(_, count)| *count == 0), "{counts:?}");
}
