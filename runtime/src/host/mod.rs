//! The machine: system files, command output, and time. A [`recording`] replaces a machine that is
//! not available, so that code for boards can be tested anywhere.

pub mod recording;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use recording::{Recording, RecordingError};

/// A live or recorded machine.
pub struct Host(Kind);

enum Kind {
    Live { root: PathBuf, since: Instant },
    Recorded(Mutex<Recording>),
}

impl Host {
    /// This machine.
    pub fn live() -> Self {
        Self::under(Path::new("/"))
    }

    /// This machine, with system files read below `root`.
    pub fn under(root: &Path) -> Self {
        Self(Kind::Live { root: root.into(), since: Instant::now() })
    }

    /// A recorded machine, from the JSON text of a [`recording`].
    pub fn recorded(text: &str) -> Result<Self, RecordingError> {
        Ok(Self(Kind::Recorded(Mutex::new(Recording::parse(text)?))))
    }

    /// Whether time passes by itself.
    pub fn is_live(&self) -> bool {
        matches!(self.0, Kind::Live { .. })
    }

    /// Reads a file as text; `path` is relative to the root.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<String> {
        match &self.0 {
            Kind::Live { root, .. } => std::fs::read_to_string(root.join(path)),
            Kind::Recorded(recording) => lock(recording).read(path.as_ref()),
        }
    }

    /// Reads a file as trimmed text; `None` if it cannot be read.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(self.read(path).ok()?.trim().to_string())
    }

    /// Reads a number from a file; `None` if it cannot be read or parsed.
    pub fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The sorted names in a folder, with numbers in natural order; empty if it cannot be read.
    pub fn list(&self, folder: impl AsRef<Path>) -> Vec<String> {
        let mut names = match &self.0 {
            Kind::Live { root, .. } => std::fs::read_dir(root.join(folder))
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect(),
            Kind::Recorded(recording) => lock(recording).list(folder.as_ref()),
        };
        // `cpu2` comes before `cpu10`.
        names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        names
    }

    /// Runs a command and returns its standard output; an error if the command fails.
    pub fn run(&self, program: &str, args: &[&str]) -> io::Result<String> {
        match &self.0 {
            Kind::Live { .. } => {
                let mut command = Command::new(program);
                let output = command.args(args).stdin(Stdio::null()).output()?;
                if !output.status.success() {
                    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
                    return Err(io::Error::other(format!("{program}: {} {said}", output.status)));
                }
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Kind::Recorded(recording) => lock(recording).run(program, args),
        }
    }

    /// Time since this host was created, or since the recording began.
    pub fn now(&self) -> Duration {
        match &self.0 {
            Kind::Live { since, .. } => since.elapsed(),
            Kind::Recorded(recording) => lock(recording).now(),
        }
    }

    /// Advances a recording to its next moment; no effect on a live machine.
    pub fn advance(&self) {
        if let Kind::Recorded(recording) = &self.0 {
            lock(recording).advance();
        }
    }
}

/// Changes under the lock are single assignments, so a poisoned lock is still consistent.
fn lock(recording: &Mutex<Recording>) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}
