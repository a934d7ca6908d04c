//! Answers in a file, so that an evaluation that ends early goes on where it was.
//!
//! The first line describes the run; each further line is an answer. A truncated last line is
//! ignored.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::EvalError;

/// A line: an answer to a question.
#[derive(Serialize, Deserialize)]
struct Line<T> {
    question: usize,
    sample: usize,
    #[serde(flatten)]
    answer: T,
}

/// The answers of a run, in memory and in a file.
pub struct Journal<T> {
    known: HashMap<(usize, usize), T>,
    file: Option<(PathBuf, Mutex<File>)>,
}

/// A checksum of prompts, for the description of a run.
pub fn fingerprint(prompts: &[String]) -> String {
    let mut hasher = crc32fast::Hasher::new();
    for prompt in prompts {
        hasher.update(&(prompt.len() as u64).to_le_bytes());
        hasher.update(prompt.as_bytes());
    }
    format!("crc32:{:08x}", hasher.finalize())
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Without a file, nothing is kept.
    pub fn none() -> Self {
        Self { known: HashMap::new(), file: None }
    }

    /// Opens or begins the file of a run.
    pub fn open(path: &Path, run: &Value) -> Result<Self, EvalError> {
        let io = |source| EvalError::Io { path: path.into(), source };
        let options = OpenOptions::new().read(true).append(true).create(true).clone();
        let mut file = options.open(path).map_err(io)?;
        file.try_lock().map_err(|_| EvalError::Busy { path: path.into() })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let text = std::str::from_utf8(&bytes[..whole]);
        let text = text.map_err(|_| EvalError::OtherRun { path: path.into() })?;
        let mut lines = text.lines();
        let first = lines.next().and_then(|line| serde_json::from_str::<Value>(line).ok());
        match first {
            Some(first) if first == json!({ "run": run }) => {}
            None if bytes.is_empty() => {
                writeln!(file, "{}", json!({ "run": run })).map_err(io)?;
            }
            _ => return Err(EvalError::OtherRun { path: path.into() }),
        }
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(io)?;
        }
        let mut known = HashMap::new();
        for line in lines {
            let line = serde_json::from_str::<Line<T>>(line);
            let Line { question, sample, answer } =
                line.map_err(|_| EvalError::OtherRun { path: path.into() })?;
            known.insert((question, sample), answer);
        }
        Ok(Self { known, file: Some((path.into(), Mutex::new(file))) })
    }

    /// A known answer.
    pub fn known(&self, question: usize, sample: usize) -> Option<&T> {
        self.known.get(&(question, sample))
    }

    /// Keeps an answer.
    pub fn keep(&self, question: usize, sample: usize, answer: &T) -> Result<(), EvalError> {
        let Some((path, file)) = &self.file else { return Ok(()) };
        let mut line = serde_json::to_string(&Line { question, sample, answer })
            .map_err(|error| EvalError::Io { path: path.clone(), source: error.into() })?;
        line.push('\n');
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = file.write_all(line.as_bytes());
        written.map_err(|source| EvalError::Io { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Said {
        text: String,
    }

    fn said(text: &str) -> Said {
        Said { text: text.into() }
    }

    #[test]
    fn a_run_goes_on_after_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let run = json!({"model": "m", "seed": 1});
        let journal = Journal::open(&path, &run).unwrap();
        journal.keep(0, 1, &said("a\nb")).unwrap();
        journal.keep(1, 0, &said("c")).unwrap();
        assert!(matches!(Journal::<Said>::open(&path, &run), Err(EvalError::Busy { .. })));
        drop(journal);
        let len = std::fs::metadata(&path).unwrap().len();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(len - 3).unwrap();
        let journal = Journal::<Said>::open(&path, &run).unwrap();
        assert_eq!(journal.known(0, 1), Some(&said("a\nb")));
        assert_eq!(journal.known(1, 0), None);
        journal.keep(1, 0, &said("d")).unwrap();
        drop(journal);
        let journal = Journal::<Said>::open(&path, &run).unwrap();
        assert_eq!(journal.known(1, 0), Some(&said("d")));
    }

    #[test]
    fn another_run_is_not_mixed_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        drop(Journal::<Said>::open(&path, &json!({"seed": 1})).unwrap());
        let other = Journal::<Said>::open(&path, &json!({"seed": 2}));
        assert!(matches!(other, Err(EvalError::OtherRun { .. })));
        std::fs::write(&path, "some notes\n").unwrap();
        let other = Journal::<Said>::open(&path, &json!({"seed": 1}));
        assert!(matches!(other, Err(EvalError::OtherRun { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "some notes\n");
    }
}
