//! Errors of evaluations.

use std::path::PathBuf;

use vaquita_runtime::bytes::file::reason;
use vaquita_runtime::session::SessionError;
use vaquita_runtime::session::generate::GenerateError;
use vaquita_runtime::session::prompt::PromptError;

use crate::reference_file::ReferenceError;
use crate::statistics::CalibrationError;

/// Error of an evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A file cannot be read.
    #[error("{path}: {}", reason(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A line is malformed.
    #[error("{path}, line {line}: {source}; each line is one JSON object with {fields}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The problem.
        source: serde_json::Error,
        /// Fields that a line must have.
        fields: &'static str,
    },
    /// A line is too long.
    #[error("{path}, line {line} has more than {most} bytes; cut it into several")]
    LongLine {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Maximum length, in bytes.
        most: u64,
    },
    /// A file of answers is in use.
    #[error("{path}: another evaluation writes to it")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A file of answers is of another model, other questions or other options.
    #[error("{path} has the answers of another run; name another file, or remove it")]
    OtherRun {
        /// The file.
        path: PathBuf,
    },
    /// A file is neither JSON lines nor plain text.
    #[error("{path} is not UTF-8 text; give JSON lines with `text`, or plain text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to measure on.
    #[error("{what} is needed; the file has none")]
    Nothing {
        /// What is missing.
        what: &'static str,
    },
    /// The vocabularies of two models differ.
    #[error(
        "the model has {model} tokens in its vocabulary, the reference {reference}; compare models of one family"
    )]
    Vocabularies {
        /// Size of the model's vocabulary.
        model: usize,
        /// Size of the reference's vocabulary.
        reference: usize,
    },
    /// A reference file cannot be used.
    #[error("{path}: {source}")]
    Reference {
        /// The file.
        path: PathBuf,
        /// The error.
        source: ReferenceError,
    },
    /// The statistics cannot be written.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A prompt cannot be made from a text.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The model failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No answer was generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}
