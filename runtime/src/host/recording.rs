//! A recorded machine as JSON: a list of moments, each with its time and the changes since the
//! previous one:
//!
//! ```json
//! [
//!   {"at": 0.0, "files": {"sys/class/powercap/intel-rapl:0/energy_uj": "900000\n"},
//!    "commands": {"vcgencmd pmic_read_adc": "..."}},
//!   {"at": 2.0, "files": {"sys/class/powercap/intel-rapl:0/energy_uj": {"error": "permission_denied"}}},
//!   {"at": 3.0, "files": {"sys/class/powercap/intel-rapl:0/energy_uj": null}}
//! ]
//! ```
//!
//! `null` removes a file. Time stands still until [`Host::advance`](super::Host::advance), and
//! stays at the last moment.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

/// Error of parsing a recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// Invalid JSON, or not the format described above.
    #[error("not a recording of a machine: {0}")]
    Json(#[from] serde_json::Error),
    /// A recording without moments.
    #[error("a recording of a machine has at least one moment; this one has none")]
    Empty,
    /// Times that do not ascend.
    #[error("a recording's times ascend from 0 in seconds; found {found}")]
    Time {
        /// The offending time, in seconds.
        found: f64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Moment {
    /// Time in seconds.
    at: f64,
    #[serde(default)]
    files: BTreeMap<String, Option<Content>>,
    #[serde(default)]
    commands: BTreeMap<String, Option<Content>>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Error { error: Refusal },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Refusal {
    PermissionDenied,
}

impl Content {
    fn text(&self) -> io::Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Error { error: Refusal::PermissionDenied } => {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
    }
}

pub(super) struct Recording {
    files: BTreeMap<String, Content>,
    commands: BTreeMap<String, Content>,
    now: Duration,
    to_come: std::vec::IntoIter<Moment>,
}

impl Recording {
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let moments: Vec<Moment> = serde_json::from_str(text)?;
        let mut last = 0.0;
        for Moment { at: found, .. } in &moments {
            if !(last..=1e9).contains(found) {
                return Err(RecordingError::Time { found: *found });
            }
            last = *found;
        }
        if moments.is_empty() {
            return Err(RecordingError::Empty);
        }
        let (files, commands) = (BTreeMap::new(), BTreeMap::new());
        let to_come = moments.into_iter();
        let mut recording = Self { files, commands, now: Duration::ZERO, to_come };
        recording.advance();
        Ok(recording)
    }

    pub fn advance(&mut self) {
        let Some(moment) = self.to_come.next() else { return };
        self.now = Duration::from_secs_f64(moment.at);
        update(&mut self.files, moment.files);
        update(&mut self.commands, moment.commands);
    }

    pub fn now(&self) -> Duration {
        self.now
    }

    pub fn read(&self, path: &Path) -> io::Result<String> {
        self.files.get(&*path.to_string_lossy()).ok_or(io::ErrorKind::NotFound)?.text()
    }

    pub fn run(&self, program: &str, args: &[&str]) -> io::Result<String> {
        let line = [&[program], args].concat().join(" ");
        self.commands.get(&line).ok_or(io::ErrorKind::NotFound)?.text()
    }

    pub fn list(&self, folder: &Path) -> Vec<String> {
        let within = |path: &String| {
            let below = Path::new(path).strip_prefix(folder).ok()?;
            Some(below.iter().next()?.to_string_lossy().into_owned())
        };
        let mut names: Vec<String> = self.files.keys().filter_map(within).collect();
        names.dedup();
        names
    }
}

fn update(all: &mut BTreeMap<String, Content>, changes: BTreeMap<String, Option<Content>>) {
    for (name, content) in changes {
        match content {
            Some(content) => drop(all.insert(name, content)),
            None => drop(all.remove(&name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Host;
    use super::*;

    #[test]
    fn a_recording_goes_from_moment_to_moment_and_stays_at_the_last() {
        let host = Host::recorded(
            r#"[{"at": 0, "files": {"a/b": "1\n", "a/c/d": "2"}, "commands": {"say hello": "hello"}},
                {"at": 1.5, "files": {"a/b": null, "a/c/d": {"error": "permission_denied"}}}]"#,
        )
        .unwrap();
        assert_eq!(host.number("a/b"), Some(1));
        assert_eq!(host.list("a"), ["b", "c"]);
        assert_eq!(host.run("say", &["hello"]).unwrap(), "hello");
        for _ in 0..3 {
            host.advance();
            assert_eq!(host.now(), Duration::from_millis(1500));
            assert_eq!(host.read("a/b").unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(host.read("a/c/d").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        assert!(!host.is_live());
    }

    #[test]
    fn what_is_no_recording_is_refused() {
        for text in ["", "{}", "[]", r#"[{"at": -1}]"#, r#"[{"at": 2}, {"at": 1}]"#] {
            assert!(Host::recorded(text).is_err(), "{text}");
        }
        assert!(Host::recorded(r#"[{"at": 0, "file": {}}]"#).is_err());
    }
}
