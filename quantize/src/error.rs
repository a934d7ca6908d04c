//! Errors of making a file.

use std::io;
use std::path::PathBuf;

use vaquita_runtime::checkpoint::WeightsError;
use vaquita_runtime::checkpoint::gguf_weights::OpenError;
use vaquita_runtime::gguf::GgufError;

use crate::container::ContainerError;
use crate::encoders::EncodeError;

/// Error of making a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The output would replace the source.
    #[error("{out} is part of the source; choose another output file")]
    OverSource {
        /// The output.
        out: PathBuf,
    },
    /// The output cannot be created.
    #[error(
        "cannot create a file for {out}: {source}; choose an output file in a folder that exists and can be written to"
    )]
    Create {
        /// The output.
        out: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// Another process holds the journal lock.
    #[error("another process is making {out}; wait for it, or choose another output file")]
    Busy {
        /// The output.
        out: PathBuf,
    },
    /// The disk is full; the work can be resumed.
    #[error(
        "the disk of {out} is full; the file takes {needed} bytes: free some and run the same command again, which goes on from here, or choose fewer bits or another disk"
    )]
    Full {
        /// The output.
        out: PathBuf,
        /// Bytes of the whole file.
        needed: u64,
    },
    /// The disk is full, and there is nothing to resume from.
    #[error(
        "the disk of {out} is full; the file takes {needed} bytes: free some, or choose fewer bits or another disk, and run the same command again, which starts over"
    )]
    NoRoom {
        /// The output.
        out: PathBuf,
        /// Bytes of the whole file.
        needed: u64,
    },
    /// Writing failed, and there is nothing to resume from.
    #[error("writing {out}: {source}; the same command starts over")]
    Unwritten {
        /// The output.
        out: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The work was asked to stop.
    #[error(
        "{out} is not finished: stopped after a step, as asked; the same command goes on from here"
    )]
    Stopped {
        /// The output.
        out: PathBuf,
    },
    /// Writing failed.
    #[error("writing {out}: {source}; the same command goes on from here")]
    Write {
        /// The output.
        out: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// A weight cannot be encoded.
    #[error("tensor {name}: {source}")]
    Encode {
        /// The tensor.
        name: String,
        /// The encoding error.
        source: EncodeError,
    },
    /// Calibration during quantization failed.
    #[error(transparent)]
    Calibrate(Box<dyn std::error::Error + Send + Sync>),
    /// Reading the source failed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file cannot be laid out.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The container cannot be written or read back.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The finished file does not open as a model.
    #[error("the finished file is not sound: {0}")]
    Open(#[from] OpenError),
    /// The finished file differs from what was written.
    #[error("{name} was written to {out} and reads back differently; check the disk")]
    Verify {
        /// The output.
        out: PathBuf,
        /// The tensor.
        name: String,
    },
}

impl QuantizeError {
    /// The same error if there is nothing to resume from.
    pub(crate) fn starts_over(self) -> Self {
        match self {
            Self::Full { out, needed } => Self::NoRoom { out, needed },
            Self::Write { out, source } => Self::Unwritten { out, source },
            other => other,
        }
    }
}
