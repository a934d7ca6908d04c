//! `inspect`, `convert`, `bench`, `run` and `serve` on the published files.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use std::{iter, thread};

use serde_json::Value;

use crate::fetch::{GEMMA_3, Published, SMOLLM2};

/// Number of polls of a server that loads its model, one each 20 ms: a minute.
const POLLS: usize = 3000;

pub fn vaquita(model: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaquita"));
    command.args(arguments).arg(model).output().unwrap()
}

pub fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Tokens of a text.
pub fn tokens(model: &Path, text: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaquita"));
    command.arg("tokenize").arg(model).args([text, "--json"]);
    json(&command.output().unwrap())["ids"].take()
}

/// The program that serves; killed when dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
    }
}

/// Answer of a server of `model` to a greedy completion of 8 tokens.
fn served(model: &Path, prompt: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaquita"));
    command.args(["serve", "--listen", "127.0.0.1:0"]).arg(model).stderr(Stdio::piped());
    let mut serving = Serving(command.spawn().unwrap());
    let mut lines = BufReader::new(serving.0.stderr.take().unwrap()).lines();
    let said = lines.find_map(|line| {
        Some(line.ok()?.split_once(" is served at http://")?.1.trim().to_string())
    });
    thread::spawn(move || lines.for_each(drop));
    let address = said.expect("it says where it listens");
    let body =
        serde_json::json!({"prompt": prompt, "max_tokens": 8, "temperature": 0.0}).to_string();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let answers = iter::repeat_with(|| {
        thread::sleep(Duration::from_millis(20));
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_string());
        serde_json::from_str::<Value>(&body.unwrap_or_default()).unwrap_or_default()
    });
    let answer = answers.take(POLLS).find(|answer| answer["choices"].is_array());
    let answer = answer.expect("the model is loaded");
    answer["choices"][0]["text"].as_str().unwrap().to_string()
}

/// A model without experts runs as it is; `convert` says that it would gain nothing.
fn goes_through_every_command(published: &Published, weights: f64, prompt: &str, next: &str) {
    let Some(model) = published.file() else { return };
    let found = json(&vaquita(&model, &["inspect", "--json"]));
    assert_eq!(found["runs"], true);
    let counted = found["parameters"].as_f64().unwrap();
    assert!((counted / weights - 1.0).abs() < 0.01, "{found}");

    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("converted.gguf");
    let refused = vaquita(&model, &["convert", "-o", out.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), out.exists()), (Some(1), false), "{error}");
    assert!(error.contains("no routed experts") && error.contains("runs as it is"), "{error}");

    let rows = json(&vaquita(&model, &["bench", "-p", "8", "-n", "4", "-r", "1", "-o", "json"]));
    let tests: Vec<&str> =
        rows.as_array().unwrap().iter().map(|row| row["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp8", "tg4"]);

    let run = ["run", "--raw", "--temp", "0", "-n", "8", "--json", "-p", prompt];
    let text = json(&vaquita(&model, &run))["text"].as_str().unwrap().to_string();
    assert!(text.starts_with(next), "{text:?}");
    assert_eq!(served(&model, prompt), text);
}

#[test]
fn smollm2_goes_through_every_command() {
    goes_through_every_command(&SMOLLM2, 134.5e6, "1, 2, 3, 4, 5, 6, 7,", " 8,");
}

#[test]
fn gemma_3_goes_through_every_command() {
    goes_through_every_command(&GEMMA_3, 268.1e6, "1, 2, 3, 4, 5, 6, 7,", " 8, 9,");
}
