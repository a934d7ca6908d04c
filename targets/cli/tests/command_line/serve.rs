//! `vaquita serve`: whom it listens to, its keys, how it starts and ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, iter, thread};

use serde_json::{Value, json};

use crate::program::{failure, quantize, reference, success, vaquita};

/// Number of polls of a server that loads its model, one each 20 ms: a minute.
pub const POLLS: usize = 3000;

/// The program that serves; killed when dropped.
struct Serving(Child);

impl Serving {
    /// Starts it with the reference model and returns the address that it says.
    fn start(command: &mut Command) -> (Self, String) {
        Self::start_with(command, &reference())
    }

    fn start_with(command: &mut Command, model: &Path) -> (Self, String) {
        let mut child = command.arg(model).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = lines
            .find_map(|line| Some(line.ok()?.split_once(" is served at ")?.1.trim().to_string()));
        thread::spawn(move || lines.for_each(drop));
        (Self(child), said.expect("it says where it listens"))
    }

    /// Sends SIGTERM and returns the exit code.
    fn terminate(mut self) -> Option<i32> {
        success(Command::new("kill").args(["-TERM", &self.0.id().to_string()]));
        self.0.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
    }
}

/// Status line of a request for the health of the server.
fn health(mut stream: impl Read + Write) -> String {
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines().next().unwrap_or_default().to_string()
}

#[test]
fn it_serves_until_it_is_told_to_end() {
    let (serving, url) = Serving::start(&mut vaquita(["serve", "--listen", "127.0.0.1:0"]));
    let address = url.strip_prefix("http://").unwrap();
    // It listens before the model is loaded, and says so meanwhile.
    let answers = iter::repeat_with(|| {
        thread::sleep(Duration::from_millis(20));
        health(TcpStream::connect(address).unwrap())
    });
    let loaded = answers.take(POLLS).find(|said| said != "HTTP/1.1 503 Service Unavailable");
    assert_eq!(loaded.as_deref(), Some("HTTP/1.1 200 OK"));
    assert_eq!(serving.terminate(), Some(0));
}

/// Answer of the server at `url` to a completion of `prompt`, once it has loaded its model.
fn completion(url: &str, prompt: &str) -> Value {
    let answers = iter::repeat_with(|| {
        thread::sleep(Duration::from_millis(20));
        post(url, prompt)
    });
    let loaded = answers.take(POLLS).find(|answer| answer["error"].is_null());
    loaded.expect("the model is loaded")
}

fn post(url: &str, prompt: &str) -> Value {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let body = json!({ "prompt": prompt, "max_tokens": 8, "seed": 1 }).to_string();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Type: application/json\r\nContent-Length:";
    write!(stream, "{head} {}\r\n\r\n{body}", body.len()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let json = text.find('{').zip(text.rfind('}'));
    let (from, to) = json.unwrap_or_else(|| panic!("{text}"));
    serde_json::from_str(&text[from..=to]).unwrap()
}

#[test]
fn prompts_are_known_after_a_restart_and_drafts_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (model, prompts) = (folder.path().join("model.gguf"), folder.path().join("prompts"));
    success(&mut quantize(&reference(), &model));
    let text = "The whale swims past the boat, and the boat follows the whale. ".repeat(12);
    let ask = || {
        let mut command =
            vaquita(["serve", "--listen", "127.0.0.1:0", "--draft", "auto", "--cache-dir"]);
        let (serving, url) = Serving::start_with(command.arg(&prompts), &model);
        let answer = completion(&url, &text);
        assert_eq!(serving.terminate(), Some(0));
        answer
    };
    let (first, second) = (ask(), ask());
    let hits = |answer: &Value| answer["usage"]["prompt_cache_hit_tokens"].as_u64();
    assert_eq!(first["choices"], second["choices"]);
    assert_eq!(hits(&first), Some(0));
    assert!(hits(&second) > Some(64), "{second}");
    let drafts = |answer: &Value| answer["timings"]["draft_n"].as_u64();
    assert!(drafts(&first) > Some(0) && drafts(&second) > Some(0), "{first}");
    assert_eq!(fs::metadata(&prompts).unwrap().permissions().mode() & 0o777, 0o700);
}

/// A request to a server on a UNIX socket: status and JSON of the response.
fn request(socket: &Path, path: &str, headers: &str, body: &Value) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let json = text.find('{').zip(text.rfind('}'));
    let json = json.and_then(|(from, to)| serde_json::from_str(&text[from..=to]).ok());
    (status.expect("a status"), json.unwrap_or_default())
}

/// Waits until the server on a UNIX socket has loaded its model.
fn wait_for(socket: &Path) {
    let loads = || {
        UnixStream::connect(socket).is_err()
            || !health(UnixStream::connect(socket).unwrap()).contains(" 200")
    };
    let polls = iter::repeat_with(|| thread::sleep(Duration::from_millis(20))).take(POLLS);
    assert!(polls.take_while(|()| loads()).count() < POLLS, "the model is loaded");
}

