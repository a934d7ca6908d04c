//! `vaquita plan hf:ORG/MODEL`: what a published model would be on this machine, from the headers of
//! its files.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use vaquita_hub::{Choice, Hub, Listing, ModelName, Purpose, Variant, choose, variants};
use vaquita_quantize::Plan;
use vaquita_quantize::container::{Inventory, Layout};
use vaquita_quantize::sources::{HfFolder, Identity};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{GgufWeights, Verify, Weights};
use vaquita_runtime::doctor::advice::{Advice, ModelDemand, Rates, advise};
use vaquita_runtime::doctor::storage::{Storage, probe};
use vaquita_runtime::doctor::{memory_rate, model_file};
use vaquita_runtime::gguf::{Gguf, Metadata};
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::opening::budget::Workload;
use vaquita_runtime::opening::memory_info::MemoryInfo;

use crate::compute::Compute;
use crate::energy::host;
use crate::failure::{Failure, Result};
use crate::size;
use crate::terminal::table;

/// Duration of the memory measurement.
const MEMORY_TIME: Duration = Duration::from_millis(500);
/// Default context: room for a long answer.
const CONTEXT: usize = 4096;
/// Types that a checkpoint is planned for.
const TYPES: [BlockType; 4] = [BlockType::E2, BlockType::E3, BlockType::E4, BlockType::E8];

/// A published model on this machine. The keys are a stable interface.
#[derive(Serialize)]
struct Published {
    model: String,
    commit: String,
    license: Option<String>,
    gated: bool,
    family: String,
    parameters: u64,
    context: usize,
    memory_available_bytes: u64,
    memory_bytes_per_second: f64,
    storage_bytes_per_second: Option<f64>,
    /// Published GGUF models, or what `quantize` would make of the checkpoint.
    files: Vec<Candidate>,
    /// Label of the one to take.
    take: Option<String>,
    /// Bytes to fetch before `quantize`, for a checkpoint.
    checkpoint_bytes: Option<u64>,
}

/// A file that could be run.
#[derive(Clone, Serialize)]
struct Candidate {
    label: String,
    bytes: u64,
    bits_per_weight: f64,
    /// Whether the demand is scaled from that of another file by their sizes.
    estimated: bool,
    #[serde(flatten)]
    advice: Advice,
}

/// A model as its header describes it.
#[derive(Clone)]
struct Described {
    family: String,
    parameters: u64,
    context: usize,
    demand: ModelDemand,
    bytes: u64,
}

/// The machine that is planned for.
struct Machine<'a> {
    compute: &'a Compute,
    memory: MemoryInfo,
    rates: Rates,
}

/// Prints what the files of a model would be on this machine.
pub fn run(compute: &Compute, hub: &Hub, name: &ModelName, as_json: bool) -> Result {
    let listing = hub.listing(name)?;
    let machine = Machine::measure(compute, hub)?;
    let found = variants(&listing);
    let whole: Vec<&Variant> =
        found.iter().filter(|variant| variant.files.len() == variant.count).collect();
    let choice = choose(&listing, name, Purpose::Run);
    let published = match (choice, whole.as_slice()) {
        (Ok(choice), _) if choice.open.is_none() => machine.checkpoint(hub, &listing, &choice)?,
        (Ok(choice), _) => machine.files(hub, &listing, &choice, &whole)?,
        // Nothing is preferred: the smallest describes the others.
        (Err(_), [smallest, ..]) if name.part.is_none() => {
            machine.files(hub, &listing, &smallest.choice(), &whole)?
        }
        (Err(error), _) => return Err(error.into()),
    };
    match as_json {
        true => writeln!(io::stdout(), "{}", serde_json::to_string(&published)?)?,
        false => write!(io::stdout(), "{}", text(&published))?,
    }
    Ok(())
}

