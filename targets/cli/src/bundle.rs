//! A model with everything needed to talk to it, from a GGUF file or a Hugging Face folder.

use std::path::Path;
use std::sync::Arc;

use vaquita_calibration::Subject;
use vaquita_quantize::container::Inventory;
use vaquita_quantize::sources::{self, HfFolder};
use vaquita_runtime::app::{AppModel, Conversation, LoadedModel, ModelOptions};
use vaquita_runtime::bytes::file::reason;
use vaquita_runtime::checkpoint::GgufWeights;
use vaquita_runtime::checkpoint::suggested::SuggestedSampling;
use vaquita_runtime::experts::ExpertIndex;
use vaquita_runtime::gguf::Gguf;
use vaquita_runtime::host::Host;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::opening::budget::{Footprint, MemoryBudget, MemoryPlan, Workload};
use vaquita_runtime::opening::memory_info::MemoryInfo;
use vaquita_runtime::session::Session;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::tokenizer::Tokenizer;

use crate::compute::{Compute, stay_with};
use crate::failure::{Failure, Result};
use crate::hints::in_words;
use crate::{size, slips};

/// Opens the tokenizer of a model. A GGUF file does not need weights for this.
pub fn open_tokenizer(path: &Path) -> Result<Tokenizer> {
    slips::check_model(path)?;
    let tokenizer = sources::tokenizer(path)?;
    tell(path, &tokenizer);
    Ok(tokenizer)
}

/// Says what was assumed about a tokenizer.
fn tell(path: &Path, tokenizer: &Tokenizer) {
    if let Some(note) = tokenizer.note() {
        eprintln!("note: {}: {note}", path.display());
    }
}

/// The sampling options that a model's authors suggest.
pub fn suggested(path: &Path) -> Result<SuggestedSampling> {
    Ok(match path.is_dir() {
        true => SuggestedSampling::from_folder(path),
        false => SuggestedSampling::from_metadata(Gguf::open(path)?.metadata()),
    })
}

/// A model that is ready to run.
pub struct Loaded {
    /// The model and its threads.
    pub loaded: LoadedModel,
    /// Number of weights.
    pub parameters: u64,
    /// Memory footprint, if the model is a file.
    pub footprint: Option<Footprint>,
}

impl Loaded {
    /// A session; this thread computes with it.
    pub fn session(&self) -> Session {
        stay_with(&self.loaded.pool);
        self.loaded.session()
    }

    /// Division of the memory budget, if there is one.
    pub fn plan(&self) -> Option<MemoryPlan> {
        self.loaded.memory.plan()
    }

    /// Completes the routing trace, if one was requested.
    pub fn finish(&self) -> Result {
        finish(&self.loaded)
    }
}

fn finish(loaded: &LoadedModel) -> Result {
    loaded.finish_trace().map_err(|error| Failure::Error(format!("--trace: {}", reason(&error))))
}

/// Loads a model for `sessions` concurrent sequences. A folder is the full-precision reference, so
/// its cache is not rounded either.
pub fn load(compute: &Compute, path: &Path, sessions: usize) -> Result<Loaded> {
    Ok(load_with_file(compute, path, sessions)?.0)
}

/// The model, and the file if it is one.
fn load_with_file(
    compute: &Compute,
    path: &Path,
    sessions: usize,
) -> Result<(Loaded, Option<Arc<GgufWeights>>)> {
    slips::check_model(path)?;
    let cache = if path.is_dir() { CacheType::F32 } else { CacheType::F16 };
    let options = compute.model(cache, sessions)?;
    if path.is_dir() {
        return Ok((load_folder(compute, path, &options)?, None));
    }
    let (loaded, file) = load_file(compute, path, &options)?;
    Ok((loaded, Some(file)))
}

fn load_folder(compute: &Compute, path: &Path, options: &ModelOptions) -> Result<Loaded> {
    if let Some(option) = compute.file_option() {
        let message = format!("{option} is for files: quantize the folder first");
        return Err(Failure::Usage(message));
    }
    let weights = HfFolder::open(path)?;
    let parameters = Inventory::new(&weights)?.parameters;
    let weights = Arc::new(weights);
    let mut model = Model::load(weights.clone())?;
    if options.drafts.uses_mtp() {
        model.load_mtp(&*weights)?;
    }
    let model = Arc::new(model);
    Ok(Loaded { loaded: LoadedModel::new(model, options)?, parameters, footprint: None })
}

