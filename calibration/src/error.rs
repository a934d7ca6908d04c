//! What can go wrong in an evaluation.

use std::path::PathBuf;

use vaquita_runtime::session::SessionError;
use vaquita_runtime::session::generate::GenerateError;
use vaquita_runtime::session::prompt::PromptError;

use crate::reference_file::ReferenceError;
use crate::statistics::CalibrationError;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("{path}, line {line}: {source}; each line is one JSON object with {fields}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
        /// What it must have.
        fields: &'static str,
    },
    /// A line is too long to be read at once.
    #[error("{path}, line {line} has more than {most} bytes; cut it into several")]
    LongLine {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// Bytes that it may have.
        most: u64,
    },
    /// A file of neither JSON lines nor text.
    #[error("{path} is not UTF-8 text; give JSON lines with `text`, or plain text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// Nothing to measure on.
    #[error("{what} is needed; the file has none")]
    Nothing {
        /// What is lacking.
        what: &'static str,
    },
    /// Two models whose tokens do not correspond.
    #[error(
        "the model has {model} tokens in its vocabulary, the reference {reference}; compare models of one family"
    )]
    Vocabularies {
        /// The model's.
        model: usize,
        /// The reference's.
        reference: usize,
    },
    /// A reference file cannot be used.
    #[error("{path}: {source}")]
    Reference {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ReferenceError,
    },
    /// What was found could not be written down.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// Text could not be made into a prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The model failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No answer was generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}
