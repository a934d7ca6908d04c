//! A hub on loopback: the API and the files of published models, with a storage of its own that
//! the hub redirects to, and with the faults that a test asks for. It counts what it serves.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::Digest as _;

/// The commit that every model is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A published file.
#[derive(Clone)]
pub struct File {
    /// Path within the model's folder.
    pub path: String,
    /// Content.
    pub bytes: Arc<Vec<u8>>,
    /// Whether it is in large file storage, and so published with its SHA-256.
    pub large: bool,
}

/// What goes wrong.
#[derive(Clone, Default)]
pub struct Faults {
    /// Bytes after which every connection is cut.
    pub cut_after: Option<u64>,
    /// Number of requests for files that are answered with status 429.
    pub busy: usize,
    /// `Retry-After` of these answers.
    pub retry_after: Option<String>,
    /// Ranges are ignored: the whole file is served.
    pub no_ranges: bool,
    /// The first byte of every file is another.
    pub damaged: bool,
    /// Files of another length than published are served.
    pub longer: bool,
    /// Large files are not redirected to the storage.
    pub no_storage: bool,
    /// Where all requests for files are redirected to instead.
    pub redirect: Option<String>,
    /// The storage refuses an address after this many requests.
    pub expires_after: Option<usize>,
    /// Pause after every 16 KiB.
    pub slow: Duration,
    /// Status and `X-Error-Code` of requests without this token.
    pub token: Option<(String, u16, String)>,
}

/// What was asked for and served.
#[derive(Clone, Default, Debug)]
pub struct Counts {
    /// Bytes of each file that were written to connections.
    pub bytes: HashMap<String, u64>,
    /// Requests to the hub.
    pub hub: usize,
    /// Requests to the storage.
    pub storage: usize,
    /// Requests to the storage that carried a token, which it must not see.
    pub storage_tokens: usize,
    /// Requests to the hub that carried a token.
    pub hub_tokens: usize,
}

impl Counts {
    /// Bytes of all files.
    pub fn served(&self) -> u64 {
        self.bytes.values().sum()
    }
}

struct State {
    model: String,
    description: Value,
    files: Vec<File>,
    faults: Mutex<Faults>,
    counts: Mutex<Counts>,
    storage: String,
}

/// A running hub; it ends with the process.
pub struct Hub {
    /// Its address, for `HF_ENDPOINT`.
    pub endpoint: String,
    state: Arc<State>,
}

/// A file whose content looks random and differs with `seed`.
pub fn file(path: &str, len: usize, seed: u64) -> File {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    File { path: path.into(), bytes: Arc::new(bytes), large: true }
}

/// A small file with that content.
pub fn small(path: &str, bytes: impl Into<Vec<u8>>) -> File {
    File { path: path.into(), bytes: Arc::new(bytes.into()), large: false }
}

/// Hexadecimal SHA-256, or SHA-1 of a git blob, of a file.
pub fn checksum(file: &File) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if file.large {
        return hex(&sha2::Sha256::digest(&*file.bytes));
    }
    let head = format!("blob {}\0", file.bytes.len());
    hex(&sha1::Sha1::new().chain_update(head).chain_update(&*file.bytes).finalize())
}

impl Hub {
    /// Publishes a model, `ORG/NAME`.
    pub fn new(model: &str, files: Vec<File>) -> Self {
        let siblings: Vec<Value> = files.iter().map(sibling).collect();
        let description = json!({
            "id": model, "sha": COMMIT, "gated": false, "tags": ["gguf", "license:mit"],
            "siblings": siblings,
        });
        Self::with_description(model, files, description)
    }

    /// Publishes a model with that answer of the API.
    pub fn with_description(model: &str, files: Vec<File>, description: Value) -> Self {
        let [hub, storage] = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let endpoint = address(&hub);
        let state = Arc::new(State {
            model: model.into(),
            description,
            files,
            faults: Mutex::default(),
            counts: Mutex::default(),
            storage: address(&storage),
        });
        for (listener, is_storage) in [(hub, false), (storage, true)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    // Clients may go at any time.
                    std::thread::spawn(move || state.serve(&stream, is_storage).ok());
                }
            });
        }
        Self { endpoint, state }
    }

    /// Changes what goes wrong.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.state.faults.lock().unwrap()
    }

    /// What was served.
    pub fn counts(&self) -> Counts {
        self.state.counts.lock().unwrap().clone()
    }
}

/// The API's entry of a file.
pub fn sibling(file: &File) -> Value {
    let mut entry = json!({
        "rfilename": file.path, "size": file.bytes.len(), "blobId": "0".repeat(40),
    });
    match file.large {
        true => {
            entry["lfs"] =
                json!({"sha256": checksum(file), "size": file.bytes.len(), "pointerSize": 130})
        }
        false => entry["blobId"] = checksum(file).into(),
    }
    entry
}

