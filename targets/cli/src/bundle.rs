//! A model with everything needed to talk to it, from a GGUF file or a Hugging Face folder.

use std::path::Path;
use std::sync::Arc;

use vaquita_calibration::Subject;
use vaquita_quantize::container::Inventory;
use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::experts::ExpertIndex;
use vaquita_runtime::gguf::Gguf;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::model::{ExpertStore, Stats};
use vaquita_runtime::opening;
use vaquita_runtime::opening::budget::{Footprint, MemoryPlan};
use vaquita_runtime::opening::pressure::PressureWatch;
use vaquita_runtime::opening::{MemoryControl, OpenOptions};
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_runtime::trace::Recorder;

use crate::compute::Compute;
use crate::failure::{Failure, Result};

/// Opens the tokenizer of a model. A GGUF file does not need weights for this.
pub fn open_tokenizer(path: &Path) -> Result<Tokenizer> {
    exists(path)?;
    let tokenizer = match path.is_dir() {
        true => Tokenizer::from_folder(path)?,
        false => Tokenizer::from_metadata(Gguf::open(path)?.metadata())?,
    };
    if let Some(note) = tokenizer.note() {
        eprintln!("note: {}: {note}", path.display());
    }
    Ok(tokenizer)
}

/// A model that is ready to run.
pub struct Loaded {
    /// The model.
    pub model: Arc<Model>,
    /// Session options.
    pub options: SessionOptions,
    /// Number of weights.
    pub parameters: u64,
    /// Description of the lossy options in effect.
    pub lossy: Option<String>,
    /// Memory footprint, if the model is a file.
    pub footprint: Option<Footprint>,
    memory: Option<Arc<MemoryControl>>,
    trace: Option<Arc<Recorder>>,
    /// Releases memory under system pressure for as long as this lives.
    _pressure: Option<PressureWatch>,
}

impl Loaded {
    /// Statistics of the expert store; `None` unless experts are streamed within a memory budget.
    pub fn streaming(&self) -> Option<Stats> {
        self.memory.as_ref()?.store()?.stats()
    }

    /// Division of the memory budget, if there is one.
    pub fn plan(&self) -> Option<MemoryPlan> {
        self.memory.as_ref()?.plan()
    }

    /// A session on all threads.
    pub fn session(&self, compute: &Compute) -> Result<Session> {
        Ok(Session::new(self.model.clone(), compute.pool()?, self.options.clone()))
    }

    /// Completes the routing trace, if one was requested.
    pub fn finish(&self) -> Result {
        let Some(trace) = &self.trace else { return Ok(()) };
        trace.finish().map_err(|error| Failure::Error(format!("--trace: {error}")))
    }
}

/// Loads a model for `sessions` concurrent sequences. A folder is the full-precision reference, so
/// its cache is not rounded either.
pub fn load(compute: &Compute, path: &Path, sessions: usize) -> Result<Loaded> {
    exists(path)?;
    let cache = if path.is_dir() { CacheType::F32 } else { CacheType::F16 };
    let options = compute.session(cache)?;
    let loaded = if path.is_dir() {
        if let Some(option) = compute.file_option() {
            let message = format!("{option} is for files: quantize the folder first");
            return Err(Failure::Usage(message));
        }
        let weights = HfFolder::open(path)?;
        let parameters = Inventory::new(&weights)?.parameters;
        let model = Arc::new(Model::load(Arc::new(weights))?);
        let (lossy, footprint, memory, trace) = (None, None, None, None);
        Loaded { model, options, parameters, lossy, footprint, memory, trace, _pressure: None }
    } else {
        if compute.has_trace() && sessions > 1 {
            let message = "--trace records one sequence at a time: use it with run, chat or bench";
            return Err(Failure::Usage(message.into()));
        }
        let open = compute.open(&options, sessions);
        load_file(path, options, &open, compute.yields_memory())?
    };
    let most = loaded.model.config().max_position_embeddings;
    let found = loaded.options.context;
    if found > most {
        return Err(Failure::Usage(format!("--context is {found}; this model takes up to {most}")));
    }
    Ok(loaded)
}

fn load_file(
    path: &Path,
    options: SessionOptions,
    open: &OpenOptions,
    yields_memory: bool,
) -> Result<Loaded> {
    let opened = opening::open(path, open)?;
    let memory = opened.memory;
    let pressure = yields_memory.then(|| PressureWatch::start(memory.clone())).flatten();
    if yields_memory && pressure.is_none() && memory.store().is_some() {
        eprintln!("--yield-memory: this system does not say how short of memory it is");
    }
    let index = ExpertIndex::find(&opened.weights).ok();
    let footprint =
        index.and_then(|index| Footprint::of(&opened.weights, &index, &open.workload, 0).ok());
    Ok(Loaded {
        model: opened.model,
        options,
        parameters: Inventory::new(opened.weights.as_ref())?.parameters,
        lossy: open.lossy(),
        footprint,
        memory: Some(memory),
        trace: opened.trace,
        _pressure: pressure,
    })
}

/// A model with its tokenizer and chat template.
pub struct Bundle {
    /// The model.
    pub loaded: Loaded,
    /// Renders and tokenizes prompts.
    pub prompter: Prompter,
}

impl Bundle {
    /// Opens a file or folder for one sequence.
    pub fn open(compute: &Compute, path: &Path) -> Result<Self> {
        Self::open_for(compute, path, 1)
    }

    /// Opens a file or folder for as many concurrent sequences as there are threads.
    pub fn open_for_all_threads(compute: &Compute, path: &Path) -> Result<Self> {
        let mut bundle = Self::open_for(compute, path, compute.all_threads())?;
        if compute.prefers_resident() {
            // Preferring resident experts applies to single tokens, so evaluate as during
            // generation.
            bundle.loaded.options.prefill_chunk = 1;
        }
        Ok(bundle)
    }

    fn open_for(compute: &Compute, path: &Path, sessions: usize) -> Result<Self> {
        let loaded = load(compute, path, sessions)?;
        let tokenizer = Arc::new(open_tokenizer(path)?);
        let prompter = Prompter::for_model(tokenizer, loaded.model.config())
            .map_err(|error| Failure::Error(format!("{}: {error}", path.display())))?;
        let prompter = match loaded.options.context {
            0 => prompter,
            context => prompter.within(context),
        };
        Ok(Self { loaded, prompter })
    }

    /// The subject of evaluations. The bundle must outlive it for memory pressure to be watched.
    pub fn subject(&self) -> Subject {
        let (model, prompter) = (self.loaded.model.clone(), self.prompter.clone());
        Subject { model, prompter, options: self.loaded.options.clone() }
    }
}

fn exists(path: &Path) -> Result<()> {
    match path.exists() {
        true => Ok(()),
        false => Err(Failure::Error(format!("{}: no such file or folder", path.display()))),
    }
}
