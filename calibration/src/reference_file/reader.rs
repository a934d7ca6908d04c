//! Reads reference files. The file is untrusted until it has been checked: its size must match the
//! header exactly, and rows must be probabilities.

use std::io::Read;
use std::path::{Path, PathBuf};

use half::f16;
use vaquita_runtime::bytes::{Bytes, file};

use super::{CHECKSUM_AT, HEADER_BYTES, MAGIC, MAX_NAME_BYTES, ReferenceError, VERSION, row_bytes};
use crate::EvalError;

/// Allowed sum of a row's probabilities before they are normalised: rounding to half precision
/// changes the sum by less than 1%.
const SUM: std::ops::RangeInclusive<f64> = 0.99..=1.01;

/// An open reference file.
pub struct ReferenceFile {
    path: PathBuf,
    bytes: Bytes,
    name: String,
    vocab_size: usize,
    tokenizer: u32,
    documents: Vec<Entry>,
}

struct Entry {
    tokens: Vec<u32>,
    rows_at: usize,
    checksum: u32,
}

/// A prediction of the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Most likely next token.
    pub top: Option<usize>,
    /// Negative log-likelihood of the following token, in nats.
    pub loss: f64,
    /// Log-probability of every token of the vocabulary.
    pub log_probs: Vec<f64>,
}

impl ReferenceFile {
    /// Whether a file begins with the magic number.
    pub fn is_one(path: &Path) -> bool {
        let mut magic = [0; MAGIC.len()];
        path.is_file()
            && file::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok())
            && magic == MAGIC
    }

    /// Opens a file and checks everything except the rows, which are checked when they are read.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        let open = || -> Result<Self, ReferenceError> {
            let bytes = Bytes::map(&file::open(path)?)?;
            Self::parse(path, bytes)
        };
        open().map_err(|source| EvalError::Reference { path: path.into(), source })
    }

    pub(super) fn parse(path: &Path, bytes: Bytes) -> Result<Self, ReferenceError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(ReferenceError::Magic);
        }
        let len = bytes.len();
        let mut cursor = Cursor { bytes: &bytes, at: MAGIC.len() };
        let version = cursor.u32("the version")?;
        if version != VERSION {
            return Err(ReferenceError::Version { found: version });
        }
        let vocab_size = cursor.u32("the vocabulary's size")? as usize;
        let tokenizer = cursor.u32("the vocabulary's fingerprint")?;
        let count = cursor.u32("the number of documents")? as usize;
        let total = cursor.u64("the number of tokens")?;
        let name_bytes = cursor.u32("the length of the name")? as usize;
        let checksum = cursor.u32("the checksum")?;
        if vocab_size == 0 || count == 0 {
            return Err(damaged(format!(
                "{vocab_size} tokens and {count} documents; allowed: from 1"
            )));
        }
        if name_bytes > MAX_NAME_BYTES {
            let found = format!("a name of {name_bytes} bytes; allowed: {MAX_NAME_BYTES}");
            return Err(damaged(found));
        }
        let name = String::from_utf8_lossy(cursor.take(name_bytes, "the name")?).into_owned();
        let table_len = count.checked_mul(8).ok_or_else(|| damaged("too many documents"))?;
        let table = cursor.take(table_len, "the table of documents")?;
        let table: Vec<[u32; 2]> = table.as_chunks::<8>().0.iter().map(pair).collect();
        let sum: u64 = table.iter().map(|[tokens, _]| u64::from(*tokens)).sum();
        if sum != total {
            return Err(damaged(format!("{total} tokens in the header, {sum} in the table")));
        }
        let row = row_bytes(vocab_size).ok_or_else(|| damaged("too large a vocabulary"))?;
        let mut documents = Vec::with_capacity(table.len());
        for [tokens, checksum] in table {
            if tokens < 2 {
                return Err(damaged(format!("a document of {tokens} tokens; allowed: from 2")));
            }
            let bytes =
                (tokens as usize).checked_mul(4).ok_or_else(|| damaged("too many tokens"))?;
            let bytes = cursor.take(bytes, "the tokens")?.as_chunks::<4>().0.iter();
            let tokens: Vec<u32> = bytes.map(|token| u32::from_le_bytes(*token)).collect();
            if let Some(bad) = tokens.iter().find(|token| **token as usize >= vocab_size) {
                let found = format!("token {bad} in a vocabulary of {vocab_size}");
                return Err(damaged(found));
            }
            documents.push(Entry { tokens, rows_at: 0, checksum });
        }
        let head = cursor.at;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..CHECKSUM_AT]);
        hasher.update(&[0; HEADER_BYTES - CHECKSUM_AT]);
        hasher.update(&bytes[HEADER_BYTES..head]);
        let found = hasher.finalize();
        if found != checksum {
            let found = format!("checksum {found:08x}, the header says {checksum:08x}");
            return Err(damaged(found));
        }
        let mut at = head;
        for entry in &mut documents {
            entry.rows_at = at;
            let rows = row.checked_mul(entry.tokens.len() - 1);
            at = rows
                .and_then(|rows| at.checked_add(rows))
                .ok_or_else(|| damaged("more rows than can be counted"))?;
        }
        if at != len {
            return Err(damaged(format!("{len} bytes, the header says {at}")));
        }
        Ok(Self { path: path.into(), bytes, name, vocab_size, tokenizer, documents })
    }

    /// Name of the reference.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Checks that a model's tokens have the same meaning.
    pub(crate) fn check(&self, model_size: usize, expected: u32) -> Result<(), EvalError> {
        if (model_size, expected) == (self.vocab_size, self.tokenizer) {
            return Ok(());
        }
        let (name, vocab_size, found) = (self.name.clone(), self.vocab_size, self.tokenizer);
        Err(self.error(ReferenceError::Tokenizer { name, vocab_size, found, model_size, expected }))
    }

    /// A document with its rows, whose checksum is verified.
    pub fn document(&self, at: usize) -> Result<Document<'_>, EvalError> {
        let lacking = || self.error(damaged(format!("document {at} is not there")));
        let entry = self.documents.get(at).ok_or_else(lacking)?;
        let row = row_bytes(self.vocab_size).ok_or_else(lacking)?;
        let range = entry.rows_at..entry.rows_at + row * (entry.tokens.len() - 1);
        let bytes = self.bytes.slice(range).ok_or_else(lacking)?;
        let found = crc32fast::hash(&bytes);
        if found != entry.checksum {
            let expected = entry.checksum;
            let found =
                format!("document {at} has checksum {found:08x}, the table says {expected:08x}");
            return Err(self.error(damaged(found)));
        }
        Ok(Document { file: self, tokens: &entry.tokens, bytes, row })
    }

    fn error(&self, source: ReferenceError) -> EvalError {
        EvalError::Reference { path: self.path.clone(), source }
    }
}

