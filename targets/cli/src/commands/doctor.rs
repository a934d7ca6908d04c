//! `vaquita doctor`: examines this machine and recommends how to run a model on it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use vaquita_quantize::container::Inventory;
use vaquita_runtime::checkpoint::{GgufWeights, Verify, Weights};
use vaquita_runtime::doctor::advice::{Advice, Rates, advise};
use vaquita_runtime::doctor::storage::{Storage, probe};
use vaquita_runtime::doctor::{ModelFile, Report, memory_rate, model_file};
use vaquita_runtime::gguf::Gguf;
use vaquita_runtime::host::Host;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::opening::budget::Workload;
use vaquita_runtime::opening::memory_info::MemoryInfo;

use crate::compute::Compute;
use crate::energy::host;
use crate::failure::{Failure, Result};
use crate::{size, slips};

/// Duration of the memory measurement.
const MEMORY_TIME: Duration = Duration::from_millis(500);
/// Default context for the advice: room for a long answer.
const CONTEXT: usize = 4096;

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub struct Args {
    /// GGUF file to give advice on
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    /// The same as MODEL
    #[arg(short = 'm', long = "model", value_name = "MODEL", conflicts_with = "model")]
    model_option: Option<PathBuf>,
    /// Folder whose storage is measured, with a temporary file [default: the model's folder, or the
    /// current one]
    #[arg(long, value_name = "FOLDER")]
    storage: Option<PathBuf>,
    /// Do not measure storage, which writes a temporary file
    #[arg(long, conflicts_with = "storage")]
    no_storage: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// Recording of a machine to examine, for tests
    #[arg(long, value_name = "FILE", env = "VAQUITA_RECORDING", hide = true)]
    recording: Option<PathBuf>,
}

#[derive(Serialize)]
struct Findings {
    #[serde(flatten)]
    report: Report,
    threads: usize,
    memory_bytes_per_second: f64,
    storage: Option<Storage>,
    storage_problem: Option<String>,
    model: Option<ModelFindings>,
}

#[derive(Serialize)]
struct ModelFindings {
    name: String,
    file_bytes: u64,
    bits_per_weight: f64,
    context: usize,
    #[serde(flatten)]
    advice: Advice,
}

/// Runs the command.
pub fn run(compute: &Compute, mut args: Args) -> Result {
    args.model = args.model.or(args.model_option.take());
    if let Some(model) = args.model.as_ref().filter(|model| model.is_dir()) {
        let message = format!("{} is a folder: quantize it first", model.display());
        return Err(Failure::Usage(message));
    }
    if let Some(model) = &args.model {
        slips::check_model(model)?;
    }
    let host = host(args.recording.as_ref())?;
    let report = Report::of(&host);
    let (storage, storage_problem) = match storage(&args) {
        None => (None, None),
        Some((folder, Ok(storage))) => (Some(Storage { folder, ..storage }), None),
        Some((folder, Err(error))) => (None, Some(format!("{}: {error}", folder.display()))),
    };
    let pool = compute.pool()?;
    let memory = memory_rate(&pool, MEMORY_TIME, report.memory_available_bytes);
    let rates = Rates { memory, storage: storage.as_ref().and_then(Storage::best_rate) };
    let model = args.model.as_ref().map(|path| model(compute, path, &host, rates)).transpose()?;
    let threads = pool.threads();
    let memory_bytes_per_second = memory;
    let findings =
        Findings { report, threads, memory_bytes_per_second, storage, storage_problem, model };
    match args.json {
        true => writeln!(io::stdout(), "{}", serde_json::to_string(&findings)?)?,
        false => write!(io::stdout(), "{}", text(&findings))?,
    }
    Ok(())
}

fn storage(args: &Args) -> Option<(PathBuf, std::io::Result<Storage>)> {
    if args.no_storage {
        return None;
    }
    let beside = args.model.as_ref().and_then(|model| model.parent()).map(PathBuf::from);
    let folder = args.storage.clone().or(beside).filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| ".".into());
    let found = probe(&folder);
    Some((folder, found))
}

fn model(
    compute: &Compute,
    path: &std::path::Path,
    host: &Host,
    rates: Rates,
) -> Result<ModelFindings> {
    let least = compute.model(CacheType::F16, 1)?.file().workload;
    let workload = |context| Workload { context, ..least };
    let weights = GgufWeights::new(Gguf::open(path)?, Verify::Never)?;
    let parameters = Inventory::new(&weights)?.parameters;
    let most = weights.config().max_position_embeddings;
    let context = if least.context == 0 { CONTEXT.min(most) } else { least.context };
    let ModelFile { name, file_bytes, model } = model_file(&weights, &workload(context))?;
    let unknown = || Failure::Error("this system does not say how much memory it has".into());
    let machine = MemoryInfo::read(host).ok_or_else(unknown)?;
    let bits_per_weight = file_bytes as f64 * 8.0 / parameters.max(1) as f64;
    Ok(ModelFindings {
        name,
        file_bytes,
        bits_per_weight,
        context,
        advice: advise(&model, machine, rates),
    })
}