impl Machine<'_> {
    fn measure<'a>(compute: &'a Compute, hub: &Hub) -> Result<Machine<'a>> {
        let unknown = || Failure::Error("this system does not say how much memory it has".into());
        let memory = MemoryInfo::read(&*host(None)?).ok_or_else(unknown)?;
        let pool = compute.pool()?;
        // Where the cache is not there yet, the rate of the folder that it will be in.
        let folder = hub.cache().root().ancestors().find(|folder| folder.is_dir());
        let storage = folder.and_then(|folder| probe(folder).ok());
        let storage = storage.as_ref().and_then(Storage::best_rate);
        let rate = memory_rate(&pool, MEMORY_TIME, Some(memory.available));
        let rates = Rates { memory: rate, storage };
        Ok(Machine { compute, memory, rates })
    }

    fn candidate(&self, label: &str, file: &Described) -> Candidate {
        Candidate {
            label: label.into(),
            bytes: file.bytes,
            bits_per_weight: file.bytes as f64 * 8.0 / file.parameters.max(1) as f64,
            estimated: false,
            advice: advise(&file.demand, self.memory, self.rates),
        }
    }

    fn published(&self, listing: &Listing, described: &Described) -> Published {
        let MemoryInfo { available, process, .. } = self.memory;
        Published {
            model: listing.repo.to_string(),
            commit: listing.commit.clone(),
            license: listing.license.clone(),
            gated: listing.gated,
            family: described.family.clone(),
            parameters: described.parameters,
            context: described.context,
            memory_available_bytes: available.saturating_add(process),
            memory_bytes_per_second: self.rates.memory,
            storage_bytes_per_second: self.rates.storage,
            files: Vec::new(),
            take: None,
            checkpoint_bytes: None,
        }
    }

    /// Plans for GGUF models: `choice` and the one to take by their headers, the others by their
    /// sizes.
    fn files(
        &self,
        hub: &Hub,
        listing: &Listing,
        choice: &Choice,
        variants: &[&Variant],
    ) -> Result<Published> {
        let describe =
            |choice: &Choice| describe(self.compute, &hub.outline(listing, choice)?.path());
        let described = describe(choice)?;
        let candidates = variants.iter().map(|variant| {
            if variant.files == choice.files {
                return self.candidate(&variant.label, &described);
            }
            let factor = variant.bytes() as f64 / described.bytes.max(1) as f64;
            let demand = described.demand.scaled(factor);
            let scaled = Described { demand, bytes: variant.bytes(), ..described.clone() };
            Candidate { estimated: true, ..self.candidate(&variant.label, &scaled) }
        });
        let mut published = self.published(listing, &described);
        published.files = candidates.collect();
        if let Some(best) = best(&published.files) {
            let variant = variants[best];
            if published.files[best].estimated {
                let exact = describe(&variant.choice())?;
                published.files[best] = self.candidate(&variant.label, &exact);
            }
            published.take = Some(variant.label.clone());
        }
        Ok(published)
    }

    /// Plans for the files that `quantize` would make of a checkpoint.
    fn checkpoint(&self, hub: &Hub, listing: &Listing, choice: &Choice) -> Result<Published> {
        let outline = hub.outline(listing, choice)?;
        let source = HfFolder::open(outline.path())?;
        let inventory = Inventory::new(&source)?;
        let folder = tempfile::tempdir()?;
        let mut described = Vec::new();
        for ty in TYPES {
            let plan = Plan::uniform(source.config(), ty);
            let layout = Layout::new(&inventory, &Identity::default(), &Metadata::new(), &plan)?;
            let path = folder.path().join(format!("{}.gguf", ty.name()));
            layout.write_header(&path)?;
            described.push(describe(self.compute, &path)?);
        }
        let mut published = self.published(listing, &described[0]);
        let labels = TYPES.iter().map(|ty| format!("--type {}", ty.name()));
        let candidates = labels.zip(&described).map(|(label, file)| self.candidate(&label, file));
        published.files = candidates.collect();
        published.take = best(&published.files).map(|best| published.files[best].label.clone());
        published.checkpoint_bytes = Some(choice.bytes());
        Ok(published)
    }
}

