//! Options of a server.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::http::keys::Keys;

/// A part of the server that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The page at `/`.
    Page,
    /// `GET /slots`.
    Slots,
    /// `GET /metrics`.
    Metrics,
}

impl FromStr for Part {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "page" => Ok(Self::Page),
            "slots" => Ok(Self::Slots),
            "metrics" => Ok(Self::Metrics),
            _ => Err("allowed: page, slots, metrics"),
        }
    }
}

/// How a server listens, whom it serves, and within which limits.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Keys; without keys, every client that reaches the server may use it.
    pub keys: Keys,
    /// Allows to listen on addresses that other machines reach without keys.
    pub insecure_no_key: bool,
    /// Names besides those of this machine under which clients address the server.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may use the server, such as `https://chat.example`; `localhost` stands
    /// for all of this machine, `*` for all.
    pub cors_origins: Vec<String>,
    /// Parts that are left out.
    pub without: Vec<Part>,
    /// Whether answers tell their prompt (`__verbose`) where a request does not say.
    pub verbose: bool,
    /// Folder for a file with all prompts and answers; `None` logs no texts.
    pub log_prompts: Option<PathBuf>,
    /// Folder for files of slots; `None` saves none.
    pub slot_save_path: Option<PathBuf>,
    /// Limits.
    pub limits: Limits,
    /// Time that running answers get when the server ends.
    pub grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            keys: Keys::default(),
            insecure_no_key: false,
            allowed_hosts: Vec::new(),
            cors_origins: Vec::new(),
            without: Vec::new(),
            verbose: false,
            log_prompts: None,
            slot_save_path: None,
            limits: Limits::default(),
            grace: Duration::from_secs(30),
        }
    }
}

/// Limits on connections and requests.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// Connections at the same time from one address other than this machine's.
    pub connections_per_peer: usize,
    /// Size of a request's head in bytes, at least 8192.
    pub head_bytes: usize,
    /// Time from the first byte of a request's head to its last.
    pub head_time: Duration,
    /// Size of a request's body in bytes.
    pub body_bytes: usize,
    /// Time to read a request's body.
    pub body_time: Duration,
    /// Time after which a connection without requests is closed.
    pub idle_time: Duration,
    /// Time after which a client that reads nothing is dropped, and its answer cancelled.
    pub stall_time: Duration,
    /// Time between two signs of life to a client that waits.
    pub keep_alive: Duration,
    /// Time after which a request that waits is given up.
    pub queue_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_per_peer: 32,
            head_bytes: 16 << 10,
            head_time: Duration::from_secs(10),
            body_bytes: 4 << 20,
            body_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(75),
            stall_time: Duration::from_secs(60),
            keep_alive: Duration::from_secs(10),
            queue_time: Duration::from_secs(600),
        }
    }
}
