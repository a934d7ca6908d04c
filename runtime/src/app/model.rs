//! A model file, opened for an app.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::judge::judge_text;
use super::{AppError, Conversation, LoadedModel, ModelOptions};
use crate::checkpoint::gguf_weights::OpenError;
use crate::engine::{
    Engine, EngineModel, EngineOptions, JointPasses, PromptCacheOptions, PromptFolder, StartError,
};
use crate::gguf::{GgufError, Identity};
use crate::host::Host;
use crate::measure::memory::{self, Memory};
use crate::measure::meter::Meter;
use crate::measure::sampler::MeterSampler;
use crate::model::Stats;
use crate::opening::{OpenModelError, TrimLevel};
use crate::session::prompt::Prompter;
use crate::session::save::SaveError;
use crate::tokenizer::Tokenizer;

/// Creates the meter of an answer.
pub type MeterMaker = Arc<dyn Fn() -> Box<dyn Meter> + Send + Sync>;

/// Thermal state of the device, in a phone's own levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thermal {
    /// All threads compute.
    Nominal,
    /// Three quarters of the threads compute.
    Fair,
    /// Half of the threads compute.
    Serious,
    /// One thread computes.
    Critical,
}

/// Memory use, in bytes. A field is `None` if it is not measured or no budget determines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Memory of the process, as the system counts it.
    pub process: Option<Memory>,
    /// Memory budget.
    pub budget: Option<u64>,
    /// Memory planned for weights that are not routed experts.
    pub dense: Option<u64>,
    /// Memory planned for the caches of all conversations.
    pub cache: Option<u64>,
    /// Memory planned for the computation of a prompt chunk.
    pub scratch: Option<u64>,
    /// Memory limit of streamed experts; `None` if the file is mapped.
    pub experts_limit: Option<u64>,
    /// Memory that streamed experts take now.
    pub experts: Option<u64>,
}

/// A model with its tokenizer, its template and its threads.
pub struct AppModel {
    pub(super) loaded: LoadedModel,
    pub(super) prompter: Prompter,
    /// Identity of the file, to which saved conversations belong; `None` without one.
    pub(super) identity: Option<Identity>,
    /// The passes of its conversations.
    passes: Arc<JointPasses>,
    /// What its conversations keep.
    pub(super) prompts: OnceLock<PromptFolder>,
    meter: Arc<Mutex<Option<MeterMaker>>>,
    live: Arc<AtomicUsize>,
}

