//! Options of the engine, in groups: a command takes the groups that change what it does.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use vaquita_runtime::app::ModelOptions;
use vaquita_runtime::checkpoint::Verify;
use vaquita_runtime::cores::{self, CoreOptions, CoresRefused};
use vaquita_runtime::experts::PrefetchMode;
use vaquita_runtime::experts::policies::PolicyKind;
use vaquita_runtime::isa::Tier;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::opening::OpenOptions;
use vaquita_runtime::opening::budget::MemoryBudget;
use vaquita_runtime::session::draft::DraftMode;
use vaquita_runtime::threads::Pool;

use crate::failure::{Failure, Result};

/// Bytes below which a budget without a unit is taken for a slip: `--memory 4` means 4 GiB.
const LEAST_WITHOUT_UNIT: u64 = 1 << 20;

/// All groups, for commands that run a model.
#[derive(Args, Clone, Debug, Default)]
pub struct Compute {
    #[command(flatten)]
    processor: Processor,
    #[command(flatten)]
    context: Context,
    #[command(flatten)]
    experts: Experts,
    #[command(flatten)]
    drafts: Drafts,
    #[command(flatten)]
    lossy: Lossy,
}

/// Threads and instruction set, for commands that compute.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Processor")]
pub struct Processor {
    /// Number of threads [default: one per core of the fastest cluster]
    #[arg(short = 't', long, global = true, value_name = "N", value_parser = threads)]
    threads: Option<NonZero<usize>>,
    /// Cores to run on, as a list (4-7) or a mask (0xf0) [default: the fastest cluster]
    #[arg(long, global = true, value_name = "CORES", value_parser = cpu_mask)]
    cpu_mask: Option<CpuMask>,
    /// Instruction set to use [default: the best that this processor has]
    #[arg(long, global = true, value_name = "NAME", env = "VAQUITA_ISA")]
    isa: Option<String>,
}

/// Length and precision of the context.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Context")]
pub struct Context {
    /// Context size: prompt and answer together, in tokens [default: the model's]
    #[arg(short = 'c', long, alias = "ctx-size", global = true, value_name = "N")]
    context: Option<NonZero<usize>>,
    /// KV-cache element type: f32, f16, or q8, which takes about half the memory of f16 at a small
    /// loss of precision [default: f16 for files, f32 for folders]
    #[arg(long, global = true, value_name = "TYPE", value_parser = cache_type)]
    cache: Option<CacheType>,
}

/// Memory of the experts, and how they are read from storage.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Memory and storage")]
struct Experts {
    /// Memory budget of the whole process: 2GiB, 60%, or auto (90% of available memory). Experts
    /// that do not fit are read from the file on demand [default: no limit, the file is mapped]
    #[arg(long, global = true, value_name = "SIZE", value_parser = memory)]
    memory: Option<MemoryBudget>,
    /// Memory budget for model files where --memory is not given: a board's default
    #[arg(long, global = true, env = "VAQUITA_MEMORY", hide = true, value_parser = memory)]
    default_memory: Option<MemoryBudget>,
    /// Eviction policy for experts: reuse, lru, lfu
    #[arg(long, global = true, value_name = "POLICY", default_value = "reuse", value_parser = policy)]
    policy: PolicyKind,
    /// Parallel reads from storage
    #[arg(long, global = true, value_name = "N", default_value = "3", env = "VAQUITA_LANES", value_parser = lanes)]
    lanes: NonZero<usize>,
    /// Prefetch the experts that the next layer probably needs: auto (only while it pays), on, off
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", value_parser = prefetch)]
    prefetch: PrefetchMode,
    /// When to verify the checksums of the file
    #[arg(long, global = true, value_name = "WHEN", default_value = "first")]
    verify: VerifyWhen,
    /// Write a routing trace to this file, for `vaquita replay`
    #[arg(long, global = true, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// With --memory: shrink the expert cache while the system is short of memory (Linux with
    /// pressure stall information)
    #[arg(long, global = true, requires = "memory")]
    yield_memory: bool,
}

impl Default for Experts {
    fn default() -> Self {
        Self {
            memory: None,
            default_memory: None,
            policy: PolicyKind::default(),
            lanes: NonZero::new(OpenOptions::LANES).unwrap_or(NonZero::<usize>::MIN),
            prefetch: PrefetchMode::default(),
            verify: VerifyWhen::First,
            trace: None,
            yield_memory: false,
        }
    }
}

