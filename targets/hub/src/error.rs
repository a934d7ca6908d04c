//! Errors of fetching a model: what was wrong, and what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Error of finding or fetching a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name of a model is invalid.
    #[error(
        "{found:?} is not a model of the hub: {problem}; write it like ORG/MODEL[@REVISION][:FILE or quantization]"
    )]
    Name {
        /// The name given.
        found: String,
        /// The problem.
        problem: &'static str,
    },
    /// No folder for the cache is known.
    #[error("no home folder is known, so there is no place for models; set HF_HOME")]
    NoHome,
    /// `HF_ENDPOINT`, or a redirect, is not a usable address.
    #[error("{found:?} is not an address of the form https://HOST")]
    Address {
        /// The address.
        found: String,
    },
    /// curl is missing.
    #[error(
        "curl cannot be started ({source}), which transfers the files; install it, for example with: apt install curl"
    )]
    NoCurl {
        /// The I/O error.
        source: io::Error,
    },
    /// `HF_HUB_OFFLINE` is set.
    #[error("HF_HUB_OFFLINE is set, and {name} is not in the cache")]
    Offline {
        /// The model.
        name: String,
    },
    /// The server cannot be reached, or the connection broke.
    #[error("{url}: {problem}")]
    Connection {
        /// The address, without its query.
        url: String,
        /// The problem.
        problem: String,
    },
    /// The server is busy or limits its rate.
    #[error("{url}: the server answers {status} (too many requests, or busy){}; try again later, or set HF_TOKEN, which has higher limits", after(.retry_after))]
    Busy {
        /// The address, without its query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// Too many redirects, or one to an address that is not allowed.
    #[error("{url}: redirected to {to:?}, which is not followed: {problem}")]
    Redirect {
        /// The address, without its query.
        url: String,
        /// The target, without its query.
        to: String,
        /// The problem.
        problem: &'static str,
    },
    /// The model does not exist, or it is private.
    #[error(
        "{name}: no such model at {endpoint}, or it is private: check the spelling; private models need HF_TOKEN"
    )]
    NoModel {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
    },
    /// The revision does not exist.
    #[error("{name} has no revision {revision:?}")]
    NoRevision {
        /// The model.
        name: String,
        /// The revision.
        revision: String,
    },
    /// The model is gated.
    #[error("{name} is gated: read and accept its terms at {endpoint}/{name}, then set HF_TOKEN to a token of your account ({endpoint}/settings/tokens){}", reason(.said))]
    Gated {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// What the server said.
        said: String,
    },
    /// The token is not valid.
    #[error(
        "{endpoint} does not accept the token (from HF_TOKEN or the hub's token file): make a new one at {endpoint}/settings/tokens"
    )]
    Token {
        /// The hub.
        endpoint: String,
    },
    /// Any other HTTP status.
    #[error("{url}: the server answers {status}{}", reason(.said))]
    Status {
        /// The address, without its query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The hub's name for the reason, such as `GatedRepo`; empty if it gives none.
        code: String,
        /// What the server said.
        said: String,
    },
    /// The answer of the server makes no sense.
    #[error("{url}: {problem}; found {found}")]
    Answer {
        /// The address, without its query.
        url: String,
        /// The problem.
        problem: &'static str,
        /// What was found.
        found: String,
    },
    /// The server ignores ranges. The download continues without them.
    #[error("{url}: the server does not serve ranges")]
    NoRanges {
        /// The address, without its query.
        url: String,
    },
    /// A file name of the listing could leave the folder of the model.
    #[error(
        "{name} lists a file called {file:?}, which is refused: names must lie within the model's folder"
    )]
    FileName {
        /// The model.
        name: String,
        /// The file name.
        file: String,
    },
    /// The listing has no size or checksum of a file.
    #[error(
        "{name}: the hub gives no {what} for {file}, so it cannot be checked; is HF_ENDPOINT a whole mirror?"
    )]
    NoChecksum {
        /// The model.
        name: String,
        /// The file name.
        file: String,
        /// What is missing.
        what: &'static str,
    },
    /// No file has that name or quantization.
    #[error("{name} has nothing called {part:?}; it has: {available}")]
    NoPart {
        /// The model.
        name: String,
        /// The name asked for.
        part: String,
        /// What it has.
        available: String,
    },
    /// Several files match.
    #[error("{name}: which of them? Write one after a colon: {available}")]
    Ambiguous {
        /// The model.
        name: String,
        /// What matches.
        available: String,
    },
    /// A split model is not published as a whole.
    #[error(
        "{name}: {label} has {found} of {count} files; the publisher has not uploaded all of it"
    )]
    MissingSplit {
        /// The model.
        name: String,
        /// The quantization.
        label: String,
        /// Number of files that exist.
        found: usize,
        /// Number of files of the split model.
        count: usize,
    },
    /// Neither GGUF nor safetensors.
    #[error("{name} has neither a GGUF file nor safetensors with a config.json")]
    NoWeights {
        /// The model.
        name: String,
    },
    /// Not enough free space.
    #[error(
        "{folder} has {free} bytes free, and {needed} are needed; free some, or set HF_HOME to a larger disk"
    )]
    NoSpace {
        /// The folder.
        folder: PathBuf,
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        needed: u64,
    },
    /// The disk became full.
    #[error(
        "{path}: the disk is full; what arrived is kept: free some space and run the same command again"
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The content differs from what was published.
    #[error(
        "{file} arrived damaged (checksum {found}, published {expected}) and was deleted; run the same command again"
    )]
    Checksum {
        /// The file name.
        file: String,
        /// The checksum of what arrived.
        found: String,
        /// The published checksum.
        expected: String,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
}

fn reason(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

fn after(time: &Option<Duration>) -> String {
    time.map(|time| format!(" and asks to wait {} seconds", time.as_secs())).unwrap_or_default()
}

impl HubError {
    /// An I/O error at `path`; a full disk is told apart.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, source },
        }
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Connection { .. } | Self::Busy { .. })
    }
}
