//! A model with all that is needed to talk to it, from a GGUF file or a Hugging Face folder.

use std::path::Path;
use std::sync::Arc;

use vaquita_calibration::Subject;
use vaquita_quantize::container::Inventory;
use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::experts::{Streaming, open};
use vaquita_runtime::gguf::Gguf;
use vaquita_runtime::model::Model;
use vaquita_runtime::session::cache::CacheType;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::tokenizer::Tokenizer;

use crate::compute::Compute;
use crate::failure::{Failure, Result};

/// Opens the tokenizer of a model; a GGUF file needs no weights for that.
pub fn open_tokenizer(path: &Path) -> Result<Tokenizer> {
    exists(path)?;
    Ok(match path.is_dir() {
        true => Tokenizer::from_folder(path)?,
        false => Tokenizer::from_metadata(Gguf::open(path)?.metadata())?,
    })
}

/// A model that can run.
pub struct Loaded {
    /// The model.
    pub model: Arc<Model>,
    /// How sessions compute.
    pub options: SessionOptions,
    /// Its experts' store, where they are streamed within a memory budget.
    pub store: Option<Arc<Streaming>>,
    /// Weights of the model.
    pub parameters: u64,
}

/// Loads a model for `sessions` sequences at the same time. A folder's is the full-precision reference, so that its
/// cache is not rounded either.
pub fn load(compute: &Compute, path: &Path, sessions: usize) -> Result<Loaded> {
    exists(path)?;
    let cache = if path.is_dir() { CacheType::F32 } else { CacheType::F16 };
    let options = compute.session(cache)?;
    let loaded = if path.is_dir() {
        if compute.has_budget() {
            let message = "--memory is for files: quantize the folder first".into();
            return Err(Failure::Usage(message));
        }
        let weights = HfFolder::open(path)?;
        let parameters = Inventory::new(&weights)?.parameters;
        let model = Arc::new(Model::load(Arc::new(weights))?);
        Loaded { model, options, store: None, parameters }
    } else {
        let opened = open::open(path, &compute.open(&options, sessions))?;
        let parameters = Inventory::new(opened.weights.as_ref())?.parameters;
        Loaded { model: opened.model, options, store: opened.memory.store().cloned(), parameters }
    };
    let most = loaded.model.config().max_position_embeddings;
    let found = loaded.options.context;
    if found > most {
        return Err(Failure::Usage(format!("--context is {found}; this model takes up to {most}")));
    }
    Ok(loaded)
}

/// A model, its tokenizer and its chat template.
pub struct Bundle {
    /// The model.
    pub model: Arc<Model>,
    /// Text to tokens.
    pub prompter: Prompter,
    /// How sessions compute.
    pub options: SessionOptions,
    /// Its experts' store, where they are streamed within a memory budget.
    pub store: Option<Arc<Streaming>>,
}

impl Bundle {
    /// Opens a file or a folder for one sequence.
    pub fn open(compute: &Compute, path: &Path) -> Result<Self> {
        Self::open_for(compute, path, 1)
    }

    /// Opens it for as many sequences at the same time as there are threads.
    pub fn open_for_all_threads(compute: &Compute, path: &Path) -> Result<Self> {
        Self::open_for(compute, path, compute.threads())
    }

    fn open_for(compute: &Compute, path: &Path, sessions: usize) -> Result<Self> {
        let Loaded { model, options, store, .. } = load(compute, path, sessions)?;
        let tokenizer = Arc::new(open_tokenizer(path)?);
        let (found, allowed) = (tokenizer.vocab_size(), model.config().vocab_size);
        if found > allowed {
            let path = path.display();
            let message = format!("{path}: the tokenizer has {found} tokens, the model {allowed}");
            return Err(Failure::Error(message));
        }
        Ok(Self { model, prompter: Prompter::new(tokenizer)?, options, store })
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
