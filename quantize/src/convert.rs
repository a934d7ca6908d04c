//! From llama.cpp's layout, where a layer's experts are stacked, to ours, where each is one record: the same weights,
//! in an order in which one read brings one expert. The work is [`quantize`](crate::quantize)'s, under
//! [`Plan::as_stored`](crate::Plan::as_stored); here is what it is of use for.

use std::path::{Path, PathBuf};

use vaquita_runtime::checkpoint::gguf_weights::OpenError;
use vaquita_runtime::checkpoint::{GgufWeights, Verify, Weights};

/// Why a source is not to be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// It is a checkpoint.
    #[error("{path} is a folder, and convert takes a GGUF file: `vaquita quantize` takes folders")]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// Its experts are records already.
    #[error(
        "{path} has its experts in records already; with --type, convert makes a smaller file of it"
    )]
    ExpertMajor {
        /// The file.
        path: PathBuf,
    },
    /// There are no experts to rearrange.
    #[error(
        "{path} has no routed experts to rearrange and runs as it is; with --type, convert makes a smaller file of it"
    )]
    Dense {
        /// The file.
        path: PathBuf,
    },
    /// It does not open as a model.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Refuses what is no GGUF file of a model, and where the weights are to stay as they are, what would gain nothing.
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
