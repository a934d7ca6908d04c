//! Evaluation and calibration texts: one JSON object per line, or plain text.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::EvalError;

#[derive(Deserialize)]
struct Document {
    text: String,
}

/// Maximum length of a JSON line, in bytes.
const LONGEST_LINE: u64 = 32 << 20;
/// Length in bytes above which a paragraph is split into several documents.
const LONGEST_PARAGRAPH: usize = 8192;

/// The documents of a file. For JSON lines (a name that ends in `.jsonl`, or contents that begin
/// with a brace), the `text` of each line; for plain text, the paragraphs separated by blank lines,
/// with long ones split between words.
pub fn read_documents(path: &Path) -> Result<Vec<String>, EvalError> {
    if is_jsonl(path)? {
        let documents: Vec<Document> = read_jsonl(path, "`text`")?;
        return Ok(documents.into_iter().map(|document| document.text).collect());
    }
    let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
        ErrorKind::InvalidData => EvalError::NotText { path: path.into() },
        _ => EvalError::Io { path: path.into(), source },
    })?;
    Ok(paragraphs(&text))
}

fn is_jsonl(path: &Path) -> Result<bool, EvalError> {
    let io = |source| EvalError::Io { path: path.into(), source };
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    if path.extension().is_some_and(|end| end == "jsonl") {
        return Ok(true);
    }
    let first =
        file.by_ref().bytes().find(|byte| !matches!(byte, Ok(b) if b.is_ascii_whitespace()));
    Ok(matches!(first.transpose().map_err(io)?, Some(b'{')))
}

/// Runs of non-blank lines, split if they are too long.
fn paragraphs(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for line in text.lines() {
        match found.last_mut() {
            Some(last) if !line.trim().is_empty() => {
                if !last.is_empty() {
                    last.push('\n');
                }
                last.push_str(line);
            }
            _ => found.push(String::new()),
        }
    }
    found.iter().flat_map(|paragraph| pieces(paragraph)).filter(|piece| !piece.is_empty()).collect()
}

/// Splits a paragraph before the last white space at which a piece is short enough, or within a
/// word if there is none.
fn pieces(mut text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    while text.len() > LONGEST_PARAGRAPH {
        let most = text.floor_char_boundary(LONGEST_PARAGRAPH);
        let space = text[..most].rfind(char::is_whitespace).filter(|at| *at > 0);
        let (piece, rest) = text.split_at(space.unwrap_or(most));
        pieces.push(piece.trim().to_string());
        text = rest.trim_start();
    }
    pieces.push(text.trim().to_string());
    pieces
}

/// Parses each non-empty line. `fields` names the required fields, for errors.
pub fn read_jsonl<T: DeserializeOwned>(
    path: &Path,
    fields: &'static str,
) -> Result<Vec<T>, EvalError> {
    let io = |source| EvalError::Io { path: path.into(), source };
    let mut rows = Vec::new();
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    for i in 0.. {
        let mut line = Vec::new();
        file.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut line).map_err(io)?;
        if line.is_empty() {
            break;
        }
        if line.len() as u64 > LONGEST_LINE {
            return Err(EvalError::LongLine { path: path.into(), line: i + 1, most: LONGEST_LINE });
        }
        let line = String::from_utf8(line)
            .map_err(|error| io(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
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

    fn read(text: impl AsRef<[u8]>) -> Result<Vec<String>, EvalError> {
        read_as("texts.jsonl", text)
    }

    fn read_as(name: &str, text: impl AsRef<[u8]>) -> Result<Vec<String>, EvalError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
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

    #[test]
    fn plain_texts_documents_are_its_paragraphs() {
        let text = "\n\nOne line,\nand another.\r\n \t\n\nThe second.\n";
        assert_eq!(read_as("book.txt", text).unwrap(), ["One line,\nand another.", "The second."]);
        assert!(read_as("empty.txt", "\n \n").unwrap().is_empty());
        // A file that begins with a brace is parsed as JSON lines, regardless of its name.
        assert_eq!(read_as("texts.txt", " {\"text\": \"a\"}\n").unwrap(), ["a"]);
        let message = read_as("book.txt", b"caf\xe9").unwrap_err().to_string();
        assert!(message.contains("book.txt") && message.contains("UTF-8"), "{message}");
    }

    #[test]
    fn a_long_paragraph_is_cut_between_words_and_loses_none() {
        let words: Vec<String> = (0..5000).map(|n| format!("wörd{n}")).collect();
        let pieces = read_as("book.txt", words.join(" ")).unwrap();
        assert!(pieces.len() > 4 && pieces.iter().all(|one| one.len() <= LONGEST_PARAGRAPH));
        assert_eq!(pieces.join(" "), words.join(" "));
        let pieces = read_as("book.txt", "ö".repeat(LONGEST_PARAGRAPH)).unwrap();
        assert_eq!(pieces.concat(), "ö".repeat(LONGEST_PARAGRAPH));
    }
}
