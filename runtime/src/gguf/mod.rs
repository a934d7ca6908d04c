//! The GGUF container, version 3: metadata, tensor infos, tensor data.
//!
//! [`Gguf`] opens a file (or all files of a split model) by mapping it, and checks all of it
//! against the [`limits`], since files are untrusted. [`GgufWriter`] writes one.
//! [`crate::checkpoint::families`] interprets a model's metadata.

mod foreign;
mod identity;
pub mod limits;
mod reader;
mod split;
mod types;
mod value;
mod writer;

use std::path::PathBuf;

pub use identity::Identity;
pub use reader::{Gguf, TensorInfo};
pub use types::GgmlType;
pub use value::{Array, Metadata, Value};
pub use writer::{GgufWriter, TensorPlan};

/// `general.alignment`
pub const ALIGNMENT_KEY: &str = "general.alignment";
/// Alignment of files without [`ALIGNMENT_KEY`].
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// Key of the checksum of the header: CRC-32 of everything before the padding of the first tensor,
/// with this value zero. [`GgufWriter`] computes it where metadata has the key, as a u32.
pub const HEADER_CHECKSUM_KEY: &str = "vaquita.header.crc32";

const MAGIC: [u8; 4] = *b"GGUF";
const VERSION: u32 = 3;

/// Error of reading or writing a file. Every message names the file and the location in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// The magic number is wrong.
    #[error("{path}: not a GGUF file")]
    Magic {
        /// The file.
        path: PathBuf,
    },
    /// The version is not supported.
    #[error("{path}: GGUF version {found}; versions 2 and 3, little-endian, can be read")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// The file is of another kind.
    #[error("{path} is {what}: {advice}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// Remedy.
        advice: String,
    },
    /// A file of a split model other than the first.
    #[error("{path} is part {number} of {count} of a model: give the first, {first}")]
    LaterPart {
        /// The file.
        path: PathBuf,
        /// Number of the file, from 1.
        number: u64,
        /// Number of files.
        count: u64,
        /// The first file, by name.
        first: String,
    },
    /// The first file of a split model has a name from which those of the others do not follow.
    #[error(
        "{path} is the first of {count} files of a model, which are found by their names: call them NAME-00001-of-{count:05}.gguf and so on"
    )]
    SplitName {
        /// The file.
        path: PathBuf,
        /// Number of files.
        count: u64,
    },
    /// The file is truncated.
    #[error("{path}: the file ends within {what}; it is truncated or damaged: copy it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The item being read.
        what: String,
    },
    /// A file of a split model is missing.
    #[error("{path} is missing, part {number} of {count} of the model; put it beside the others")]
    MissingPart {
        /// The file.
        path: PathBuf,
        /// Number of the missing file, from 1.
        number: u64,
        /// Number of files.
        count: u64,
    },
    /// A value is out of range.
    #[error("{path}: {what} is {found}; allowed: {allowed}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Name of the value.
        what: String,
        /// The value found.
        found: String,
        /// The allowed values.
        allowed: String,
    },
    /// A metadata value has an unexpected type.
    #[error("metadata {key} is {found}; expected {expected}")]
    MetadataType {
        /// The key.
        key: String,
        /// The type found.
        found: &'static str,
        /// The expected type.
        expected: &'static str,
    },
    /// A tensor was written out of order, or one is missing.
    #[error("{path}: tensor {found:?} was written where the plan has {expected:?}")]
    Order {
        /// The file.
        path: PathBuf,
        /// The tensor written.
        found: String,
        /// The next tensor of the plan.
        expected: String,
    },
}
