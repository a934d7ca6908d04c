//! Opens a model file within a memory budget: mapped if everything fits, otherwise streamed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::budget::{
    BudgetTextError, Footprint, Footprints, MemoryBudget, MemoryPlan, TooSmall, Workload,
};
use super::control::MemoryControl;
use super::memory_info::MemoryInfo;
use crate::bytes::file;
use crate::checkpoint::gguf_weights::OpenError;
use crate::checkpoint::source::Files;
use crate::checkpoint::{GgufWeights, Verify, Weights, WeightsError};
use crate::experts::policies::PolicyKind;
use crate::experts::{ExpertIndex, OpenStoreError, PrefetchMode, Streaming, StreamingOptions};
use crate::gguf::Gguf;
use crate::host::Host;
use crate::model::{ExpertStore, Model, ModelError, Resident};
use crate::session::draft::DraftMode;
use crate::trace::Recorder;

/// Options for opening a model.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenOptions {
    /// Memory budget of the whole process; `None` maps the file and leaves memory to the system.
    pub memory: Option<MemoryBudget>,
    /// Expected workload.
    pub workload: Workload,
    /// When to verify checksums.
    pub verify: Verify,
    /// Eviction policy.
    pub policy: PolicyKind,
    /// Parallel reads.
    pub lanes: usize,
    /// When to prefetch experts of the next layer.
    pub prefetch: PrefetchMode,
    /// Whether to bypass the page cache, if the file system supports it.
    pub direct: bool,
    /// Whether to map the file, if the file system supports it. Otherwise weights are read into
    /// memory of the process.
    pub map: bool,
    /// File to record a routing trace in ([`crate::trace`]); one sequence at a time.
    pub trace: Option<PathBuf>,
    /// Lossy: see [`StreamingOptions::prefer_resident`].
    pub prefer_resident: Option<f32>,
    /// Lossy: number of experts per token, if fewer than the model was trained with.
    pub active_experts: Option<usize>,
    /// How tokens will be drafted: whether the multi-token-prediction layer is loaded.
    pub drafts: DraftMode,
    /// Largest chunk of prompts to plan a budget for. The workload's is doubled as long as that takes
    /// little of the experts' memory, since a prompt reads each expert once per chunk.
    /// [`Footprint::prefill_chunk`] of the plan is the result.
    pub largest_chunk: usize,
}

impl OpenOptions {
    /// Default of [`OpenOptions::lanes`].
    pub const LANES: usize = 3;

    /// Most parallel reads. Storage is at its best with a few.
    pub const MOST_LANES: usize = 64;

    /// Defaults for a workload, without a budget.
    pub fn new(workload: Workload) -> Self {
        Self {
            memory: None,
            workload,
            verify: Verify::default(),
            policy: PolicyKind::default(),
            lanes: Self::LANES,
            prefetch: PrefetchMode::default(),
            direct: true,
            map: true,
            trace: None,
            prefer_resident: None,
            active_experts: None,
            drafts: DraftMode::Off,
            largest_chunk: workload.prefill_chunk,
        }
    }

    /// Description of the options that change the model's answers, to print beside figures; `None`
    /// if no such option is set.
    pub fn lossy(&self) -> Option<String> {
        let prefer = self.prefer_resident.map(|margin| {
            format!("experts in memory preferred within {:.0}%", f64::from(margin) * 100.0)
        });
        let active = self.active_experts.map(|active| format!("{active} experts per token"));
        let changes: Vec<String> = prefer.into_iter().chain(active).collect();
        (!changes.is_empty()).then(|| format!("lossy: {}", changes.join(", ")))
    }

    fn check(&self) -> Result<(), OpenModelError> {
        if !(1..=Self::MOST_LANES).contains(&self.lanes) {
            return Err(OpenModelError::Lanes { found: self.lanes });
        }
        match self.prefer_resident {
            Some(found) if !(0.0..=1.0).contains(&found) => Err(OpenModelError::Margin { found }),
            _ => Ok(()),
        }
    }
}

