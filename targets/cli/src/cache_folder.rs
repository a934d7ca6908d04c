//! The folder that keeps prompts on disk.

use std::path::PathBuf;

use vaquita_runtime::engine::PromptCacheOptions;

use crate::bundle::Bundle;
use crate::failure::Result;
use crate::size;

/// Arguments of the folder.
#[derive(clap::Args)]
#[command(next_help_heading = "Prompt cache")]
pub struct CacheFolder {
    /// Folder that keeps prompts and answers on disk, so that a text that begins like an earlier one
    /// starts at once; only its owner may read it
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<PathBuf>,
    /// Size of that folder
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size::parse, requires = "cache_dir")]
    cache_disk: u64,
}

impl From<CacheFolder> for PromptCacheOptions {
    fn from(CacheFolder { cache_dir: folder, cache_disk: disk }: CacheFolder) -> Self {
        Self::in_folder(folder, disk)
    }
}

impl CacheFolder {
    /// Lets the conversations of a model use the folder.
    pub fn apply(self, bundle: &Bundle) -> Result {
        Ok(bundle.app().keep_prompts(&self.into())?)
    }
}
