//! File with a reference model's predictions over texts: computed once and compared many times,
//! without loading the reference.
//!
//! All numbers are little-endian.
//!
//! ```text
//! header   0  8 bytes  "VAQUIREF"
//!          8  u32      version, 1
//!         12  u32      tokens of the vocabulary
//!         16  u32      CRC-32 of the vocabulary: per id the length of its piece as u64, then the piece
//!         20  u32      documents
//!         24  u64      tokens of all documents, the first of each among them
//!         32  u32      bytes of the reference's name
//!         36  u32      CRC-32 of everything else before the rows
//! name                 UTF-8
//! table                per document: u32 tokens (2 or more), u32 CRC-32 of its rows
//! tokens               u32 each, document by document
//! rows                 per document, after each token but the last: u32 the likeliest next token, f32 the loss
//!                      (negative log-likelihood in nats) of the token that follows, then per token of the
//!                      vocabulary its log-probability as f16
//! ```
//!
//! Half precision suffices: the likelier a token, the closer its log-probability is to zero and the
//! finer its resolution, and rows are normalised again when they are read.

use vaquita_runtime::bytes::file::reason;

mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{Document, ReferenceFile, Row};
pub use writer::{Written, write};

/// Magic number of a reference file.
pub const MAGIC: [u8; 8] = *b"VAQUIREF";
/// Version that is written and read.
pub const VERSION: u32 = 1;
const HEADER_BYTES: usize = 40;
/// Offset of the header's checksum.
const CHECKSUM_AT: usize = 36;
const MAX_NAME_BYTES: usize = 4096;

/// Error of a reference file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Reading or writing failed.
    #[error("{}", reason(.0))]
    Io(#[from] std::io::Error),
    /// The file is not a reference file.
    #[error("not a reference file")]
    Magic,
    /// The version is not supported.
    #[error(
        "version {found} of reference files; this program reads version {VERSION}: write it again"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// The file is damaged.
    #[error("the file is damaged: {found}; write it again")]
    Damaged {
        /// The problem.
        found: String,
    },
    /// The file was made with another tokenizer.
    #[error(
        "made by {name} with {vocab_size} tokens in its vocabulary (fingerprint {found:08x}); the model has {model_size} ({expected:08x}): compare models of one family"
    )]
    Tokenizer {
        /// Name of the reference.
        name: String,
        /// Size of its vocabulary.
        vocab_size: usize,
        /// Fingerprint of its vocabulary.
        found: u32,
        /// Size of the model's vocabulary.
        model_size: usize,
        /// Fingerprint of the model's vocabulary.
        expected: u32,
    },
    /// A count exceeds the format's limits.
    #[error("{what} are more than a reference file can hold; take fewer texts")]
    TooMany {
        /// The counted items.
        what: &'static str,
    },
}

/// Bytes of a row.
fn row_bytes(vocab_size: usize) -> Option<usize> {
    vocab_size.checked_mul(2)?.checked_add(8)
}