/// Options that guess tokens.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Drafts")]
struct Drafts {
    /// Draft tokens and check them together; answers stay the same: off, auto, mtp:DEPTH (the file's
    /// multi-token-prediction layer) or lookup:DEPTH (earlier text)
    #[arg(long, global = true, value_name = "MODE", default_value = "off", value_parser = draft)]
    draft: DraftMode,
}

/// Options that change the answers.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Lossy modes")]
struct Lossy {
    /// Replace a selected expert by a resident one whose router score is lower by at most this
    /// fraction, for example 0.1
    #[arg(long, global = true, value_name = "SHARE")]
    route_prefer_resident: Option<f32>,
    /// Route each token to K experts instead of the model's own number
    #[arg(long, global = true, value_name = "K")]
    active_experts: Option<NonZero<usize>>,
}

/// Processor and context, for commands that plan how a model would run.
#[derive(Args, Clone, Debug, Default)]
pub struct Outlook {
    #[command(flatten)]
    processor: Processor,
    #[command(flatten)]
    context: Context,
}

impl From<Processor> for Compute {
    fn from(processor: Processor) -> Self {
        Self { processor, ..Self::default() }
    }
}

impl From<Outlook> for Compute {
    fn from(Outlook { processor, context }: Outlook) -> Self {
        Self { processor, context, ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VerifyWhen {
    /// Never
    Never,
    /// The header when the file is opened, an expert when it is read for the first time
    First,
    /// An expert also each time it is used
    Always,
}

/// Core numbers.
#[derive(Clone, Debug)]
struct CpuMask(Vec<usize>);

fn cpu_mask(text: &str) -> std::result::Result<CpuMask, String> {
    cores::parse_mask(text).map(CpuMask).ok_or_else(|| "write it like 4-7, 0,2 or 0xf0".into())
}

/// A number from 1 to the most that the machine has a use for.
fn threads(text: &str) -> std::result::Result<NonZero<usize>, String> {
    let threads: NonZero<usize> = text.parse().map_err(|_| "a number from 1 on".to_string())?;
    let (found, most) = (threads.get(), cores::most_threads());
    match found <= most {
        true => Ok(threads),
        false => Err(CoresRefused::Threads { found, most }.to_string()),
    }
}

fn lanes(text: &str) -> std::result::Result<NonZero<usize>, String> {
    let most = OpenOptions::MOST_LANES;
    let found: Option<NonZero<usize>> = text.parse().ok();
    found.filter(|lanes| lanes.get() <= most).ok_or_else(|| format!("allowed: 1 to {most}"))
}

fn memory(text: &str) -> std::result::Result<MemoryBudget, String> {
    let budget = MemoryBudget::parse(text).map_err(|error| error.to_string())?;
    match budget {
        MemoryBudget::Bytes(bytes) if bytes < LEAST_WITHOUT_UNIT && ends_in_digit(text) => {
            Err(format!("{text} is {bytes} bytes; give it a unit: {text}GiB or {text}MiB"))
        }
        budget => Ok(budget),
    }
}

fn ends_in_digit(text: &str) -> bool {
    text.ends_with(|c: char| c.is_ascii_digit())
}

fn cache_type(name: &str) -> std::result::Result<CacheType, String> {
    CacheType::parse(name).map_err(|error| error.to_string())
}

fn policy(name: &str) -> std::result::Result<PolicyKind, String> {
    let names = || PolicyKind::ALL.map(PolicyKind::name).join(", ");
    PolicyKind::from_name(name).ok_or_else(|| format!("allowed: {}", names()))
}

fn draft(text: &str) -> std::result::Result<DraftMode, String> {
    DraftMode::parse(text).map_err(|error| error.to_string())
}

fn prefetch(name: &str) -> std::result::Result<PrefetchMode, String> {
    PrefetchMode::from_name(name).ok_or_else(|| "allowed: auto, on, off".into())
}

/// Binds this thread to a pool's cores for the rest of the command.
pub fn stay_with(pool: &Pool) {
    if let Some(binding) = pool.bind_caller() {
        binding.for_good();
    }
}

impl Compute {
    /// Options for opening a model for `sessions` concurrent sequences.
    pub fn model(&self, default_cache: CacheType, sessions: usize) -> Result<ModelOptions> {
        let cores = self.cores();
        let Experts { policy, lanes, prefetch, yield_memory, .. } = self.experts;
        Ok(ModelOptions {
            memory: self.experts.memory.or(self.experts.default_memory),
            context: self.context.context.map_or(0, NonZero::get),
            sessions,
            threads: cores.threads,
            cores: cores.cores,
            cache: self.context.cache.unwrap_or(default_cache),
            tier: self.tier()?,
            verify: self.verify(),
            policy,
            lanes: lanes.get(),
            prefetch,
            yield_memory,
            trace: self.experts.trace.clone(),
            prefer_resident: self.lossy.route_prefer_resident,
            active_experts: self.lossy.active_experts.map(NonZero::get),
            drafts: self.drafts.draft,
        })
    }

    /// The same options for a reference model: without lossy options, and not within the memory
    /// budget, which is that of the model under test.
    pub fn for_reference(&self) -> Self {
        let (memory, default_memory, trace) = (None, None, None);
        let experts = self.experts.clone();
        Self {
            processor: self.processor.clone(),
            context: Context { cache: None, ..self.context },
            experts: Experts { memory, default_memory, trace, yield_memory: false, ..experts },
            drafts: Drafts::default(),
            lossy: Lossy::default(),
        }
    }

    /// Whether the router prefers resident experts.
    pub fn prefers_resident(&self) -> bool {
        self.lossy.route_prefer_resident.is_some()
    }

    /// Whether routing is traced.
    pub fn has_trace(&self) -> bool {
        self.experts.trace.is_some()
    }

    /// The first given option that applies to model files only.
    pub fn file_option(&self) -> Option<&'static str> {
        let given = [
            ("--memory", self.experts.memory.is_some()),
            ("--trace", self.experts.trace.is_some()),
            ("--route-prefer-resident", self.lossy.route_prefer_resident.is_some()),
            ("--active-experts", self.lossy.active_experts.is_some()),
        ];
        given.into_iter().find_map(|(name, given)| given.then_some(name))
    }

    fn cores(&self) -> CoreOptions {
        let cores = self.processor.cpu_mask.clone().map(|CpuMask(cores)| cores);
        CoreOptions { threads: self.processor.threads.map_or(0, NonZero::get), cores }
    }

    /// Number of decoding threads.
    pub fn threads(&self) -> usize {
        self.cores().assign_here().threads
    }

    /// Number of threads for work without barriers, where slow cores help.
    pub fn all_threads(&self) -> usize {
        match &self.processor.cpu_mask {
            None => self.processor.threads.map_or_else(Pool::default_threads, NonZero::get),
            Some(_) => self.threads(),
        }
    }

    /// The pool of decoding threads; this thread is bound to their cores.
    pub fn pool(&self) -> Result<Arc<Pool>> {
        let pool = Pool::open(&self.cores())?;
        stay_with(&pool);
        Ok(Arc::new(pool))
    }

    /// Makes rayon use all threads.
    pub fn install(&self) -> Result {
        if self.processor.cpu_mask.is_some() {
            drop(self.pool()?); // binds this thread, whose mask rayon's inherit
        }
        // Fails only if the pool exists already, in which case it has this size.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(self.all_threads()).build_global();
        Ok(())
    }

    /// The instruction set.
    pub fn tier(&self) -> Result<Tier> {
        let Some(name) = &self.processor.isa else { return Ok(Tier::best()) };
        let known = || {
            let names: Vec<&str> = Tier::available().iter().map(|tier| tier.name()).collect();
            Failure::Usage(format!("--isa is {name}; this machine has: {}", names.join(", ")))
        };
        Tier::from_name(name).ok_or_else(known)
    }

    /// When to verify checksums.
    pub fn verify(&self) -> Verify {
        match self.experts.verify {
            VerifyWhen::Never => Verify::Never,
            VerifyWhen::First => Verify::First,
            VerifyWhen::Always => Verify::Always,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        compute: Compute,
    }

    #[test]
    fn without_options_cores_are_chosen_as_in_apps() {
        let Line { compute } = Line::parse_from(["vaquita"]);
        let app = ModelOptions::default().cores();
        assert_eq!(compute.cores(), app);
        assert_eq!(compute.model(CacheType::F16, 1).unwrap().cores(), app);
        let Line { compute } = Line::parse_from(["vaquita", "--cpu-mask", "4-6", "--threads", "2"]);
        let given = CoreOptions { threads: 2, cores: Some(vec![4, 5, 6]) };
        assert_eq!(compute.model(CacheType::F16, 1).unwrap().cores(), given);
    }
}
