//! Writes reference files. Documents run in parallel, and each writes its rows at a known offset,
//! so that only a few rows are in memory.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use half::f16;
use rayon::prelude::*;
use serde::Serialize;
use vaquita_quantize::partial::PartialFile;

use super::{CHECKSUM_AT, HEADER_BYTES, MAGIC, MAX_NAME_BYTES, ReferenceError, VERSION, row_bytes};
use crate::softmax::{log_softmax, top};
use crate::{EvalError, OnProgress, Subject};

/// Result of writing a file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Written {
    /// Bytes of the file.
    pub bytes: u64,
    /// Number of documents.
    pub documents: usize,
    /// Number of predicted tokens.
    pub tokens: usize,
    /// Perplexity of the reference.
    pub perplexity: f64,
}

/// Runs the reference over texts and writes its predictions. The file appears under its name once
/// it is complete.
pub fn write(
    reference: &Subject,
    name: &str,
    texts: &[String],
    out: &Path,
    on_progress: OnProgress,
) -> Result<Written, EvalError> {
    let failed = |source| EvalError::Reference { path: out.into(), source };
    let in_io = |error: io::Error| failed(error.into());
    let documents = reference.tokenize(texts)?;
    let vocab_size = reference.model.config().vocab_size;
    let mut head = Head::new(reference, name, &documents).map_err(failed)?;
    let offsets = offsets(head.len(), vocab_size, &documents).map_err(failed)?;

    let (partial, file) = PartialFile::create(out).map_err(in_io)?;
    let file = Mutex::new(file);
    let done = AtomicUsize::new(0);
    let results: Vec<(u32, f64)> = documents
        .par_iter()
        .zip(&offsets)
        .map(|(document, offset)| {
            let (mut at, mut loss, mut checksum) = (*offset, 0.0, crc32fast::Hasher::new());
            for chunk in reference.chunks(document) {
                let (logits, targets) = chunk?;
                let mut bytes = Vec::new();
                for (logits, target) in logits.chunks_exact(vocab_size).zip(targets) {
                    loss += f64::from(put_row(logits, *target, &mut bytes));
                }
                checksum.update(&bytes);
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                write_at(&mut file, at, &bytes).map_err(in_io)?;
                at += bytes.len() as u64;
            }
            on_progress(done.fetch_add(1, Ordering::Relaxed) + 1, documents.len());
            Ok((checksum.finalize(), loss))
        })
        .collect::<Result<_, EvalError>>()?;

    for (at, (checksum, _)) in results.iter().enumerate() {
        head.set_checksum(at, *checksum);
    }
    let mut file = file.into_inner().unwrap_or_else(PoisonError::into_inner);
    write_at(&mut file, 0, &head.finish()).map_err(in_io)?;
    file.sync_all().map_err(in_io)?;
    let bytes = file.metadata().map_err(in_io)?.len();
    partial.keep().map_err(in_io)?;
    let tokens: usize = documents.iter().map(|document| document.len() - 1).sum();
    let loss: f64 = results.iter().map(|(_, loss)| loss).sum();
    let perplexity = (loss / tokens as f64).exp();
    Ok(Written { bytes, documents: documents.len(), tokens, perplexity })
}

/// Everything before the rows.
struct Head {
    bytes: Vec<u8>,
    table_at: usize,
}

impl Head {
    fn new(
        reference: &Subject,
        name: &str,
        documents: &[Vec<u32>],
    ) -> Result<Self, ReferenceError> {
        let too_many = |what| ReferenceError::TooMany { what };
        let count = |n: usize, what| u32::try_from(n).map_err(|_| too_many(what));
        let mut name_bytes = name.len().min(MAX_NAME_BYTES);
        while !name.is_char_boundary(name_bytes) {
            name_bytes -= 1;
        }
        let mut bytes = MAGIC.to_vec();
        let vocab_size = reference.model.config().vocab_size;
        for number in [
            VERSION,
            count(vocab_size, "tokens of the vocabulary")?,
            reference.tokenizer_fingerprint(),
            count(documents.len(), "documents")?,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        let tokens: usize = documents.iter().map(Vec::len).sum();
        bytes.extend((tokens as u64).to_le_bytes());
        bytes.extend((name_bytes as u32).to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(&name.as_bytes()[..name_bytes]);
        let table_at = bytes.len();
        for document in documents {
            bytes.extend(count(document.len(), "tokens of a document")?.to_le_bytes());
            bytes.extend([0; 4]);
        }
        bytes.extend(documents.iter().flatten().flat_map(|token| token.to_le_bytes()));
        Ok(Self { bytes, table_at })
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn set_checksum(&mut self, document: usize, checksum: u32) {
        let at = self.table_at + document * 8 + 4;
        self.bytes[at..][..4].copy_from_slice(&checksum.to_le_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        let checksum = crc32fast::hash(&self.bytes);
        self.bytes[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

/// Offset of each document's rows.
fn offsets(
    head: usize,
    vocab_size: usize,
    documents: &[Vec<u32>],
) -> Result<Vec<u64>, ReferenceError> {
    let too_many = || ReferenceError::TooMany { what: "predictions" };
    let row = row_bytes(vocab_size).ok_or_else(too_many)? as u64;
    let mut at = head as u64;
    let mut offsets = Vec::with_capacity(documents.len());
    for document in documents {
        offsets.push(at);
        let rows = row.checked_mul(document.len() as u64 - 1);
        at = rows.and_then(|rows| at.checked_add(rows)).ok_or_else(too_many)?;
    }
    Ok(offsets)
}

/// Appends a row and returns its loss as stored.
pub(super) fn put_row(logits: &[f32], target: u32, out: &mut Vec<u8>) -> f32 {
    let log_probs = log_softmax(logits);
    let loss = -log_probs[target as usize] as f32;
    out.extend((top(logits).unwrap_or(0) as u32).to_le_bytes());
    out.extend(loss.to_le_bytes());
    for log_prob in log_probs {
        // The smallest finite number represents probabilities that are practically zero.
        let stored = f16::from_f64(log_prob.clamp(f64::from(f16::MIN), 0.0));
        out.extend(stored.to_le_bytes());
    }
    loss
}

fn write_at(file: &mut File, at: u64, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}
