//! Opens a model file within a memory budget: mapped where everything fits, streamed where it does not.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::budget::{BudgetTextError, MemoryBudget, Needs, Plan, TooSmall, Workload};
use super::machine::Machine;
use super::policies::PolicyKind;
use super::source::Files;
use super::streaming::{OpenStoreError, Streaming, StreamingOptions};
use super::{ExpertStore, Guessing, Placement, Resident};
use crate::gguf::Gguf;
use crate::model::gguf_weights::OpenError;
use crate::model::{GgufWeights, Model, ModelError, Verify, WeightsError};

/// How to open a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenOptions {
    /// Memory of the whole process; `None` maps the file and leaves memory to the system.
    pub memory: Option<MemoryBudget>,
    /// What the model is going to be used for.
    pub workload: Workload,
    /// When checksums are verified.
    pub verify: Verify,
    /// Which experts give way.
    pub policy: PolicyKind,
    /// Reads at the same time.
    pub lanes: usize,
    /// Whether to read ahead what the next layer is likely to need.
    pub guessing: Guessing,
    /// Whether to read past the page cache, where the file system has that.
    pub direct: bool,
}

impl OpenOptions {
    /// Defaults for a workload, without a budget.
    pub fn new(workload: Workload) -> Self {
        Self {
            memory: None,
            workload,
            verify: Verify::default(),
            policy: PolicyKind::default(),
            lanes: 3,
            guessing: Guessing::default(),
            direct: true,
        }
    }
}

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenModelError {
    /// The file is not a model that runs.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The budget is not one.
    #[error(transparent)]
    Text(#[from] BudgetTextError),
    /// The budget is too small.
    #[error("{path}: {source}")]
    TooSmall {
        /// The file.
        path: PathBuf,
        /// By how much.
        source: TooSmall,
    },
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The experts cannot be streamed.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
}

impl From<WeightsError> for OpenModelError {
    fn from(error: WeightsError) -> Self {
        Self::Model(error.into())
    }
}

/// A model that is open, and the control over its memory.
pub struct Opened {
    /// The model.
    pub model: Arc<Model>,
    /// Its file; its mapping is gone where experts are streamed.
    pub weights: Arc<GgufWeights>,
    /// Its memory.
    pub memory: MemoryControl,
}

/// Opens a file.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Opened, OpenModelError> {
    let process = Machine::read(Path::new("/")).map_or(0, |machine| machine.process);
    open_gguf(Gguf::open(path).map_err(OpenError::from)?, options, process)
}

/// Opens a file whose header was read, in a process that occupied `process` bytes before that.
pub fn open_gguf(
    gguf: Gguf,
    options: &OpenOptions,
    process: u64,
) -> Result<Opened, OpenModelError> {
    let weights = GgufWeights::new(gguf, options.verify)?;
    let plan = match options.memory {
        None => None,
        Some(memory) => {
            let placement = Placement::find(&weights)?;
            let needs = Needs::of(&weights, &placement, &options.workload, process)?;
            let path = || weights.gguf().path().to_path_buf();
            let plan = needs.plan(memory.resolve()?);
            Some(plan.map_err(|source| OpenModelError::TooSmall { path: path(), source })?)
        }
    };
    match plan.and_then(|plan| Some((plan, plan.experts?))) {
        Some((plan, bytes)) => open_streamed(weights, plan, bytes, options),
        None => open_mapped(weights, plan),
    }
}

fn open_mapped(weights: GgufWeights, plan: Option<Plan>) -> Result<Opened, OpenModelError> {
    let weights = Arc::new(weights);
    let store: Arc<dyn ExpertStore> = Arc::new(Resident::new(weights.clone()));
    let model = Arc::new(Model::with_experts(&*weights, store)?);
    Ok(Opened { model, weights, memory: MemoryControl { plan: Mutex::new(plan), store: None } })
}

fn open_streamed(
    mut weights: GgufWeights,
    plan: Plan,
    experts: u64,
    options: &OpenOptions,
) -> Result<Opened, OpenModelError> {
    let files = Files::open(weights.gguf(), options.direct)
        .map_err(|(path, source)| WeightsError::Io { path, source })?;
    weights.detach(files.clone());
    let weights = Arc::new(weights);
    let streaming = StreamingOptions {
        budget_bytes: usize::try_from(experts).unwrap_or(usize::MAX),
        policy: options.policy,
        lanes: options.lanes,
        guessing: options.guessing,
    };
    let store = Arc::new(Streaming::new(weights.clone(), files, &streaming)?);
    let model = Arc::new(Model::with_experts(&*weights, store.clone())?);
    let memory = MemoryControl { plan: Mutex::new(Some(plan)), store: Some(store) };
    Ok(Opened { model, weights, memory })
}

/// How much memory to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimLevel {
    /// Experts beyond one token's: the application is in the background.
    Background,
    /// All that is not needed to compute at all: the system is about to end processes.
    Critical,
}

/// Control over the memory of an open model, while it generates. Changes take effect by the next layer.
pub struct MemoryControl {
    plan: Mutex<Option<Plan>>,
    store: Option<Arc<Streaming>>,
}

impl MemoryControl {
    /// What was planned; `None` without a budget.
    pub fn plan(&self) -> Option<Plan> {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store; `None` where the file is mapped.
    pub fn store(&self) -> Option<&Arc<Streaming>> {
        self.store.as_ref()
    }

    /// Changes the memory of the whole process. A mapped model keeps nothing of its own that it could give
    /// back: there it changes nothing.
    pub fn set_memory_budget(&self, bytes: u64) -> Result<(), TooSmall> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(plan), Some(store)) = (plan.as_mut(), &self.store) else { return Ok(()) };
        let needs = plan.needs;
        let too_small = TooSmall { budget: bytes, needs };
        if bytes < needs.floor() {
            return Err(too_small);
        }
        let experts = (bytes - needs.fixed()).min(needs.experts.max(needs.layer));
        let bytes_for_experts = usize::try_from(experts).unwrap_or(usize::MAX);
        store.set_budget(bytes_for_experts).map_err(|_| too_small)?;
        plan.budget = bytes;
        plan.experts = Some(experts);
        Ok(())
    }

    /// Gives memory back and keeps to what remains until [`MemoryControl::set_memory_budget`] says
    /// otherwise. A mapped model has nothing to give back.
    pub fn trim(&self, level: TrimLevel) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(plan), Some(store)) = (plan.as_mut(), &self.store) else { return };
        let needs = plan.needs;
        let experts = match level {
            TrimLevel::Background => needs.cycle.max(needs.layer),
            TrimLevel::Critical => needs.layer,
        };
        let experts = experts.min(plan.experts.unwrap_or(experts)).max(needs.layer);
        if store.set_budget(usize::try_from(experts).unwrap_or(usize::MAX)).is_ok() {
            plan.budget = needs.fixed().saturating_add(experts);
            plan.experts = Some(experts);
        }
    }
}
