//! A model with the threads that compute it: what every program opens, with or without text.

use std::path::Path;
use std::sync::Arc;

use super::{AppError, ModelOptions};
use crate::checkpoint::GgufWeights;
use crate::model::{Model, Stats};
use crate::opening::pressure::PressureWatch;
use crate::opening::{self, MemoryControl};
use crate::session::draft::{DraftMode, Drafts};
use crate::session::{Session, SessionOptions};
use crate::threads::Pool;
use crate::trace::Recorder;

/// A model, its threads and its memory. [`AppModel`](super::AppModel) adds the text.
pub struct LoadedModel {
    /// The network.
    pub model: Arc<Model>,
    /// Control over its memory.
    pub memory: Arc<MemoryControl>,
    /// Its threads, bound to cores as [`ModelOptions`] say.
    pub pool: Arc<Pool>,
    /// Options of its sessions.
    pub options: SessionOptions,
    /// Why answers differ from the model's own, for reports; `None` if they do not.
    pub lossy: Option<String>,
    /// How sessions draft tokens.
    pub(super) drafts: DraftMode,
    /// Conversations at the same time that a memory budget was planned for.
    pub(super) sessions: Option<usize>,
    trace: Option<Arc<Recorder>>,
    /// Releases memory while it exists.
    pressure: Option<PressureWatch>,
}

impl LoadedModel {
    /// Opens a GGUF file and returns the model with the tensors and keys of the file.
    pub fn open(path: &Path, options: &ModelOptions) -> Result<(Self, Arc<GgufWeights>), AppError> {
        let file = options.file();
        let opened = opening::open(path, &file)?;
        let memory = opened.memory;
        let watch = options.yield_memory.then(|| PressureWatch::start(memory.clone())).flatten();
        let mut loaded = Self {
            lossy: file.lossy(),
            sessions: memory.plan().map(|_| file.workload.sessions),
            trace: opened.trace,
            pressure: watch,
            memory,
            ..Self::new(opened.model, options)?
        };
        if let Some(plan) = loaded.memory.plan() {
            loaded.options.prefill_chunk = plan.footprint.prefill_chunk;
        }
        Ok((loaded, opened.weights))
    }

    /// Creates a model from one loaded elsewhere with all its weights. Options of files do not
    /// apply.
    pub fn new(model: Arc<Model>, options: &ModelOptions) -> Result<Self, AppError> {
        let allowed = model.config().max_position_embeddings;
        if options.context > allowed {
            return Err(AppError::Context { found: options.context, allowed });
        }
        if matches!(options.drafts, DraftMode::Mtp(_)) && !model.has_mtp() {
            return Err(AppError::NoMtp);
        }
        Ok(Self {
            model,
            memory: Arc::new(MemoryControl::mapped(None)),
            pool: Arc::new(Pool::open(&options.cores())?),
            options: options.session(),
            drafts: options.drafts,
            lossy: None,
            sessions: None,
            trace: None,
            pressure: None,
        })
    }

    /// An empty session.
    pub fn session(&self) -> Session {
        let mut session = Session::new(self.model.clone(), self.pool.clone(), self.options.clone());
        session.draft_with(Drafts::new(&self.model, self.options.cache, self.drafts));
        session
    }

    /// Statistics of the expert store so far; `None` if no experts are streamed.
    pub fn streaming(&self) -> Option<Stats> {
        self.memory.store()?;
        self.model.experts().stats()
    }

    /// Whether memory is released while the system is short of it.
    pub fn yields_memory(&self) -> bool {
        self.pressure.is_some()
    }

    /// Completes the routing trace, if one is recorded.
    pub fn finish_trace(&self) -> std::io::Result<()> {
        self.trace.as_ref().map_or(Ok(()), |trace| trace.finish())
    }
}
