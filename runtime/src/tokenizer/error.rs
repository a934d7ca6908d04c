//! What can be wrong with a tokenizer, or with a text for it.

use std::path::PathBuf;

use crate::gguf::GgufError;

/// What is wrong with a tokenizer. Messages name the key, what was found and what is allowed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// Reading a file failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<TokenizerError>,
    },
    /// A folder without a tokenizer.
    #[error(
        "{folder} has no tokenizer: copy tokenizer.json, tiktoken.model or tokenizer.model from where the model came from"
    )]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// Not the JSON that is expected.
    #[error("not valid JSON for a tokenizer: {0}")]
    Json(#[from] serde_json::Error),
    /// Metadata of another type than expected.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// A key that must be there is not.
    #[error("metadata {key} is missing; the file holds no tokenizer: convert it again")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value is outside what is allowed.
    #[error("{what} is {found}; allowed: {allowed}")]
    Value {
        /// Which value.
        what: String,
        /// What it is.
        found: String,
        /// What may be there.
        allowed: String,
    },
    /// A regex cannot be compiled, or uses what is not allowed.
    #[error("the regex {pattern:?} of the pre-tokenizer cannot be used: {reason}")]
    Regex {
        /// The regex.
        pattern: String,
        /// Why not.
        reason: String,
    },
    /// A regex takes too long on a text.
    #[error(
        "the regex {pattern:?} of the pre-tokenizer gave up on the text: {reason}; \
         shorten the text, or use a model whose tokenizer is known"
    )]
    Split {
        /// The regex.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// The text is longer than its tokens may be.
    #[error("the text has more than {most} tokens")]
    TooLong {
        /// Tokens it may have.
        most: usize,
    },
    /// The vocabulary cannot say what is in the text.
    #[error("the vocabulary has no token for the byte {byte:#04x}, which is in the text")]
    Byte {
        /// The byte.
        byte: u8,
    },
    /// The BPE model refuses its vocabulary or a text.
    #[error("BPE: {0}")]
    Model(String),
}

impl TokenizerError {
    pub(super) fn value(
        what: impl Into<String>,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Value { what: what.into(), found: found.into(), allowed: allowed.into() }
    }

    /// The same error, of a file.
    pub(super) fn of_file(self, path: impl Into<PathBuf>) -> Self {
        Self::File { path: path.into(), source: Box::new(self) }
    }

    /// An error that went through the `tokenizers` crate: ours, or one of its own.
    pub(super) fn from_crate(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(other) => Self::Model(other.to_string()),
        }
    }
}
