//! Errors of tokenizers and of texts passed to them.

use std::path::PathBuf;

use crate::gguf::GgufError;

/// Error of a tokenizer. Messages state the key, the value found and the values allowed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// Reading a file failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A file cannot be used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: Box<TokenizerError>,
    },
    /// The folder does not contain a tokenizer.
    #[error(
        "{folder} has no tokenizer: copy tokenizer.json, tiktoken.model or tokenizer.model from where the model came from"
    )]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// The metadata does not contain a tokenizer.
    #[error(
        "the file holds no tokenizer: take one that does, or make it again from a checkpoint with its tokenizer"
    )]
    Absent,
    /// The JSON is not that of a tokenizer.
    #[error("not valid JSON for a tokenizer: {0}")]
    Json(#[from] serde_json::Error),
    /// Metadata has an unexpected type.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// A required key is missing.
    #[error("metadata {key} is missing; the file holds no tokenizer: convert it again")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value is not allowed.
    #[error("{what} is {found}; allowed: {allowed}")]
    Value {
        /// Name of the value.
        what: String,
        /// The value found.
        found: String,
        /// The values allowed.
        allowed: String,
    },
    /// A regex cannot be compiled, or uses a feature that is not allowed.
    #[error("the regex {pattern:?} of the pre-tokenizer cannot be used: {reason}")]
    Regex {
        /// The regex.
        pattern: String,
        /// The reason.
        reason: String,
    },
    /// A regex takes too long for a text.
    #[error(
        "the regex {pattern:?} of the pre-tokenizer gave up on the text: {reason}; \
         shorten the text, or use a model whose tokenizer is known"
    )]
    Split {
        /// The regex.
        pattern: String,
        /// The reason.
        reason: String,
    },
    /// The text exceeds the allowed number of tokens.
    #[error("the text has more than {most} tokens")]
    TooLong {
        /// Maximum number of tokens.
        most: usize,
    },
    /// The vocabulary cannot represent a byte of the text.
    #[error("the vocabulary has no token for the byte {byte:#04x}, which is in the text")]
    Byte {
        /// The byte.
        byte: u8,
    },
    /// The `tokenizers` crate refuses a step or a text.
    #[error("the tokenizer: {0}")]
    Crate(String),
}

impl TokenizerError {
    /// Whether the model has no tokenizer, rather than one that cannot be used.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoTokenizer { .. } | Self::Absent)
    }

    pub(super) fn value(
        what: impl Into<String>,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Value { what: what.into(), found: found.into(), allowed: allowed.into() }
    }

    /// Wraps the error with the path of the file.
    pub(super) fn of_file(self, path: impl Into<PathBuf>) -> Self {
        Self::File { path: path.into(), source: Box::new(self) }
    }

    /// Converts an error returned by the `tokenizers` crate: one of ours that it passed through, or
    /// its own.
    pub(super) fn from_crate(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(other) => Self::Crate(other.to_string()),
        }
    }
}
