//! Verification of a file before it gets its name.

use std::path::Path;

use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::gguf::Gguf;

use crate::container::CHECKSUMS_KEY;
use crate::error::QuantizeError;
use crate::progress::{Progress, Stage};

/// Compares every tensor with what was written, and opens a whole file as a model.
pub(crate) fn verify(
    out: &Path,
    partial: &Path,
    checksums: &[u32],
    whole: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), QuantizeError> {
    let differs = |name: &str| QuantizeError::Verify { out: out.to_path_buf(), name: name.into() };
    if whole {
        GgufWeights::open(partial, Verify::First)?; // with the checksum of the header
    }
    let gguf = Gguf::open(partial)?;
    if gguf.metadata().u32s(CHECKSUMS_KEY)?.as_deref() != Some(checksums) {
        return Err(differs(CHECKSUMS_KEY));
    }
    let total = gguf.tensors().iter().map(|tensor| tensor.len).sum();
    let mut reporter = Progress { stage: Stage::Verifying, done: 0, total }.with(progress);
    for (tensor, expected) in gguf.tensors().iter().zip(checksums) {
        let bytes = gguf.bytes(tensor);
        if crc32fast::hash(&bytes) != *expected {
            return Err(differs(&tensor.name));
        }
        bytes.release();
        reporter.add(tensor.len);
    }
    Ok(())
}