impl State {
    fn serve(&self, stream: &TcpStream, is_storage: bool) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_string());
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let token = headers.get("authorization").map(String::as_str);
        let faults = self.faults.lock().unwrap().clone();
        let storage_requests = {
            let mut counts = self.counts.lock().unwrap();
            let (requests, tokens) = match is_storage {
                true => (1, usize::from(token.is_some())),
                false => (0, 0),
            };
            counts.storage += requests;
            counts.storage_tokens += tokens;
            counts.hub += 1 - requests;
            counts.hub_tokens += usize::from(token.is_some() && !is_storage);
            counts.storage
        };
        let api = format!("/api/models/{}/revision/", self.model);
        let resolve = format!("/{}/resolve/{COMMIT}/", self.model);
        if is_storage {
            if faults.expires_after.is_some_and(|most| storage_requests > most) {
                self.faults.lock().unwrap().expires_after = None;
                return answer(stream, "403 Forbidden", &[], b"expired");
            }
            return match self.file(path.strip_prefix("/").unwrap_or_default()) {
                Some(file) => self.send(stream, file, headers.get("range"), &faults),
                None => answer(stream, "404 Not Found", &[], b""),
            };
        }
        if let Some((expected, status, code)) = &faults.token
            && token != Some(&format!("Bearer {expected}"))
        {
            let head = [("X-Error-Code", code.as_str())];
            return answer(stream, &format!("{status} No"), &head, b"");
        }
        if let Some(revision) = path.strip_prefix(&api) {
            let revision = revision.split('?').next().unwrap_or_default();
            if !["main", "v1", COMMIT].contains(&revision) {
                return answer(stream, "404 No", &[("X-Error-Code", "RevisionNotFound")], b"");
            }
            return answer(stream, "200 OK", &[], self.description.to_string().as_bytes());
        }
        let Some(file) = path.strip_prefix(&resolve).and_then(|path| self.file(path)) else {
            return answer(stream, "401 No", &[], b"Invalid username or password.");
        };
        if self.is_busy() {
            let after = faults.retry_after.as_deref().unwrap_or("0");
            return answer(stream, "429 Too Many Requests", &[("Retry-After", after)], b"");
        }
        if let Some(to) = &faults.redirect {
            return answer(stream, "302 Found", &[("Location", to)], b"");
        }
        if file.large && !faults.no_storage {
            let path = file.path.replace(' ', "%20");
            let to = format!("{}/{path}?signature=secret", self.storage);
            return answer(stream, "302 Found", &[("Location", &to)], b"");
        }
        self.send(stream, file, headers.get("range"), &faults)
    }

    /// Whether this request is one of those that a busy hub refuses; as many as were asked for, of
    /// requests at the same time, too.
    fn is_busy(&self) -> bool {
        let mut faults = self.faults.lock().unwrap();
        let left = faults.busy.checked_sub(1);
        faults.busy = left.unwrap_or(0);
        left.is_some()
    }

    fn file(&self, path: &str) -> Option<&File> {
        let path = path.split('?').next().unwrap_or_default();
        self.files.iter().find(|file| file.path.replace(' ', "%20") == path)
    }

    fn send(
        &self,
        mut stream: &TcpStream,
        file: &File,
        range: Option<&String>,
        faults: &Faults,
    ) -> io::Result<()> {
        let mut bytes = file.bytes.to_vec();
        if faults.damaged {
            bytes[0] ^= 1;
        }
        if faults.longer {
            bytes.push(0);
        }
        let range = range.filter(|_| !faults.no_ranges).and_then(|text| parse_range(text));
        let (head, range) = match range {
            Some(range) if range.end <= bytes.len() => {
                let Range { start, end } = range;
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\n",
                    end - 1,
                    bytes.len()
                );
                (head, range)
            }
            Some(_) => return answer(stream, "416 Range Not Satisfiable", &[], b""),
            None => ("HTTP/1.1 200 OK\r\n".to_string(), 0..bytes.len()),
        };
        let length = range.len();
        write!(stream, "{head}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
        let end =
            faults.cut_after.map_or(range.end, |cut| range.end.min(range.start + cut as usize));
        for piece in bytes[range.start..end].chunks(16 << 10) {
            stream.write_all(piece)?;
            let mut counts = self.counts.lock().unwrap();
            *counts.bytes.entry(file.path.clone()).or_default() += piece.len() as u64;
            drop(counts);
            std::thread::sleep(faults.slow);
        }
        Ok(())
    }
}

fn answer(
    mut stream: &TcpStream,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(body)
}

fn parse_range(text: &str) -> Option<Range<usize>> {
    let (start, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some(start.parse().ok()?..last.parse::<usize>().ok()? + 1)
}
