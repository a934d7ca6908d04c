//! `vaquita quantize`: a checkpoint becomes an expert-major file.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use vaquita_calibration::statistics::{Origin, Statistics};
use vaquita_quantize::importance::Importance;
use vaquita_quantize::{Job, Plan, Progress, Report, Target, mixed, quantize, sources};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::gguf::{Gguf, Metadata};
use vaquita_runtime::tokenizer::Tokenizer;

use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::size;
use crate::terminal::{Bar, table};

/// Arguments of `quantize`.
#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder or a GGUF file
    source: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Type of the routed experts [default: e4]
    #[arg(long = "type", value_name = "TYPE", value_parser = expert_type)]
    ty: Option<BlockType>,
    /// How types are chosen
    #[arg(long, value_name = "PLAN", default_value = "uniform")]
    plan: PlanKind,
    #[command(flatten)]
    target: TargetArgs,
    /// What `calibrate` found, to weigh errors by
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PlanKind {
    /// One type for all experts
    Uniform,
    /// Types by what they cost each expert, under a target
    Mixed,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct TargetArgs {
    /// Bits of the file per weight of the model, for the mixed plan
    #[arg(long, value_name = "BITS")]
    target_bpw: Option<f64>,
    /// Size of the file, for the mixed plan: 900MB, 5.5GiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    target_size: Option<u64>,
}

impl TargetArgs {
    fn target(&self) -> Option<Target> {
        let bits = self.target_bpw.map(Target::BitsPerWeight);
        bits.or(self.target_size.map(Target::Bytes))
    }
}

fn expert_type(name: &str) -> std::result::Result<BlockType, String> {
    const TYPES: [BlockType; 5] =
        [BlockType::E4, BlockType::E3, BlockType::E2, BlockType::E8, BlockType::F16];
    let found = TYPES.into_iter().find(|ty| ty.name() == name);
    found.ok_or_else(|| format!("allowed: {}", TYPES.map(BlockType::name).join(", ")))
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    let target = args.target.target();
    match (args.plan, &target) {
        (PlanKind::Mixed, None) => {
            return Err(Failure::Usage("--plan mixed needs --target-bpw or --target-size".into()));
        }
        (PlanKind::Uniform, Some(_)) => {
            return Err(Failure::Usage("a target needs --plan mixed".into()));
        }
        (PlanKind::Mixed, _) if args.ty.is_some() => {
            return Err(Failure::Usage("--type is for --plan uniform; mixed chooses types".into()));
        }
        _ => {}
    }
    compute.install();
    let statistics = args.calibration.as_deref().map(|path| -> Result<_> {
        let (statistics, origin) = Statistics::read(path)?;
        Ok(Calibration { path, statistics, origin })
    });
    let calibration = statistics.transpose()?;
    let ty = args.ty.unwrap_or(BlockType::E4);
    let report = make(&args.source, &args.out, ty, target, calibration.as_ref())?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", describe(&args.out, &report));
    }
    if args.source.is_dir() && !args.source.join("tokenizer.json").exists() {
        eprintln!("note: {} has no tokenizer.json, so the file has none", args.source.display());
    }
    Ok(())
}

/// What errors are weighed by.
pub struct Calibration<'a> {
    path: &'a Path,
    statistics: Statistics,
    origin: Origin,
}

/// Quantizes with a progress bar: under a target where there is one, else with one type.
pub fn make(
    source: &Path,
    out: &Path,
    ty: BlockType,
    target: Option<Target>,
    calibration: Option<&Calibration>,
) -> Result<Report> {
    let mut opened = sources::open(source)?;
    if let Some(Calibration { path, origin, .. }) = calibration {
        if origin.source != opened.identity.fingerprint {
            let (path, source) = (path.display(), source.display());
            return Err(Failure::Error(format!(
                "{path} was made from another model than {source}"
            )));
        }
        opened.identity.calibration =
            Some(format!("{} documents, {}", origin.documents, origin.text));
    }
    let importance = calibration.map(|one| &one.statistics as &dyn Importance);
    let (weights, identity) = (opened.weights.as_ref(), &opened.identity);
    let tokenizer = tokenizer_metadata(source)?;
    let mut bar: Option<(&str, Bar)> = None;
    let mut on_progress = |progress: Progress| {
        let name = progress.stage.name();
        if bar.as_ref().is_none_or(|(stage, _)| *stage != name) {
            bar = Some((name, Bar::new(name)));
        }
        if let Some((_, bar)) = &mut bar {
            bar.set(progress.done, progress.total);
        }
    };
    let plan = match target {
        Some(target) => mixed(weights, identity, &tokenizer, importance, target, &mut on_progress)?,
        None => Plan::uniform(weights.config(), ty),
    };
    let job = Job { weights, identity, tokenizer: &tokenizer, importance, plan: &plan, out };
    Ok(quantize(&job, &mut on_progress)?)
}

/// What the file will say of its tokenizer. A checkpoint may come without one; its file then runs with
/// token ids only.
pub fn tokenizer_metadata(source: &Path) -> Result<Metadata> {
    let mut metadata = Metadata::new();
    if source.is_dir() {
        if source.join("tokenizer.json").exists() {
            Tokenizer::from_folder(source)?.write_metadata(&mut metadata);
        }
    } else {
        let gguf = Gguf::open(source)?;
        for (key, value) in gguf.metadata().iter().filter(|(key, _)| key.starts_with("tokenizer."))
        {
            metadata.insert(key, value.clone());
        }
    }
    Ok(metadata)
}

/// The report, for people.
fn describe(out: &Path, report: &Report) -> String {
    let types: Vec<String> =
        report.expert_types.iter().map(|(ty, count)| format!("{ty} {count}")).collect();
    let mut text = format!(
        "{}: {}, {:.3} bits per weight ({} weights)\nexperts: {:.3} bits per weight; matrices by type: {}\n",
        out.display(),
        size::show(report.file_bytes),
        report.bits_per_weight,
        size::count(report.parameters),
        report.expert_bits_per_weight,
        types.join(", "),
    );
    let percent = |error: f64| format!("{:.3}%", error * 100.0);
    let mut rows = vec![["layer", "error of experts", "of the rest"].map(String::from).to_vec()];
    rows.extend(report.layers.iter().map(|layer| {
        vec![
            layer.layer.map_or("embedding, output".into(), |layer| layer.to_string()),
            layer.expert_error.map_or("-".into(), percent),
            percent(layer.other_error),
        ]
    }));
    text.push_str(&table(&rows));
    text.push_str(&format!("{:.1} s\n", report.seconds));
    text
}
