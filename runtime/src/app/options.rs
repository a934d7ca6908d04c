//! Options of a model, for every program that opens one.

use std::path::PathBuf;

use super::AppError;
use crate::checkpoint::Verify;
use crate::cores::CoreOptions;
use crate::experts::PrefetchMode;
use crate::experts::policies::PolicyKind;
use crate::isa::Tier;
use crate::model::cache::CacheType;
use crate::opening::OpenOptions;
use crate::opening::budget::{MemoryBudget, Workload};
use crate::session::SessionOptions;
use crate::session::draft::DraftMode;

/// How a model is opened.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Memory budget of the whole process; `None` maps the file and leaves memory to the system.
    pub memory: Option<MemoryBudget>,
    /// Context length of a conversation, in tokens; 0 takes the model's.
    pub context: usize,
    /// Number of concurrent conversations that the memory budget is to hold.
    pub sessions: usize,
    /// Number of threads; 0 takes one per core of the fastest cluster.
    pub threads: usize,
    /// Cores to bind the threads to; `None` takes those of the fastest cluster.
    pub cores: Option<Vec<usize>>,
    /// Precision of the caches.
    pub cache: CacheType,
    /// Instruction set.
    pub tier: Tier,
    /// When checksums are verified.
    pub verify: Verify,
    /// Eviction policy of streamed experts.
    pub policy: PolicyKind,
    /// Parallel reads of streamed experts.
    pub lanes: usize,
    /// Whether to prefetch experts of the next layer.
    pub prefetch: PrefetchMode,
    /// Whether to shrink the expert cache while the system is short of memory (Linux, with a
    /// budget).
    pub yield_memory: bool,
    /// File to record routing in ([`crate::trace`]), for one sequence at a time.
    pub trace: Option<PathBuf>,
    /// Lossy: see [`OpenOptions::prefer_resident`].
    pub prefer_resident: Option<f32>,
    /// Lossy: see [`OpenOptions::active_experts`].
    pub active_experts: Option<usize>,
    /// How tokens are drafted, which changes no answer.
    pub drafts: DraftMode,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            memory: None,
            context: 0,
            sessions: 1,
            threads: 0,
            cores: None,
            cache: CacheType::F16,
            tier: Tier::best(),
            verify: Verify::default(),
            policy: PolicyKind::default(),
            lanes: OpenOptions::LANES,
            prefetch: PrefetchMode::default(),
            yield_memory: false,
            trace: None,
            prefer_resident: None,
            active_experts: None,
            drafts: DraftMode::default(),
        }
    }
}

/// Tokens of a prompt that are computed together where no memory is planned. Weights are read once
/// for all of them.
const CHUNK: usize = 256;
/// The same within a budget, at least.
const LEAST_CHUNK: usize = 128;
/// The same within a budget, at most. More are not faster, and nothing is said of a prompt's progress
/// in between.
const LARGEST_CHUNK: usize = 512;

impl ModelOptions {
    /// Reads those options that apps write as texts: a memory budget (`2GiB`), a type of cache (`q8`)
    /// and a way to draft (`lookup:4`). `None` takes the default.
    pub fn read(
        memory: Option<&str>,
        cache: Option<&str>,
        drafts: Option<&str>,
    ) -> Result<Self, AppError> {
        let options = Self::default();
        Ok(Self {
            memory: memory.map(MemoryBudget::parse).transpose()?,
            cache: cache.map_or(Ok(options.cache), CacheType::parse)?,
            drafts: drafts.map_or(Ok(options.drafts), DraftMode::parse)?,
            ..options
        })
    }

    /// The cores to compute on.
    pub fn cores(&self) -> CoreOptions {
        CoreOptions { threads: self.threads, cores: self.cores.clone() }
    }

    /// The options of sessions, where no memory is planned.
    pub fn session(&self) -> SessionOptions {
        let Self { context, cache, tier, .. } = *self;
        SessionOptions { context, prefill_chunk: CHUNK, cache, tier }
    }

    /// The options of the file.
    pub fn file(&self) -> OpenOptions {
        let workload = Workload {
            context: self.context,
            prefill_chunk: LEAST_CHUNK,
            cache: self.cache,
            sessions: self.sessions.max(1),
        };
        OpenOptions {
            memory: self.memory,
            verify: self.verify,
            policy: self.policy,
            lanes: self.lanes,
            prefetch: self.prefetch,
            trace: self.trace.clone(),
            prefer_resident: self.prefer_resident,
            active_experts: self.active_experts,
            drafts: self.drafts,
            largest_chunk: LARGEST_CHUNK,
            ..OpenOptions::new(workload)
        }
    }
}
