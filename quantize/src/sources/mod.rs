//! Sources of full-precision weights.
//!
//! [`open`] opens a Hugging Face folder ([`HfFolder`]) or a GGUF file. Both implement [`Weights`],
//! so later stages, including the network, do not depend on the kind of source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaquita_runtime::app::{AppError, Fit, judge};
use vaquita_runtime::checkpoint::families::ConfigError;
use vaquita_runtime::checkpoint::gguf_weights::OpenError;
use vaquita_runtime::checkpoint::{GgufWeights, Verify, Weights, WeightsError};
use vaquita_runtime::gguf::Gguf;
use vaquita_runtime::tokenizer::{Tokenizer, TokenizerError};

mod fp8;
mod hf_folder;
mod identity;
mod quantized;
mod rearrange;
mod shards;
#[cfg(test)]
mod tests;
mod without_mtp;

pub use hf_folder::{CONFIG_BYTES, HfFolder};
pub use identity::{Identity, READ_WHOLE, hub_id, name};
use without_mtp::WithoutMtp;

/// Error of opening a source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Reading failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A file is not the expected JSON.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: serde_json::Error,
    },
    /// The configuration is not supported.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: ConfigError,
    },
    /// The folder contains no weights.
    #[error(
        "{folder} has neither model.safetensors.index.json nor model.safetensors; is it a checkpoint folder?"
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder is no checkpoint but contains GGUF files.
    #[error("{folder} has no config.json but GGUF files: give one of them, such as {first}")]
    GgufFolder {
        /// The folder.
        folder: PathBuf,
        /// Name of one file.
        first: String,
    },
    /// A shard in the index is missing.
    #[error("{path} is missing, which {index} lists for {tensors} tensors; download it again")]
    MissingShard {
        /// Path of the index.
        index: PathBuf,
        /// Path of the shard.
        path: PathBuf,
        /// Number of tensors that should be in it.
        tensors: usize,
    },
    /// The index refers to a file outside of the folder.
    #[error(
        "{index}: tensor {tensor} is said to be in {shard:?}; shards must lie within the folder"
    )]
    OutsideFolder {
        /// Path of the index.
        index: PathBuf,
        /// Name of a tensor.
        tensor: String,
        /// Name of its shard.
        shard: String,
    },
    /// A shard is truncated or damaged.
    #[error("{path} is not a whole safetensors file ({source}); download it again")]
    Shard {
        /// Path of the shard.
        path: PathBuf,
        /// The problem.
        source: safetensors::SafeTensorError,
    },
    /// The index lists a tensor that is not in its shard.
    #[error(
        "{path} lacks tensor {tensor}, which the index says it has; download the shard and the index again"
    )]
    NotInShard {
        /// Path of the shard.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor is missing, or differs from the configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A GGUF file that cannot be used.
    #[error(transparent)]
    Gguf(#[from] OpenError),
}

/// An open source.
pub struct Source {
    /// Weights of the source.
    pub weights: Arc<dyn Weights>,
    /// Identity of the source.
    pub identity: Identity,
    /// Names of the tensors outside of the language model, which are left out.
    pub left_out: Vec<String>,
}

impl Source {
    /// Parts of the checkpoint that are left out, in one line; `None` if there are none.
    pub fn left_out_line(&self) -> Option<String> {
        let parts = self.left_out.iter().filter_map(|name| {
            let name = name.strip_prefix("model.").unwrap_or(name);
            name.split('.').next()
        });
        let parts: BTreeSet<&str> = parts.collect();
        let parts = parts.into_iter().collect::<Vec<_>>().join(", ");
        let count = self.left_out.len();
        (count > 0)
            .then(|| format!("only the language model is read: without {parts} ({count} tensors)"))
    }
}

impl Source {
    /// The source without its multi-token-prediction layers, which only draft tokens.
    pub fn without_mtp(self) -> Self {
        Self { weights: Arc::new(WithoutMtp::new(self.weights)), ..self }
    }

    /// Whether the source runs with its tokenizer, and so would what is made from it.
    ///
    /// # Errors
    /// The reason why it does not run.
    pub fn judge(&self, path: &Path) -> Result<Fit, AppError> {
        judge(&*self.weights, tokenizer(path))
    }
}

/// Reads the tokenizer of a checkpoint folder or a GGUF file, which needs no weights for that.
pub fn tokenizer(path: &Path) -> Result<Tokenizer, TokenizerError> {
    match path.is_dir() {
        true => Tokenizer::from_folder(path),
        false => Tokenizer::from_metadata(&Gguf::open_metadata(path)?),
    }
}

/// Opens a checkpoint folder or a GGUF file.
pub fn open(path: &Path) -> Result<Source, SourceError> {
    if path.is_dir() {
        let folder = HfFolder::open(path)?;
        let identity = folder.identity()?;
        let left_out = folder.left_out().to_vec();
        return Ok(Source { weights: Arc::new(folder), identity, left_out });
    }
    let weights = GgufWeights::open(path, Verify::First)?;
    let files = weights.gguf().files().map(|(file, _)| file.to_path_buf()).collect();
    let identity = Identity::new(path, files)?;
    Ok(Source { weights: Arc::new(weights), identity, left_out: Vec::new() })
}