fn load_file(
    compute: &Compute,
    path: &Path,
    options: &ModelOptions,
) -> Result<(Loaded, Arc<GgufWeights>)> {
    if compute.has_trace() && options.sessions > 1 {
        let message = "--trace records one sequence at a time: use it with run, chat or bench";
        return Err(Failure::Usage(message.into()));
    }
    note_large_budget(options);
    let (loaded, weights) = LoadedModel::open(path, options)?;
    if options.yield_memory && !loaded.yields_memory() && loaded.memory.store().is_some() {
        eprintln!("--yield-memory: this system does not say how short of memory it is");
    }
    let prefill_chunk = loaded.options.prefill_chunk;
    let workload = Workload { prefill_chunk, ..options.file().workload };
    let index = ExpertIndex::find(&weights).ok();
    let footprint = index.and_then(|index| {
        let mut footprint = Footprint::of(&weights, &index, &workload, 0).ok()?;
        if loaded.model.has_mtp() {
            footprint.add_mtp(&weights, &index, &workload);
        }
        Some(footprint)
    });
    let parameters = Inventory::new(weights.as_ref())?.parameters;
    Ok((Loaded { loaded, parameters, footprint }, weights))
}

/// Says so where a budget is more than the machine has.
fn note_large_budget(options: &ModelOptions) {
    if let (Some(MemoryBudget::Bytes(budget)), Some(machine)) =
        (options.memory, MemoryInfo::read(&Host::live()))
        && budget > machine.total
    {
        let (budget, total) = (size::show(budget), size::show(machine.total));
        eprintln!("note: --memory is {budget}, and this machine has {total}");
    }
}

/// A model with its tokenizer and chat template.
pub struct Bundle {
    app: Arc<AppModel>,
    suggested: SuggestedSampling,
}

impl Bundle {
    /// Opens a file or folder for one sequence.
    pub fn open(compute: &Compute, path: &Path) -> Result<Self> {
        Self::open_for(compute, path, 1)
    }

    /// Opens a file or folder for as many concurrent sequences as there are threads.
    pub fn open_for_all_threads(compute: &Compute, path: &Path) -> Result<Self> {
        Self::open_for(compute, path, compute.all_threads())
    }

    /// Opens a file or folder for `sequences` concurrent sequences.
    pub fn open_for_sequences(compute: &Compute, path: &Path, sequences: usize) -> Result<Self> {
        Self::open_for(compute, path, sequences)
    }

    /// The model for programs.
    pub fn into_app(self) -> Arc<AppModel> {
        self.app
    }

    fn open_for(compute: &Compute, path: &Path, sessions: usize) -> Result<Self> {
        let (Loaded { loaded, .. }, file) = load_with_file(compute, path, sessions)?;
        // A header is read once: vocabularies make it long.
        let (app, suggested) = match file {
            None => (AppModel::new(loaded, open_tokenizer(path)?), suggested(path)?),
            Some(file) => {
                let gguf = file.gguf();
                let tokenizer = Tokenizer::from_metadata(gguf.metadata())?;
                tell(path, &tokenizer);
                let suggested = SuggestedSampling::from_metadata(gguf.metadata());
                (AppModel::of_file(loaded, tokenizer, gguf.identity()?), suggested)
            }
        };
        let app = app
            .map_err(|error| Failure::Error(format!("{}: {}", path.display(), in_words(&error))))?;
        Ok(Self { app, suggested })
    }

    /// The model for programs, shared.
    pub fn app(&self) -> &Arc<AppModel> {
        &self.app
    }

    /// The model and its threads.
    pub fn loaded(&self) -> &LoadedModel {
        self.app.loaded()
    }

    /// Text to tokens.
    pub fn prompter(&self) -> &Prompter {
        self.app.prompter()
    }

    /// Sampling options that the model's authors suggest.
    pub fn suggested(&self) -> &SuggestedSampling {
        &self.suggested
    }

    /// A conversation; this thread computes it.
    pub fn conversation(&self) -> Result<Conversation> {
        stay_with(&self.loaded().pool);
        Ok(self.app.conversation()?)
    }

    /// Completes the routing trace, where one was asked for.
    pub fn finish(&self) -> Result {
        finish(self.loaded())
    }

    /// The subject of evaluations. The bundle must outlive it for memory pressure to be watched.
    pub fn subject(&self, compute: &Compute) -> Subject {
        let mut options = self.loaded().options.clone();
        if compute.prefers_resident() {
            // Preferring resident experts applies to single tokens, so evaluate as during
            // generation.
            options.prefill_chunk = 1;
        }
        Subject { model: self.loaded().model.clone(), prompter: self.prompter().clone(), options }
    }
}
