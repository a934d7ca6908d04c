//! What a machine is and does, as far as it matters to running models: `vaquita doctor`.
//!
//! [`Report::of`] looks at processor, memory and meters, [`storage::probe`] and [`memory_rate`] measure, [`advice`] says
//! what that means for a model.

pub mod advice;
pub mod storage;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::checkpoint::gguf_weights::OpenError;
use crate::checkpoint::{GgufWeights, Verify};
use crate::cores::{self, Cluster};
use crate::experts::Placement;
use crate::gguf::Gguf;
use crate::host::Host;
use crate::isa::Tier;
use crate::measure::cost::Source;
use crate::measure::meter::Meters;
use crate::measure::thermal;
use crate::opening::OpenModelError;
use crate::opening::budget::{Footprint, Workload};
use crate::opening::machine::Machine;
use crate::threads::Pool;

/// What can be told without measuring. `None` is what the system does not say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The board, as its maker calls it.
    pub board: Option<String>,
    /// The processor, as it calls itself.
    pub processor: Option<String>,
    /// What it was compiled for.
    pub architecture: &'static str,
    /// Instruction sets that kernels can use here, the best last.
    pub tiers: Vec<&'static str>,
    /// Its cores, the fastest cluster first.
    pub clusters: Vec<Cluster>,
    /// The cores to decode on.
    pub decode_cores: Vec<usize>,
    /// Bytes of memory that are built in.
    pub memory_bytes: Option<u64>,
    /// Bytes that this process may use, where a cgroup limits it.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes that are available without swapping, under all limits.
    pub memory_available_bytes: Option<u64>,
    /// Energy meters that can be read, the preferred one first.
    pub meters: Vec<Source>,
    /// Why others cannot.
    pub meter_problems: Vec<String>,
    /// The hottest sensor, in degrees Celsius.
    pub temperature_c: Option<f64>,
}

impl Report {
    /// Of a machine.
    pub fn of(host: &Arc<Host>) -> Self {
        let clusters = cores::clusters(host);
        let all = || clusters.iter().flat_map(|cluster| cluster.cores.clone()).collect();
        let allowed = host.is_live().then(cores::allowed).flatten().unwrap_or_else(all);
        let machine = Machine::read(host);
        let memory_bytes = host.read("proc/meminfo").ok().and_then(|text| total_memory(&text));
        let limit = machine.map(|machine| machine.total);
        let meters = Meters::find(host);
        Self {
            board: board(host),
            processor: processor(host),
            architecture: std::env::consts::ARCH,
            tiers: Tier::available().into_iter().map(Tier::name).collect(),
            decode_cores: cores::fastest(&clusters, &allowed),
            clusters,
            memory_bytes,
            memory_limit_bytes: limit.filter(|limit| memory_bytes.is_some_and(|all| *limit < all)),
            memory_available_bytes: machine.map(|machine| machine.available),
            meters: meters.found.iter().map(|meter| Source::of(&**meter)).collect(),
            meter_problems: meters.refused.iter().map(ToString::to_string).collect(),
            temperature_c: thermal::temperature(host),
        }
    }
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Text of a system file, for people.
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

/// Bytes per second that a pool's threads read from memory together, in about `time`.
pub fn memory_rate(pool: &Pool, time: Duration) -> f64 {
    // Larger than any cache, for each thread.
    let words = vec![1u64; (64 << 20) / 8];
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

/// A model's file, as advice needs it.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// Its `general.name`, or its file's.
    pub name: String,
    /// Bytes of all its parts.
    pub file_bytes: u64,
    /// What it takes.
    pub model: advice::Model,
}

/// Reads a model's header. A `context` of 0 in `workload` is what the model can do.
pub fn model_file(path: &Path, workload: &Workload) -> Result<ModelFile, OpenModelError> {
    let gguf = Gguf::open(path).map_err(OpenError::from)?;
    let named = gguf.metadata().str("general.name").ok().flatten().and_then(printable);
    let file = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (name, file_bytes) = (named.unwrap_or_else(file), gguf.file_bytes());
    let weights = GgufWeights::new(gguf, Verify::Never)?;
    let placement = Placement::find(&weights)?;
    let footprint = Footprint::of(&weights, &placement, workload, 0)?;
    let embedding = weights.gguf().tensor("token_embd.weight").map_or(0, |tensor| tensor.len);
    // Without an output matrix of its own, the embedding is multiplied with, too.
    let tied = weights.gguf().tensor("output.weight").is_none();
    let idle = if tied { 0 } else { embedding };
    let token = footprint.dense.saturating_sub(idle).saturating_add(footprint.cycle);
    Ok(ModelFile { name, file_bytes, model: advice::Model { footprint, token } })
}
