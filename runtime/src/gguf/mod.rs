//! The GGUF container, version 3: metadata, tensor infos, tensor bytes.
//!
//! [`Gguf`] opens a file (or all files of a split model) by mapping it; everything in it is hostile until
//! checked, against the ceilings in [`limits`]. [`Writer`] writes one. What the metadata of a model means is
//! the business of `model::families`.

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
pub use writer::{TensorPlan, Writer};

/// `general.alignment`
pub const ALIGNMENT_KEY: &str = "general.alignment";
/// What files without [`ALIGNMENT_KEY`] are aligned to.
pub const DEFAULT_ALIGNMENT: u64 = 32;

const MAGIC: [u8; 4] = *b"GGUF";
const VERSION: u32 = 3;

/// What is wrong with a file. Every message names the file and the place in it.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not begin as a GGUF file does.
    #[error("{path}: not a GGUF file")]
    Magic {
        /// The file.
        path: PathBuf,
    },
    /// It has another version.
    #[error("{path}: GGUF version {found}; versions 2 and 3, little-endian, can be read")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It ends too early.
    #[error("{path}: the file ends within {what}; it is truncated or damaged: copy it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What was being read.
        what: String,
    },
    /// A file of a split model is not there.
    #[error("{path} is missing, part {number} of {count} of the model; put it beside the others")]
    MissingPart {
        /// The file.
        path: PathBuf,
        /// Which it is, from 1 on.
        number: u64,
        /// How many there are.
        count: u64,
    },
    /// A value is outside what is allowed.
    #[error("{path}: {what} is {found}; allowed: {allowed}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which value.
        what: String,
        /// What it is.
        found: String,
        /// What may be there.
        allowed: String,
    },
    /// Metadata has another type than its reader expects.
    #[error("metadata {key} is {found}; expected {expected}")]
    MetadataType {
        /// The key.
        key: String,
        /// Its type.
        found: &'static str,
        /// What was looked for.
        expected: &'static str,
    },
    /// A tensor was written that the plan does not have there, or one is missing.
    #[error("{path}: tensor {found:?} was written where the plan has {expected:?}")]
    Order {
        /// The file.
        path: PathBuf,
        /// What was written.
        found: String,
        /// What comes next in the plan.
        expected: String,
    },
}
