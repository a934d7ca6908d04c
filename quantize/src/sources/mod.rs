//! Sources: where full-precision weights come from.
//!
//! [`open`] takes a Hugging Face folder ([`HfFolder`]) or a GGUF file. Both are [`Weights`], so what follows, the
//! network included, does not care which it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaquita_runtime::checkpoint::families::ConfigError;
use vaquita_runtime::checkpoint::gguf_weights::OpenError;
use vaquita_runtime::checkpoint::{GgufWeights, Verify, Weights, WeightsError};

mod fp8;
mod hf_folder;
mod identity;
mod rearrange;
mod shards;
#[cfg(test)]
mod tests;

pub use hf_folder::HfFolder;
pub use identity::{Identity, READ_WHOLE};

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Reading failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The configuration does not run.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A folder without weights.
    #[error(
        "{folder} has neither model.safetensors.index.json nor model.safetensors; is it a checkpoint folder?"
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// A shard of the index is absent.
    #[error("{path} is missing, which {index} lists for {tensors} tensors; download it again")]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The shard.
        path: PathBuf,
        /// Tensors that should be in it.
        tensors: usize,
    },
    /// The index leads out of the folder.
    #[error(
        "{index}: tensor {tensor} is said to be in {shard:?}; shards must lie within the folder"
    )]
    OutsideFolder {
        /// The index.
        index: PathBuf,
        /// A tensor.
        tensor: String,
        /// The shard it names.
        shard: String,
    },
    /// A shard is cut off or damaged.
    #[error("{path} is not a whole safetensors file ({source}); download it again")]
    Shard {
        /// The shard.
        path: PathBuf,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// The index names a tensor that its shard lacks.
    #[error(
        "{path} lacks tensor {tensor}, which the index says it has; download the shard and the index again"
    )]
    NotInShard {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor is missing, or is not what the configuration says.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A GGUF file that cannot be used.
    #[error(transparent)]
    Gguf(#[from] OpenError),
}

/// An opened source.
pub struct Source {
    /// The weights.
    pub weights: Arc<dyn Weights>,
    /// What the source is.
    pub identity: Identity,
}

/// Opens a checkpoint folder or a GGUF file.
pub fn open(path: &Path) -> Result<Source, SourceError> {
    if path.is_dir() {
        let folder = HfFolder::open(path)?;
        let identity = folder.identity()?;
        return Ok(Source { weights: Arc::new(folder), identity });
    }
    let weights = GgufWeights::open(path, Verify::First)?;
    let files = weights.gguf().files().map(|(file, _)| file.to_path_buf()).collect();
    let identity = Identity::new(path, files)?;
    Ok(Source { weights: Arc::new(weights), identity })
}
