//! A model with all that is needed to talk to it, from a GGUF file or a Hugging Face folder.

use std::path::Path;
use std::sync::Arc;

use vaquita_calibration::Subject;
use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::gguf::Gguf;
use vaquita_runtime::model::{GgufWeights, Model, Weights};
use vaquita_runtime::session::cache::CacheType;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::tokenizer::Tokenizer;

use crate::compute::Compute;
use crate::failure::{Failure, Result};

/// Opens the weights of a model.
pub fn open_weights(compute: &Compute, path: &Path) -> Result<Arc<dyn Weights>> {
    exists(path)?;
    Ok(match path.is_dir() {
        true => Arc::new(HfFolder::open(path)?),
        false => Arc::new(GgufWeights::open(path, compute.verify())?),
    })
}

/// Opens the tokenizer of a model; a GGUF file needs no weights for that.
pub fn open_tokenizer(path: &Path) -> Result<Tokenizer> {
    exists(path)?;
    Ok(match path.is_dir() {
        true => Tokenizer::from_folder(path)?,
        false => Tokenizer::from_metadata(Gguf::open(path)?.metadata())?,
    })
}

/// Loads a model. A folder's is the full-precision reference, so that its cache is not rounded either.
pub fn load(compute: &Compute, path: &Path) -> Result<(Arc<Model>, SessionOptions)> {
    let cache = if path.is_dir() { CacheType::F32 } else { CacheType::F16 };
    let options = compute.session(cache)?;
    let model = Model::load(open_weights(compute, path)?)?;
    let most = model.config().max_position_embeddings;
    if options.context > most {
        let found = options.context;
        return Err(Failure::Usage(format!("--context is {found}; this model takes up to {most}")));
    }
    Ok((Arc::new(model), options))
}

/// A model, its tokenizer and its chat template.
pub struct Bundle {
    /// The model.
    pub model: Arc<Model>,
    /// Text to tokens.
    pub prompter: Prompter,
    /// How sessions compute.
    pub options: SessionOptions,
}

impl Bundle {
    /// Opens a file or a folder.
    pub fn open(compute: &Compute, path: &Path) -> Result<Self> {
        let (model, options) = load(compute, path)?;
        let tokenizer = Arc::new(open_tokenizer(path)?);
        let (found, allowed) = (tokenizer.vocab_size(), model.config().vocab_size);
        if found > allowed {
            let path = path.display();
            let message = format!("{path}: the tokenizer has {found} tokens, the model {allowed}");
            return Err(Failure::Error(message));
        }
        Ok(Self { model, prompter: Prompter::new(tokenizer)?, options })
    }

    /// A session on all threads.
    pub fn session(&self, compute: &Compute) -> Session {
        Session::new(self.model.clone(), compute.pool(), self.options.clone())
    }

    /// The same for evaluations.
    pub fn subject(&self) -> Subject {
        let (model, prompter) = (self.model.clone(), self.prompter.clone());
        Subject { model, prompter, options: self.options.clone() }
    }
}

fn exists(path: &Path) -> Result<()> {
    match path.exists() {
        true => Ok(()),
        false => Err(Failure::Error(format!("{}: no such file or folder", path.display()))),
    }
}