#[test]
fn slots_are_files_of_their_client() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| folder.path().join(name);
    let (model, slots, socket, keys) = (of("model.gguf"), of("slots"), of("socket"), of("keys"));
    success(&mut quantize(&reference(), &model));
    fs::write(&keys, "a:0123456789\nb:abcdefghij\n").unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    let listen = format!("unix:{}", socket.display());
    let start = || {
        let mut command = vaquita(["serve", "--listen", &listen, "--slot-save-path"]);
        command.arg(&slots).arg("--api-key-file").arg(&keys);
        let (serving, _) = Serving::start_with(&mut command, &model);
        wait_for(&socket);
        serving
    };
    let a = "Authorization: Bearer 0123456789\r\n";
    let b = "Authorization: Bearer abcdefghij\r\n";
    let text = "The whale swims past the boat, and the boat follows the whale.";
    let ask = |slot: u64| {
        let body = json!({"prompt": text, "n_predict": 4, "seed": 1, "id_slot": slot});
        let (status, answer) = request(&socket, "/completion", a, &body);
        assert_eq!(status, 200, "{answer}");
        (answer["content"].clone(), answer["timings"]["cache_n"].as_u64().unwrap())
    };
    let act = |who: &str, slot_and_action: &str, name: &str| {
        request(&socket, &format!("/slots/{slot_and_action}"), who, &json!({ "filename": name }))
    };
    let serving = start();
    let (status, refusal) = act(a, "1?action=save", "s");
    assert_eq!(status, 400, "nothing is in it: {refusal}");
    let (said, _) = ask(1);
    let (status, saved) = act(a, "1?action=save", "s.bin");
    assert_eq!((status, &saved["filename"]), (200, &json!("s.bin")), "{saved}");
    assert!(saved["n_saved"].as_u64() > Some(8) && saved["timings"]["save_ms"].is_number());
    let file = slots.join("s.bin");
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!(saved["n_written"], metadata.len());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(act(a, "1?action=save", "../s").0, 400);
    assert_eq!(act(b, "1?action=restore", "s.bin").0, 404, "to others it is not there");
    ask(2);
    assert_eq!(serving.terminate(), Some(0));

    let serving = start();
    let (status, restored) = act(a, "0?action=restore", "s.bin");
    assert_eq!((status, &restored["n_restored"]), (200, &saved["n_saved"]), "{restored}");
    let (again, known) = ask(0);
    assert!(again == said && known > 8, "{known}");
    fs::write(slots.join("other"), "x").unwrap();
    let (status, error) = act(a, "0?action=save", "other");
    assert!(status == 400 && error.to_string().contains("not yours"), "{error}");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (status, error) = act(a, "0?action=restore", "s.bin");
    assert!(status == 400 && error.to_string().contains("s.bin is damaged"), "{error}");
    assert!(!error.to_string().contains(slots.to_str().unwrap()), "{error}");
    assert_eq!(act(a, "0?action=save", "s.bin").0, 200, "one's own is replaced");
    assert_eq!(serving.terminate(), Some(0));
}

#[test]
fn a_unix_socket_and_systemd_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, notify) = (folder.path().join("v.sock"), folder.path().join("notify"));
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut command = vaquita(["serve", "--listen"]);
    command.arg(format!("unix:{}", socket.display())).env("NOTIFY_SOCKET", &notify);
    let (serving, _) = Serving::start(&mut command);
    let mut said = [0; 64];
    let read = systemd.recv(&mut said).unwrap();
    assert_eq!(&said[..read], b"READY=1");
    assert_eq!(health(UnixStream::connect(&socket).unwrap()), "HTTP/1.1 200 OK");
    assert_eq!(serving.terminate(), Some(0));
    let read = systemd.recv(&mut said).unwrap();
    assert_eq!(&said[..read], b"STOPPING=1");
    assert!(!socket.exists());
}

#[test]
fn requests_have_defaults_and_there_may_be_several_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("v.sock");
    let mut command =
        vaquita(["serve", "--seed", "42", "--max-tokens", "3", "--temperature", "0.5"]);
    command.args(["--listen", "127.0.0.1:0", "--without", "metrics", "--listen"]);
    let (serving, url) = Serving::start(command.arg(format!("unix:{}", socket.display())));
    let address = url.strip_prefix("http://").unwrap();
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    completion(&url, "x");
    let props = ask("/props");
    for default in ["\"seed\":42", "\"n_predict\":3", "\"temperature\":0.5"] {
        assert!(props.contains(default), "{props}");
    }
    assert!(ask("/metrics").starts_with("HTTP/1.1 501"));
    assert_eq!(health(UnixStream::connect(&socket).unwrap()), "HTTP/1.1 200 OK");
    assert_eq!(serving.terminate(), Some(0));
}

#[test]
fn other_machines_need_a_key_that_others_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let serve = |more: &[&str]| {
        let mut command = vaquita(["serve", "--listen", "0.0.0.0:0"]);
        command.arg(reference()).args(more).env_remove("VAQUITA_API_KEY");
        command
    };
    let error = failure(&mut serve(&[]), 2);
    assert!(error.contains("--api-key-file"), "{error}");
    let file = ["--api-key-file", keys.to_str().unwrap()];
    fs::write(&keys, "0123456789abcdef\n").unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).unwrap();
    let error = failure(&mut serve(&file), 1);
    assert!(error.contains("chmod 600"), "{error}");
    fs::write(&keys, "short\n").unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    let error = failure(&mut serve(&file), 1);
    assert!(error.contains("line 1"), "{error}");
    assert!(!error.contains("short"), "keys are not shown");
}

#[test]
fn wrong_options_are_refused() {
    let serve = |arguments: &[&str]| failure(vaquita(["serve"]).args(arguments), 2);
    assert!(serve(&["x.gguf", "--listen", "nowhere"]).contains("HOST:PORT"));
    assert!(serve(&["x.gguf", "--slots", "0"]).contains("1..=256"));
    assert!(serve(&["x.gguf", "--draft", "on"]).contains("lookup:DEPTH"));
    let missing = failure(vaquita(["serve", "missing.gguf"]).arg("--listen").arg("127.0.0.1:0"), 1);
    assert!(missing.contains("missing.gguf"), "{missing}");
}