/// Reads what a header says of a model.
fn describe(compute: &Compute, path: &std::path::Path) -> Result<Described> {
    let least = compute.model(CacheType::F16, 1)?.file().workload;
    let workload = |context| Workload { context, ..least };
    let weights = GgufWeights::new(Gguf::open(path)?, Verify::Never)?;
    let parameters = Inventory::new(&weights)?.parameters;
    let family = weights.config().family.name().to_string();
    let most = weights.config().max_position_embeddings;
    let context = if least.context == 0 { CONTEXT.min(most) } else { least.context };
    let file = model_file(&weights, &workload(context))?;
    Ok(Described { family, parameters, context, demand: file.model, bytes: file.file_bytes })
}

/// The candidate to take: the largest that fits into memory, or else the fastest that streams.
fn best(candidates: &[Candidate]) -> Option<usize> {
    let all = || candidates.iter().enumerate();
    let fits =
        |(_, candidate): &(usize, &Candidate)| matches!(candidate.advice, Advice::Mapped { .. });
    let speed = |candidate: &Candidate| match candidate.advice {
        Advice::Streamed { tokens_per_second, .. } => Some(tokens_per_second.unwrap_or(0.0)),
        _ => None,
    };
    let largest = all().filter(fits).max_by_key(|(_, candidate)| candidate.bytes);
    let streaming = || {
        let speeds = all().filter_map(|(i, candidate)| Some((i, speed(candidate)?)));
        speeds.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
    };
    largest.map(|(i, _)| i).or_else(streaming)
}

fn text(found: &Published) -> String {
    let rate = |rate: f64| format!("{:.2} GB/s", rate / 1e9);
    let storage = found.storage_bytes_per_second.map_or("unmeasured".into(), rate);
    let mut text = format!(
        "{} at {}: {}, {} weights; licence {}{}\n\
         this machine: {} of memory available, read at {}; storage {storage}; context {}\n\n",
        found.model,
        &found.commit[..7],
        found.family,
        size::count(found.parameters),
        found.license.as_deref().unwrap_or("not stated"),
        if found.gated { ", gated: its publisher asks to accept terms" } else { "" },
        size::show(found.memory_available_bytes),
        rate(found.memory_bytes_per_second),
        found.context,
    );
    let heads = ["file", "size", "bits per weight", "in memory", "tokens/s"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for file in &found.files {
        let about = |speed: f64| format!("{}{speed:.1}", if file.estimated { "~" } else { "" });
        let (memory, speed) = match file.advice {
            Advice::Mapped { tokens_per_second } => ("all".into(), about(tokens_per_second)),
            Advice::Streamed { experts_share, tokens_per_second, .. } => (
                format!("{:.0}% of experts", experts_share * 100.0),
                tokens_per_second.map_or("unmeasured".into(), about),
            ),
            Advice::TooLarge { floor_bytes, .. } => {
                (format!("needs {}", size::show(floor_bytes)), "-".into())
            }
        };
        let bits = format!("{:.2}", file.bits_per_weight);
        rows.push(vec![file.label.clone(), size::show(file.bytes), bits, memory, speed]);
    }
    text.push_str(&table(&rows));
    if found.files.iter().any(|file| file.estimated) {
        text.push_str("~ estimated from the size of the file; the others from their headers\n");
    }
    text.push('\n');
    let Some(take) = &found.take else {
        text.push_str("none of them runs in this machine's memory\n");
        return text;
    };
    let reason = match found.files.iter().find(|file| file.label == *take).map(|file| file.advice) {
        Some(Advice::Streamed { budget_bytes, .. }) => {
            format!("the fastest, with --memory {}MiB", budget_bytes >> 20)
        }
        _ => "the largest that fits into memory".into(),
    };
    let model = &found.model;
    text.push_str(&match found.checkpoint_bytes {
        None => format!("take {take}, {reason}: vaquita run hf:{model}:{take}\n"),
        Some(bytes) => format!(
            "take {take}, {reason}: vaquita quantize hf:{model} {take} -o model.gguf, after fetching {}\n",
            size::show(bytes)
        ),
    });
    // Labels come from file names of strangers.
    text.replace(|c: char| c.is_control() && c != '\n', "?")
}
