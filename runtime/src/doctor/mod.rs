//! Examines a machine for running models: `vaquita doctor`.
//!
//! [`Report::of`] inspects processor, memory and meters, [`storage::probe`] and [`memory_rate`]
//! measure, and [`advice`] draws the conclusions for a model.

pub mod advice;
pub mod storage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::checkpoint::GgufWeights;
use crate::cores::{self, Cluster, CoreOptions};
use crate::experts::ExpertIndex;
use crate::host::Host;
use crate::isa::Tier;
use crate::measure::cost::MeterInfo;
use crate::measure::meter::Meters;
use crate::measure::thermal;
use crate::opening::OpenModelError;
use crate::opening::budget::{Footprint, Workload};
use crate::opening::memory_info::MemoryInfo;
use crate::threads::Pool;

/// Facts that need no measurement. `None` where the system does not report them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the board.
    pub board: Option<String>,
    /// Name of the processor.
    pub processor: Option<String>,
    /// Target architecture of this build.
    pub architecture: &'static str,
    /// Usable instruction sets, the best last.
    pub tiers: Vec<&'static str>,
    /// Clusters of cores, fastest first.
    pub clusters: Vec<Cluster>,
    /// The cores to decode on.
    pub decode_cores: Vec<usize>,
    /// Installed memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory limit of this process's cgroup, in bytes, if there is one.
    pub memory_limit_bytes: Option<u64>,
    /// Memory available without swapping, under all limits, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Readable energy meters, the preferred one first.
    pub meters: Vec<MeterInfo>,
    /// Why other meters cannot be read.
    pub meter_problems: Vec<String>,
    /// Temperature of the hottest sensor, in degrees Celsius.
    pub temperature_c: Option<f64>,
}

impl Report {
    /// Inspects a host.
    pub fn of(host: &Arc<Host>) -> Self {
        let clusters = cores::clusters(host);
        let all = || clusters.iter().flat_map(|cluster| cluster.cores.clone()).collect();
        let allowed = host.is_live().then(cores::allowed).flatten().unwrap_or_else(all);
        let decode = CoreOptions::default().assign(host, Some(&allowed));
        let machine = MemoryInfo::read(host);
        let memory_bytes = host.read("proc/meminfo").ok().and_then(|text| total_memory(&text));
        let limit = machine.map(|machine| machine.total);
        let meters = Meters::find(host);
        Self {
            board: board(host),
            processor: processor(host),
            architecture: std::env::consts::ARCH,
            tiers: Tier::available().into_iter().map(Tier::name).collect(),
            decode_cores: decode.cores.unwrap_or(allowed),
            clusters,
            memory_bytes,
            memory_limit_bytes: limit.filter(|limit| memory_bytes.is_some_and(|all| *limit < all)),
            memory_available_bytes: machine.map(|machine| machine.available),
            meters: meters.found.iter().map(|meter| MeterInfo::of(&**meter)).collect(),
            meter_problems: meters.refused.iter().map(ToString::to_string).collect(),
            temperature_c: thermal::temperature(host),
        }
    }
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Text of a system file, made printable.
fn printable(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    Some(text.trim().to_string()).filter(|text| !text.is_empty())
}

fn board(host: &Host) -> Option<String> {
    let names = ["proc/device-tree/model", "sys/class/dmi/id/product_name"];
    names.iter().find_map(|name| printable(&host.read(name).ok()?))
}

fn processor(host: &Host) -> Option<String> {
    let info = host.read("proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    printable(line.split_once(':')?.1)
}

/// Memory that is read to measure its rate, in bytes: more than caches hold.
const RATE_BYTES: u64 = 64 << 20;

/// Rate at which the threads of a pool read memory together, in bytes per second, measured for
/// about `time`. Takes at most a quarter of the memory that is `available`; where that is little, the
/// rate may be that of caches.
pub fn memory_rate(pool: &Pool, time: Duration, available: Option<u64>) -> f64 {
    let bytes = available.map_or(RATE_BYTES, |bytes| (bytes / 4).clamp(1 << 20, RATE_BYTES));
    let words = vec![1u64; bytes as usize / 8];
    let part = words.len().div_ceil(pool.threads() * 16);
    let (total, mut passes) = (AtomicU64::new(0), 0u32);
    let since = Instant::now();
    while passes == 0 || since.elapsed() < time {
        pool.run(words.len().div_ceil(part), &|i| {
            let part = &words[i * part..words.len().min((i + 1) * part)];
            let sum = part.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
            total.fetch_add(sum, Ordering::Relaxed);
        });
        passes += 1;
    }
    std::hint::black_box(total.into_inner());
    f64::from(passes) * (words.len() * 8) as f64 / since.elapsed().as_secs_f64()
}

/// A model file, as [`advice`] needs it.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// `general.name`, or the file name.
    pub name: String,
    /// Bytes of all parts.
    pub file_bytes: u64,
    /// Memory and bandwidth that it demands.
    pub model: advice::ModelDemand,
}

/// Computes the memory and bandwidth that a model demands. A `context` of 0 in `workload` means the model's maximum.
pub fn model_file(weights: &GgufWeights, workload: &Workload) -> Result<ModelFile, OpenModelError> {
    let gguf = weights.gguf();
    let named = gguf.metadata().str("general.name").ok().flatten().and_then(printable);
    let file = || gguf.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (name, file_bytes) = (named.unwrap_or_else(file), gguf.file_bytes());
    let index = ExpertIndex::find(weights)?;
    let footprint = Footprint::of(weights, &index, workload, 0)?;
    let embedding = gguf.tensor("token_embd.weight").map_or(0, |tensor| tensor.len);
    // Without an output matrix, the embedding serves as the output head and is read whole.
    let tied = gguf.tensor("output.weight").is_none();
    let idle = if tied { 0 } else { embedding };
    let token = footprint.dense.saturating_sub(idle).saturating_add(footprint.cycle);
    Ok(ModelFile { name, file_bytes, model: advice::ModelDemand { footprint, token } })
}
