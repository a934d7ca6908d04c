//! Opens a model file within a memory budget: mapped where everything fits, streamed where it does not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::budget::{BudgetTextError, Footprint, MemoryBudget, Plan, TooSmall, Workload};
use super::control::MemoryControl;
use super::machine::Machine;
use crate::checkpoint::gguf_weights::OpenError;
use crate::checkpoint::source::Files;
use crate::checkpoint::{GgufWeights, Verify, Weights, WeightsError};
use crate::experts::policies::PolicyKind;
use crate::experts::{Guessing, OpenStoreError, Placement, Streaming, StreamingOptions};
use crate::gguf::Gguf;
use crate::host::Host;
use crate::model::{ExpertStore, Model, ModelError, Resident};
use crate::trace::Recorder;

/// How to open a model.
#[derive(Clone, Debug, PartialEq)]
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
    /// Where to record routing ([`crate::trace`]), for one sequence at a time.
    pub trace: Option<PathBuf>,
    /// Lossy: see [`StreamingOptions::prefer_resident`].
    pub prefer_resident: Option<f32>,
    /// Lossy: route tokens to fewer experts than the model was trained with.
    pub active_experts: Option<usize>,
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
            trace: None,
            prefer_resident: None,
            active_experts: None,
        }
    }

    /// What changes the model's answers, in words for whoever reads figures; `None` where nothing does.
    pub fn lossy(&self) -> Option<String> {
        let prefer = self.prefer_resident.map(|margin| {
            format!("experts in memory preferred within {:.0}%", f64::from(margin) * 100.0)
        });
        let active = self.active_experts.map(|active| format!("{active} experts per token"));
        let changes: Vec<String> = prefer.into_iter().chain(active).collect();
        (!changes.is_empty()).then(|| format!("lossy: {}", changes.join(", ")))
    }

    fn check(&self) -> Result<(), OpenModelError> {
        match self.prefer_resident {
            Some(found) if !(0.0..=1.0).contains(&found) => Err(OpenModelError::Margin { found }),
            _ => Ok(()),
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
    /// A margin that is no share.
    #[error("experts in memory cannot be preferred within {found}; give a share between 0 and 1")]
    Margin {
        /// What was given.
        found: f32,
    },
    /// A number of experts that the model cannot route to.
    #[error("{found} experts per token are not possible; this model has 1 to {allowed}")]
    ActiveExperts {
        /// What was given.
        found: usize,
        /// What the model was trained with.
        allowed: usize,
    },
    /// The trace cannot be written.
    #[error("{path}: {source}")]
    Trace {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
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
    pub memory: Arc<MemoryControl>,
    /// What records its routing, where that was asked for; to be finished at the end.
    pub trace: Option<Arc<Recorder>>,
}

/// Opens a file.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Opened, OpenModelError> {
    let process = Machine::read(&Host::live()).map_or(0, |machine| machine.process);
    open_gguf(Gguf::open(path).map_err(OpenError::from)?, options, process)
}

/// Opens a file whose header was read, in a process that occupied `process` bytes before that.
pub fn open_gguf(
    gguf: Gguf,
    options: &OpenOptions,
    process: u64,
) -> Result<Opened, OpenModelError> {
    options.check()?;
    let mut weights = GgufWeights::new(gguf, options.verify)?;
    if let Some(found) = options.active_experts {
        weights
            .set_active_experts(found)
            .map_err(|allowed| OpenModelError::ActiveExperts { found, allowed })?;
    }
    let plan = match options.memory {
        None => None,
        Some(memory) => {
            let placement = Placement::find(&weights)?;
            let footprint = Footprint::of(&weights, &placement, &options.workload, process)?;
            let path = || weights.gguf().path().to_path_buf();
            let plan = footprint.plan(memory.resolve()?);
            Some(plan.map_err(|source| OpenModelError::TooSmall { path: path(), source })?)
        }
    };
    match plan.and_then(|plan| Some((plan, plan.experts?))) {
        Some((plan, bytes)) => open_streamed(weights, plan, bytes, options),
        None => open_mapped(weights, plan, options),
    }
}

fn open_mapped(
    weights: GgufWeights,
    plan: Option<Plan>,
    options: &OpenOptions,
) -> Result<Opened, OpenModelError> {
    let weights = Arc::new(weights);
    let store = Arc::new(Resident::new(weights.clone()));
    load(weights, store, MemoryControl::new(plan, None), options)
}

fn load(
    weights: Arc<GgufWeights>,
    store: Arc<dyn ExpertStore>,
    memory: MemoryControl,
    options: &OpenOptions,
) -> Result<Opened, OpenModelError> {
    let trace = match &options.trace {
        None => None,
        Some(path) => {
            let gguf = weights.gguf();
            let name = gguf.path().file_name().unwrap_or_default().to_string_lossy();
            let placement = Placement::find(&weights)?;
            let recorder =
                Recorder::create(path, &name, weights.config(), placement, store.clone());
            let in_trace = |source| OpenModelError::Trace { path: path.clone(), source };
            Some(Arc::new(recorder.map_err(in_trace)?))
        }
    };
    let store = trace.clone().map_or(store, |recorder| recorder);
    let model = Arc::new(Model::with_experts(&*weights, store)?);
    Ok(Opened { model, weights, memory: Arc::new(memory), trace })
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
        prefer_resident: options.prefer_resident,
    };
    let store = Arc::new(Streaming::new(weights.clone(), files, &streaming)?);
    let memory = MemoryControl::new(Some(plan), Some(store.clone()));
    load(weights, store, memory, options)
}