/// Error of opening a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenModelError {
    /// The file is not a model that can run.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The memory budget cannot be parsed or resolved.
    #[error(transparent)]
    Text(#[from] BudgetTextError),
    /// The memory budget is too small.
    #[error("{path}: {source}")]
    TooSmall {
        /// The file.
        path: PathBuf,
        /// The budget and the memory that is needed.
        source: TooSmall,
    },
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The margin of `prefer_resident` is not between 0 and 1.
    #[error("the margin for resident experts is {found}; allowed: 0 to 1")]
    Margin {
        /// The value found.
        found: f32,
    },
    /// The number of parallel reads is out of range.
    #[error("{found} parallel reads are not possible; allowed: 1 to {}", OpenOptions::MOST_LANES)]
    Lanes {
        /// The value found.
        found: usize,
    },
    /// The number of active experts is out of range.
    #[error("{found} experts per token are not possible; this model has 1 to {allowed}")]
    ActiveExperts {
        /// The value found.
        found: usize,
        /// Experts per token of the trained model.
        allowed: usize,
    },
    /// The trace file cannot be written.
    #[error("{path}: {}", file::reason(.source))]
    Trace {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// The expert store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
}

impl From<WeightsError> for OpenModelError {
    fn from(error: WeightsError) -> Self {
        Self::Model(error.into())
    }
}

/// An open model with the control over its memory.
pub struct Opened {
    /// The model.
    pub model: Arc<Model>,
    /// The model's file; unmapped if experts are streamed.
    pub weights: Arc<GgufWeights>,
    /// Control over the memory.
    pub memory: Arc<MemoryControl>,
    /// The trace recorder, if a trace was requested. The caller must finish it at the end.
    pub trace: Option<Arc<Recorder>>,
}

/// Opens a file.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Opened, OpenModelError> {
    let process = MemoryInfo::read(&Host::live()).map_or(0, |machine| machine.process);
    open_gguf(Gguf::open_with(path, options.map).map_err(OpenError::from)?, options, process)
}

/// Opens a file whose header was read. `process` is the memory that the process occupied before
/// that, in bytes.
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
    let Some(memory) = options.memory else { return open_mapped(weights, None, options) };
    let (budget, footprints) = (memory.resolve()?, footprints(&weights, options, process)?);
    let plan = footprints.plan(budget).map_err(|source| {
        let path = weights.gguf().path().to_path_buf();
        OpenModelError::TooSmall { path, source }
    })?;
    match plan.experts {
        Some(experts) => {
            let memory = |store| MemoryControl::streamed(plan, footprints, store);
            open_streamed(weights, experts, memory, options)
        }
        None => open_mapped(weights, Some(plan), options),
    }
}

/// The footprint of the model with each size of prompt chunks that a plan may have.
fn footprints(
    weights: &GgufWeights,
    options: &OpenOptions,
    process: u64,
) -> Result<Footprints, OpenModelError> {
    let index = ExpertIndex::find(weights)?;
    let has_mtp = weights.config().num_nextn_predict_layers > 0;
    let with_chunk = |prefill_chunk| {
        let workload = Workload { prefill_chunk, ..options.workload };
        let mut footprint = Footprint::of(weights, &index, &workload, process)?;
        if options.drafts.uses_mtp() && has_mtp {
            footprint.add_mtp(weights, &index, &workload);
        }
        Ok(footprint)
    };
    let least = with_chunk(options.workload.prefill_chunk)?;
    Footprints::new(least, |chunk| {
        // Nothing is longer than the context.
        let fits = chunk <= options.largest_chunk && chunk / 2 < least.context;
        fits.then(|| with_chunk(chunk)).transpose()
    })
}

fn open_mapped(
    weights: GgufWeights,
    plan: Option<MemoryPlan>,
    options: &OpenOptions,
) -> Result<Opened, OpenModelError> {
    // Otherwise an answer would meet the expert that is not there.
    ExpertIndex::find(&weights)?;
    let weights = Arc::new(weights);
    let store = Arc::new(Resident::of_file(weights.clone())?);
    load(weights, store, MemoryControl::mapped(plan), options)
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
            let index = ExpertIndex::find(&weights)?;
            let recorder = Recorder::create(path, &name, weights.config(), index, store.clone());
            let in_trace = |source| OpenModelError::Trace { path: path.clone(), source };
            Some(Arc::new(recorder.map_err(in_trace)?))
        }
    };
    let store = trace.clone().map_or(store, |recorder| recorder);
    let mut model = Model::with_experts(&*weights, store)?;
    if options.drafts.uses_mtp() {
        model.load_mtp(&*weights)?;
    }
    if let Some(passes) = memory.passes() {
        model.limit_passes(passes.clone());
    }
    let model = Arc::new(model);
    #[cfg(feature = "tracing")]
    tracing::info!(
        path = %weights.gguf().path().display(),
        budget_bytes = memory.plan().map(|plan| plan.budget),
        expert_bytes = memory.plan().and_then(|plan| plan.experts),
        streamed = memory.store().is_some(),
        "model opened"
    );
    Ok(Opened { model, weights, memory: Arc::new(memory), trace })
}

fn open_streamed(
    mut weights: GgufWeights,
    experts: u64,
    memory: impl FnOnce(Arc<Streaming>) -> MemoryControl,
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
        prefetch: options.prefetch,
        prefer_resident: options.prefer_resident,
    };
    let store = Arc::new(Streaming::new(weights.clone(), files, &streaming)?);
    load(weights, store.clone(), memory(store), options)
}