fn rate(bytes_per_second: f64) -> String {
    format!("{:.2} GB/s", bytes_per_second / 1e9)
}

fn list(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn text(found: &Findings) -> String {
    let report = &found.report;
    let unknown = || "unknown".to_string();
    let mut lines = vec![
        ("board", report.board.clone().unwrap_or_else(unknown)),
        (
            "processor",
            format!(
                "{}, {}",
                report.processor.clone().unwrap_or_else(unknown),
                report.architecture
            ),
        ),
        ("instruction sets", report.tiers.join(", ")),
    ];
    for cluster in &report.clusters {
        let speed =
            cluster.max_khz.map_or_else(unknown, |khz| format!("{:.2} GHz", khz as f64 / 1e6));
        let capacity =
            cluster.capacity.map(|capacity| format!(", capacity {capacity}")).unwrap_or_default();
        lines.push(("cores", format!("{} at {speed}{capacity}", list(&cluster.cores))));
    }
    lines.push((
        "decoding on",
        format!("{} threads, cores {}", found.threads, list(&report.decode_cores)),
    ));
    let bytes = |bytes: Option<u64>| bytes.map_or_else(unknown, size::show);
    let limit =
        report.memory_limit_bytes.map(|limit| format!(", limited to {}", size::show(limit)));
    lines.push((
        "memory",
        format!(
            "{}{}, {} available, read at {}",
            bytes(report.memory_bytes),
            limit.unwrap_or_default(),
            bytes(report.memory_available_bytes),
            rate(found.memory_bytes_per_second),
        ),
    ));
    if let Some(storage) = &found.storage {
        let rates = storage
            .rates
            .iter()
            .map(|one| format!("{} with {}", rate(one.bytes_per_second), one.lanes));
        let how =
            if storage.direct { "" } else { " (through the page cache: may be that of memory)" };
        let rates = rates.collect::<Vec<_>>().join(", ");
        lines.push(("storage", format!("{}: {rates} lanes{how}", storage.folder.display())));
    }
    lines.extend(
        found.storage_problem.iter().map(|problem| ("storage", format!("unmeasured: {problem}"))),
    );
    for meter in &report.meters {
        lines.push(("energy meter", format!("{}, {}", meter.meter, meter.scope)));
    }
    lines.extend(report.meter_problems.iter().map(|problem| ("energy meter", problem.clone())));
    if report.meters.is_empty() && report.meter_problems.is_empty() {
        lines.push(("energy meter", "none found; see --meter-command of bench".into()));
    }
    if let Some(celsius) = report.temperature_c {
        lines.push(("temperature", format!("{celsius:.1} °C")));
    }
    if let Some(model) = &found.model {
        lines.push((
            "model",
            advice(model, found.storage.as_ref().map(|storage| storage.best_lanes)),
        ));
    }
    lines.iter().map(|(name, value)| format!("{name:<17} {value}\n")).collect()
}

/// `DeepSeek-V2-Lite at 3.0 bits per weight: 5.50 GiB, --memory 3.00 GiB, about 4.1 tokens/s`.
fn advice(model: &ModelFindings, lanes: Option<usize>) -> String {
    let ModelFindings { name, file_bytes, bits_per_weight, context, .. } = model;
    let head =
        format!("{name} at {bits_per_weight:.1} bits per weight: {}", size::show(*file_bytes));
    match model.advice {
        Advice::Mapped { tokens_per_second } => {
            format!(
                "{head}, all of it fits, no --memory; about {tokens_per_second:.1} tokens/s at most"
            )
        }
        Advice::Streamed { budget_bytes, experts_share, tokens_per_second, storage_bound } => {
            let lanes = lanes.map(|lanes| format!(" --lanes {lanes}")).unwrap_or_default();
            let speed = tokens_per_second
                .map_or("speed unmeasured".into(), |rate| format!("about {rate:.1} tokens/s"));
            let bound = match storage_bound {
                Some(true) => ", bound by storage",
                Some(false) => ", bound by memory",
                None => "",
            };
            format!(
                "{head}, --memory {}MiB --context {context}{lanes}: {:.0}% of its experts in memory; {speed}{bound}",
                budget_bytes >> 20,
                experts_share * 100.0,
            )
        }
        Advice::TooLarge { floor_bytes, available_bytes } => format!(
            "{head}, needs at least {} with --context {context}, and {} are available",
            size::show(floor_bytes),
            size::show(available_bytes),
        ),
    }
}
