//! The model that a command works on: its first argument, or `-m` as in llama.cpp's programs.

use std::path::PathBuf;

use crate::failure::{Failure, Result};

/// A model by its place or by its option.
#[derive(clap::Args, Clone, Debug)]
pub struct ModelArgument {
    /// GGUF file, or Hugging Face folder, which runs unquantized; `run`, `chat`
    /// and `serve` also take hf:ORG/MODEL of the hub
    #[arg(value_name = "MODEL", required_unless_present = "model_option")]
    model: Option<PathBuf>,
    /// The same as MODEL
    #[arg(short = 'm', long = "model", value_name = "MODEL", id = "model_option")]
    option: Option<PathBuf>,
}

impl ModelArgument {
    /// The path, for a command without further arguments.
    pub fn path(self) -> Result<PathBuf> {
        match self.with_words(Vec::new())? {
            (path, words) if words.is_empty() => Ok(path),
            (path, words) => {
                let (path, words) = (path.display(), words.join(" "));
                let message = format!("two models are given: {words}, and {path} with -m");
                Err(Failure::Usage(message))
            }
        }
    }

    /// The path and the command's further words, to which the first argument belongs where the
    /// model is given by its option.
    pub fn with_words(self, mut words: Vec<String>) -> Result<(PathBuf, Vec<String>)> {
        match (self.option, self.model) {
            (Some(path), first) => {
                if let Some(first) = first {
                    words.insert(0, first.to_string_lossy().into_owned());
                }
                Ok((path, words))
            }
            (None, Some(path)) => Ok((path, words)),
            (None, None) => Err(Failure::Usage("no model is given".into())),
        }
    }
}
