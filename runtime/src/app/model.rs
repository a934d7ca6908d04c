//! A model file, opened for an app.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{AppError, Conversation};
use crate::checkpoint::gguf_weights::OpenError;
use crate::gguf::{Gguf, GgufError, Identity};
use crate::host::Host;
use crate::measure::memory::{self, Memory};
use crate::measure::meter::Meter;
use crate::measure::sampler::MeterSampler;
use crate::model::Model;
use crate::model::Stats;
use crate::model::cache::CacheType;
use crate::opening::budget::{MemoryBudget, Workload};
use crate::opening::memory_info::MemoryInfo;
use crate::opening::{MemoryControl, OpenModelError, OpenOptions, TrimLevel, open_gguf};
use crate::session::prompt::Prompter;
use crate::session::{Session, SessionOptions};
use crate::threads::Pool;
use crate::tokenizer::Tokenizer;

/// How a model is opened.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOptions {
    /// Memory of the whole process; `None` maps the file and leaves memory to the system.
    pub memory: Option<MemoryBudget>,
    /// Tokens that a conversation may have; 0 takes the model's.
    pub context: usize,
    /// Conversations at the same time that the memory budget is to hold.
    pub sessions: usize,
    /// Threads; 0 takes as many as there are cores.
    pub threads: usize,
    /// Precision of the caches.
    pub cache: CacheType,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { memory: None, context: 0, sessions: 1, threads: 0, cache: CacheType::F16 }
    }
}

/// Makes the meter of an answer.
pub type MeterMaker = Arc<dyn Fn() -> Box<dyn Meter> + Send + Sync>;

/// How hot the device is: a phone's own levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thermal {
    /// All threads compute.
    Nominal,
    /// Three quarters of them.
    Fair,
    /// Half.
    Serious,
    /// One.
    Critical,
}

/// Where memory goes, in bytes. What is `None` is not measured, or there is no budget that would say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// The process, as the system counts it.
    pub process: Option<Memory>,
    /// The budget.
    pub budget: Option<u64>,
    /// Planned for weights that are not routed experts.
    pub dense: Option<u64>,
    /// Planned for the caches of all conversations.
    pub cache: Option<u64>,
    /// Planned for what a chunk of a prompt computes with.
    pub scratch: Option<u64>,
    /// What streamed experts may take; `None` where the file is mapped.
    pub experts_limit: Option<u64>,
    /// What they take now.
    pub experts: Option<u64>,
}

/// A model with its tokenizer, its template and its threads.
pub struct AppModel {
    pub(super) model: Arc<Model>,
    pub(super) prompter: Prompter,
    pub(super) identity: Identity,
    memory: Arc<MemoryControl>,
    pool: Arc<Pool>,
    options: SessionOptions,
    meter: Mutex<Option<MeterMaker>>,
    /// Most conversations at the same time, where a budget was planned for them.
    limit: Option<usize>,
    live: AtomicUsize,
}

impl AppModel {
    /// Opens a GGUF file.
    pub fn open(path: &Path, options: &ModelOptions) -> Result<Arc<Self>, AppError> {
        let process = MemoryInfo::read(&Host::live()).map_or(0, |machine| machine.process);
        let sessions = options.sessions.max(1);
        let ModelOptions { context, cache, .. } = *options;
        let session = SessionOptions { context, cache, ..SessionOptions::default() };
        let workload = Workload {
            context: session.context,
            prefill_chunk: session.prefill_chunk,
            cache: session.cache,
            sessions,
        };
        let gguf =
            Gguf::open(path).map_err(|error| OpenModelError::from(OpenError::from(error)))?;
        let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata())?);
        let io = |source| OpenError::from(GgufError::Io { path: path.into(), source });
        let identity = gguf.identity().map_err(|error| OpenModelError::from(io(error)))?;
        let open = OpenOptions { memory: options.memory, ..OpenOptions::new(workload) };
        let opened = open_gguf(gguf, &open, process)?;
        let config = opened.model.config();
        let prompter = Prompter::for_model(tokenizer, config)?;
        let allowed = config.max_position_embeddings;
        if options.context > allowed {
            return Err(AppError::Context { found: options.context, allowed });
        }
        let prompter = prompter.within(if context == 0 { allowed } else { context });
        let threads = match options.threads {
            0 => Pool::default_threads(),
            threads => threads,
        };
        Ok(Arc::new(Self {
            model: opened.model,
            prompter,
            identity,
            limit: opened.memory.plan().map(|_| sessions),
            memory: opened.memory,
            pool: Arc::new(Pool::new(threads)),
            options: session,
            meter: Mutex::new(None),
            live: AtomicUsize::new(0),
        }))
    }

    /// Begins a conversation.
    pub fn conversation(self: &Arc<Self>) -> Result<Conversation, AppError> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let one_more = |live: usize| (live < limit).then_some(live + 1);
        let taken = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.map_err(|_| AppError::Sessions { limit })?;
        Ok(Conversation::new(self.clone(), self.session()))
    }

    /// An empty session.
    pub(super) fn session(&self) -> Session {
        Session::new(self.model.clone(), self.pool.clone(), self.options.clone())
    }

    /// A conversation is over.
    pub(super) fn leave(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// Conversations that are open.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Changes the memory of the whole process; it takes effect by the next layer, also while an answer is generated.
    /// A mapped model keeps nothing of its own that it could give back: there it changes nothing.
    pub fn set_memory_budget(&self, bytes: u64) -> Result<(), AppError> {
        Ok(self.memory.set_memory_budget(bytes)?)
    }

    /// Gives experts' memory back, until [`AppModel::set_memory_budget`] says otherwise.
    pub fn trim(&self, level: TrimLevel) {
        self.memory.trim(level);
    }

    /// Computes with fewer threads while the device is hot; answers stay the same to the last bit. Gives the number.
    pub fn thermal_hint(&self, thermal: Thermal) -> usize {
        let threads = self.pool.threads();
        self.pool.set_limit(match thermal {
            Thermal::Nominal => threads,
            Thermal::Fair => (threads * 3).div_ceil(4),
            Thermal::Serious => threads.div_ceil(2),
            Thermal::Critical => 1,
        });
        self.pool.active()
    }

    /// From the next answer on, energy is measured with a meter of the app's own; `None`: with the machine's.
    pub fn set_meter(&self, meter: Option<MeterMaker>) {
        *self.meter.lock().unwrap_or_else(PoisonError::into_inner) = meter;
    }

    /// Measures an answer's energy.
    pub(super) fn sampler(&self) -> MeterSampler {
        let maker = self.meter.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match maker {
            Some(make) => MeterSampler::start(Some(make()), Arc::new(Host::live())),
            None => MeterSampler::auto(),
        }
    }

    /// What the expert store did so far, where experts are streamed.
    pub fn streaming(&self) -> Option<Stats> {
        self.memory.store()?;
        self.model.experts().stats()
    }

    /// Where memory goes.
    pub fn memory(&self) -> MemoryUse {
        let plan = self.memory.plan();
        MemoryUse {
            process: memory::current(),
            budget: plan.map(|plan| plan.budget),
            dense: plan.map(|plan| plan.footprint.dense),
            cache: plan.map(|plan| plan.footprint.cache),
            scratch: plan.map(|plan| plan.footprint.scratch),
            experts_limit: plan.and_then(|plan| plan.experts),
            experts: self.streaming().map(|stats| stats.resident_bytes),
        }
    }
}
