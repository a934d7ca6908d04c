//! Servers of the reference model, and a client over a plain socket.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use vaquita_runtime::app::{AppModel, LoadedModel, ModelOptions};
use vaquita_runtime::checkpoint::suggested::SuggestedSampling;
use vaquita_runtime::engine::EngineOptions;
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_server::{Address, Defaults, Handle, ModelInfo, Served, Server, ServerOptions};
use vaquita_tests::{open_folder, reference};

/// The reference model, once for all servers.
pub static MODEL: LazyLock<Arc<AppModel>> = LazyLock::new(|| {
    let options = ModelOptions { threads: 2, ..ModelOptions::default() };
    let loaded = LoadedModel::new(open_folder(&reference()), &options).unwrap();
    AppModel::new(loaded, Tokenizer::from_folder(&reference()).unwrap()).unwrap()
});

/// A server with default options, for tests that change nothing about it.
pub static SHARED: LazyLock<TestServer> =
    LazyLock::new(|| TestServer::new(ServerOptions::default()));

/// A server that ends when it is dropped.
pub struct TestServer {
    /// Host and port.
    pub address: String,
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
}

impl TestServer {
    /// Starts a server and waits until its model is open.
    pub fn new(options: ServerOptions) -> Self {
        Self::with(options, EngineOptions::default())
    }

    /// Like [`Self::new`], with options of the engine.
    pub fn with(options: ServerOptions, engine: EngineOptions) -> Self {
        let server = Server::listen(&[Address::Tcp("127.0.0.1:0".into())], options).unwrap();
        let address = server.urls()[0].strip_prefix("http://").unwrap().to_string();
        let handle = server.handle();
        let info = ModelInfo {
            id: "reference".into(),
            aliases: vec!["deepseek-chat".into()],
            tags: vec!["small".into()],
            file: "reference".into(),
            fingerprint: Some(7),
            sampling: SuggestedSampling::default(),
            defaults: Defaults::default(),
            bytes: 1,
            meter: None,
        };
        let run = move || {
            server
                .run(|| Served::new(MODEL.clone(), engine, info))
                .map_err(|e| format!("{e:?}"))
                .unwrap()
        };
        let this = Self { address, handle, thread: Some(thread::spawn(run)) };
        while this.get("/health").status != 200 {
            thread::sleep(Duration::from_millis(10));
        }
        this
    }

    /// A connection on which reading fails after half a minute.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Ends the server and returns at once.
    pub fn end(&self) {
        self.handle.end();
    }

    pub fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, &[("content-type", "application/json")], &body.to_string())
    }

    /// Sends a request with headers; `Host` is added unless it is given.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        // A server that refuses early need not read it all.
        let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
        Response::read(stream)
    }

    /// Answers a question at temperature 0 and returns the response.
    pub fn ask(&self, question: &str, more: Value) -> Response {
        self.post("/v1/chat/completions", &question_body(question, more))
    }
}

/// The body of a chat request at temperature 0.
pub fn question_body(question: &str, more: Value) -> Value {
    let mut body = json!({
        "model": "reference",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.handle.end();
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))) || thread::panicking(), "the server failed");
    }
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Response {
    /// Reads a response from a connection that the server closes.
    pub fn read(stream: TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader).unwrap_or_default();
        let mut body = Vec::new();
        match headers.get("transfer-encoding").map(String::as_str) {
            Some("chunked") => while read_chunk(&mut reader, &mut body) {},
            _ => drop(reader.read_to_end(&mut body)),
        }
        let body = String::from_utf8(body).unwrap();
        Self { status, headers, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The JSON of the events of a stream without names.
    pub fn events(&self) -> Vec<Value> {
        let data = self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }
}

/// Status and headers; `None` if the connection ends before.
pub fn read_head(reader: &mut impl BufRead) -> Option<(u16, HashMap<String, String>)> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_string())
    };
    let status = line()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HashMap::new();
    while let Some((name, value)) = line()?.split_once(": ") {
        headers.insert(name.to_lowercase(), value.to_string());
    }
    Some((status, headers))
}

/// Reads a chunk of a body; false at its end.
pub fn read_chunk(reader: &mut impl BufRead, body: &mut Vec<u8>) -> bool {
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        return false;
    }
    let len = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
    let from = body.len();
    body.resize(from + len, 0);
    let whole = reader.read_exact(&mut body[from..]).is_ok();
    let _ = reader.read_line(&mut line);
    len > 0 && whole
}