/// One document.
pub struct Document<'a> {
    file: &'a ReferenceFile,
    /// Tokens of the document.
    pub tokens: &'a [u32],
    bytes: Bytes,
    row: usize,
}

impl Document<'_> {
    /// The reference's prediction after each token except the last.
    pub fn rows(&self) -> impl Iterator<Item = Result<Row, EvalError>> {
        self.bytes
            .chunks_exact(self.row)
            .map(|bytes| parse_row(bytes).map_err(|source| self.file.error(source)))
    }

    /// Releases the memory of the rows.
    pub fn release(&self) {
        self.bytes.release();
    }
}

fn parse_row(bytes: &[u8]) -> Result<Row, ReferenceError> {
    let mut cursor = Cursor { bytes, at: 0 };
    let top = cursor.u32("a row")? as usize;
    let loss = f64::from(f32::from_bits(cursor.u32("a row")?));
    let stored = bytes[cursor.at..].as_chunks::<2>().0.iter();
    let mut log_probs: Vec<f64> = stored.map(|bytes| f16::from_le_bytes(*bytes).to_f64()).collect();
    if let Some(bad) = log_probs.iter().find(|one| !(one.is_finite() && **one <= 0.0)) {
        return Err(damaged(format!("a log-probability of {bad}; allowed: finite, at most 0")));
    }
    if !(loss.is_finite() && loss >= 0.0) || top >= log_probs.len() {
        return Err(damaged(format!("a row with loss {loss} and likeliest token {top}")));
    }
    let sum: f64 = log_probs.iter().map(|one| one.exp()).sum();
    if !SUM.contains(&sum) {
        return Err(damaged(format!("probabilities that add up to {sum}, not 1")));
    }
    let log_sum = sum.ln();
    log_probs.iter_mut().for_each(|one| *one -= log_sum);
    Ok(Row { top: Some(top), loss, log_probs })
}

fn damaged(found: impl Into<String>) -> ReferenceError {
    ReferenceError::Damaged { found: found.into() }
}

fn pair(bytes: &[u8; 8]) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = *bytes;
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], ReferenceError> {
        let end = self.at.checked_add(len);
        let Some(found) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return Err(damaged(format!("it ends within {what}")));
        };
        self.at += len;
        Ok(found)
    }

    fn u32(&mut self, what: &str) -> Result<u32, ReferenceError> {
        let mut number = [0; 4];
        number.copy_from_slice(self.take(4, what)?);
        Ok(u32::from_le_bytes(number))
    }

    fn u64(&mut self, what: &str) -> Result<u64, ReferenceError> {
        let mut number = [0; 8];
        number.copy_from_slice(self.take(8, what)?);
        Ok(u64::from_le_bytes(number))
    }
}
