//! Texts to measure on: one JSON object per line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::EvalError;

#[derive(Deserialize)]
struct Document {
    text: String,
}

/// The `text` of each line.
pub fn read_documents(path: &Path) -> Result<Vec<String>, EvalError> {
    let documents: Vec<Document> = read_jsonl(path, "`text`")?;
    Ok(documents.into_iter().map(|document| document.text).collect())
}

/// Each line, empty ones left out. `fields` names what a line must have, for the error.
pub fn read_jsonl<T: DeserializeOwned>(
    path: &Path,
    fields: &'static str,
) -> Result<Vec<T>, EvalError> {
    let io = |source| EvalError::Io { path: path.into(), source };
    let mut rows = Vec::new();
    for (i, line) in BufReader::new(File::open(path).map_err(io)?).lines().enumerate() {
        let line = line.map_err(io)?;
        if line.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str(&line);
        let bad = |source| EvalError::Line { path: path.into(), line: i + 1, source, fields };
        rows.push(row.map_err(bad)?);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, EvalError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.jsonl");
        std::fs::write(&path, text).unwrap();
        read_documents(&path)
    }

    #[test]
    fn each_line_is_a_document() {
        assert_eq!(
            read("{\"text\": \"a\\nb\"}\n\n{\"text\": \"c\", \"n\": 1}\n").unwrap(),
            ["a\nb", "c"]
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        let message = read("{\"text\": \"a\"}\n{\"body\": 1}\n").unwrap_err().to_string();
        assert!(message.contains("texts.jsonl, line 2: missing field `text`"), "{message}");
        assert!(read_documents(Path::new("/nowhere.jsonl")).is_err());
    }
}
