//! Converts llama.cpp's layout, with a layer's experts stacked, to the expert-major layout, with
//! one record per expert: the same weights, arranged so that one read loads one expert.
//! [`quantize`](crate::quantize) does the work under [`Plan::as_stored`](crate::Plan::as_stored);
//! this module checks that the conversion is worthwhile.

use std::path::{Path, PathBuf};

use vaquita_runtime::checkpoint::gguf_weights::OpenError;
use vaquita_runtime::checkpoint::{GgufWeights, Verify, Weights};

/// Reason not to convert a source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The source is a checkpoint.
    #[error("{path} is a folder; only a GGUF file can be rearranged: quantize the folder")]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The experts are stored as records already.
    #[error("{path} has its experts in records already; only quantizing it makes a smaller file")]
    ExpertMajor {
        /// The file.
        path: PathBuf,
    },
    /// There are no experts to rearrange.
    #[error(
        "{path} has no routed experts to rearrange and runs as it is; only quantizing it makes a smaller file"
    )]
    Dense {
        /// The file.
        path: PathBuf,
    },
    /// The file does not open as a model.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Checks that the source is a model in GGUF, and, if its weights are to stay as they are, that the
/// conversion gains something.
pub fn check(path: &Path, as_stored: bool) -> Result<(), ConvertError> {
    let path_buf = || path.to_path_buf();
    if path.is_dir() {
        return Err(ConvertError::Folder { path: path_buf() });
    }
    let weights = GgufWeights::open(path, Verify::Never)?;
    if as_stored && weights.config().moe.n_routed_experts == 0 {
        return Err(ConvertError::Dense { path: path_buf() });
    }
    if as_stored && weights.is_expert_major() {
        return Err(ConvertError::ExpertMajor { path: path_buf() });
    }
    Ok(())
}