impl AppModel {
    /// Opens a GGUF file.
    pub fn open(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Arc<Self>, AppError> {
        let path = path.as_ref();
        let (loaded, weights) = LoadedModel::open(path, options)?;
        let gguf = weights.gguf();
        let tokenizer = Tokenizer::from_metadata(gguf.metadata())?;
        let io = |source| OpenError::from(GgufError::Io { path: path.into(), source });
        let identity = gguf.identity().map_err(|error| OpenModelError::from(io(error)))?;
        Self::with(loaded, tokenizer, Some(identity))
    }

    /// Creates a model from one loaded elsewhere, with its tokenizer. Its conversations cannot be
    /// saved.
    pub fn new(loaded: LoadedModel, tokenizer: Tokenizer) -> Result<Arc<Self>, AppError> {
        Self::with(loaded, tokenizer, None)
    }

    /// Creates a model from a GGUF file that was loaded elsewhere, with its tokenizer. Saved
    /// conversations belong to `identity`.
    pub fn of_file(
        loaded: LoadedModel,
        tokenizer: Tokenizer,
        identity: Identity,
    ) -> Result<Arc<Self>, AppError> {
        Self::with(loaded, tokenizer, Some(identity))
    }

    fn with(
        loaded: LoadedModel,
        tokenizer: Tokenizer,
        identity: Option<Identity>,
    ) -> Result<Arc<Self>, AppError> {
        let prompter = judge_text(Arc::new(tokenizer), loaded.model.config())?;
        let prompter = match loaded.options.context {
            0 => prompter,
            context => prompter.within(context),
        };
        let (meter, live) = (Arc::default(), Arc::default());
        let LoadedModel { model, pool, options, .. } = &loaded;
        let passes = JointPasses::new(model.clone(), pool.clone(), options.clone());
        let prompts = OnceLock::new();
        Ok(Arc::new(Self { loaded, prompter, identity, passes, prompts, meter, live }))
    }

    /// The model and its threads.
    pub fn loaded(&self) -> &LoadedModel {
        &self.loaded
    }

    /// Identity of the model's file; `None` without one.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Prompt renderer of the model.
    pub fn prompter(&self) -> &Prompter {
        &self.prompter
    }

    /// Begins a conversation.
    pub fn conversation(self: &Arc<Self>) -> Result<Conversation, AppError> {
        let place = self.places(1)?;
        Ok(Conversation::new(self.clone(), self.passes.seat(), place))
    }

    /// Lets conversations that begin from now on keep their prompts and answers in a folder, and go
    /// on from what is there. Later calls have no effect.
    pub fn keep_prompts(&self, options: &PromptCacheOptions) -> Result<(), AppError> {
        let Some(folder) = &options.folder else { return Ok(()) };
        let fingerprint = self.fingerprint(folder)?.ok_or(StartError::NoFingerprint)?;
        let LoadedModel { model, options: session, .. } = &self.loaded;
        let folder = PromptFolder::open(options, model, fingerprint, session.cache);
        if let Some(folder) = folder.map_err(StartError::from)? {
            let _ = self.prompts.set(folder); // the first one stays
        }
        Ok(())
    }

    /// The passes that its conversations share.
    pub fn passes(&self) -> &JointPasses {
        &self.passes
    }

    /// Starts an engine, which answers many requests at the same time. It takes the place of as many
    /// conversations in the memory budget as its cache holds, all of them by default.
    pub fn engine(self: &Arc<Self>, options: EngineOptions) -> Result<Engine, AppError> {
        let LoadedModel { model, pool, options: session, sessions, .. } = &self.loaded;
        let meter = self.meter.clone();
        let fingerprint = match options.prompts.folder.as_ref().or(options.slot_folder.as_ref()) {
            Some(folder) => self.fingerprint(folder)?,
            None => None,
        };
        let mut parts = EngineModel {
            model: model.clone(),
            pool: pool.clone(),
            tokenizer: self.prompter.tokenizer().clone(),
            session: session.clone(),
            drafts: self.loaded.drafts,
            energy: Arc::new(move || sampler(&meter)),
            fingerprint,
            cache_bytes: None,
            held: None,
        };
        let mut options = options;
        if let Some(sessions) = sessions {
            let context = parts.context().max(1);
            let tokens = options.cache_tokens.unwrap_or(sessions.saturating_mul(context));
            let count = tokens.div_ceil(context);
            parts.held = Some(Arc::new(self.places(count)?));
            let plan = self.loaded.memory.plan();
            parts.cache_bytes =
                plan.map(|plan| plan.footprint.cache / *sessions as u64 * count as u64);
            options.cache_tokens = Some(tokens);
        }
        Ok(Engine::start(parts, options)?)
    }

    /// Fingerprint of the model as its options change it, for files in a folder; `None` if it is not
    /// a GGUF file.
    fn fingerprint(&self, folder: &Path) -> Result<Option<u64>, AppError> {
        let Some(identity) = &self.identity else { return Ok(None) };
        let fingerprint = identity.fingerprint();
        let fingerprint =
            fingerprint.map_err(|source| SaveError::Model { path: folder.into(), source })?;
        let lossy = self.loaded.lossy.as_deref().unwrap_or_default();
        Ok(Some(fingerprint ^ u64::from(crc32fast::hash(lossy.as_bytes()))))
    }

    /// Takes the place of `count` conversations in the memory budget.
    fn places(&self, count: usize) -> Result<Places, AppError> {
        let limit = self.loaded.sessions.unwrap_or(usize::MAX);
        let more = |live: usize| live.checked_add(count).filter(|live| *live <= limit);
        let taken = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map_err(|_| AppError::Sessions { limit })?;
        Ok(Places { live: self.live.clone(), count })
    }

    /// Number of open conversations, and of those that an engine takes the place of.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Changes the memory budget of the whole process; it takes effect by the next layer, even
    /// while an answer is generated. It has no effect on a mapped model, which holds no memory of
    /// its own to release.
    pub fn set_memory_budget(&self, bytes: u64) -> Result<(), AppError> {
        Ok(self.loaded.memory.set_memory_budget(bytes)?)
    }

    /// Releases memory of experts, until [`AppModel::set_memory_budget`] is called again.
    pub fn trim(&self, level: TrimLevel) {
        self.loaded.memory.trim(level);
    }

    /// Sets the number of computing threads by the thermal state of the device and returns it;
    /// answers stay bit-identical.
    pub fn thermal_hint(&self, thermal: Thermal) -> usize {
        let threads = self.loaded.pool.threads();
        self.loaded.pool.set_limit(match thermal {
            Thermal::Nominal => threads,
            Thermal::Fair => (threads * 3).div_ceil(4),
            Thermal::Serious => threads.div_ceil(2),
            Thermal::Critical => 1,
        });
        self.loaded.pool.active()
    }

    /// Sets the app's own energy meter, from the next answer on; `None` selects the machine's.
    pub fn set_meter(&self, meter: Option<MeterMaker>) {
        *self.meter.lock().unwrap_or_else(PoisonError::into_inner) = meter;
    }

    /// Starts measuring the energy of an answer.
    pub(super) fn sampler(&self) -> MeterSampler {
        sampler(&self.meter)
    }

    /// Statistics of the expert store so far; `None` if no experts are streamed.
    pub fn streaming(&self) -> Option<Stats> {
        self.loaded.streaming()
    }

    /// Current memory use.
    pub fn memory(&self) -> MemoryUse {
        let plan = self.loaded.memory.plan();
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

fn sampler(meter: &Mutex<Option<MeterMaker>>) -> MeterSampler {
    let maker = meter.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match maker {
        Some(make) => MeterSampler::start(Some(make()), Arc::new(Host::live())),
        None => MeterSampler::auto(),
    }
}

/// The place of conversations in the memory budget, free again when it is dropped.
pub(super) struct Places {
    live: Arc<AtomicUsize>,
    count: usize,
}

impl Drop for Places {
    fn drop(&mut self) {
        self.live.fetch_sub(self.count, Ordering::Relaxed);
    }
}
