//! `vaquita quantize`: turns a checkpoint into an expert-major file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use vaquita_calibration::statistics::{
    CalibrationFile, ForwardOptions, LayerwiseForward, Origin, Streamed,
};
use vaquita_hub::Purpose;
use vaquita_quantize::container::Inventory;
use vaquita_quantize::importance::Importance;
use vaquita_quantize::sources::{Identity, Source, hub_id};
use vaquita_quantize::{
    Allocation, DenseTypes, Job, Material, Part, Plan, Progress, Report, Survey, Target,
    quantize_until, report, sources,
};
use vaquita_runtime::app::AppError;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::bytes::file;
use vaquita_runtime::gguf::{Gguf, Metadata};
use vaquita_runtime::tokenizer::Tokenizer;

use super::calibrate::{Collected, calibrator};
use crate::bundle::suggested;
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::files::{check_replaces, write_whole};
use crate::hub::Fetch;
use crate::model_argument::ModelArgument;
use crate::terminal::{Bar, table};
use crate::{size, slips, stop};

/// Longest model card of a source that is read for its licence.
const CARD_BYTES: u64 = 1 << 20;

/// Arguments of `quantize`.
#[derive(clap::Args)]
#[command(mut_arg("model", |model| model.help("Hugging Face folder, GGUF file, or hf:ORG/MODEL of the hub")))]
pub struct Args {
    #[command(flatten)]
    source: ModelArgument,
    #[command(flatten)]
    fetch: Fetch,
    /// Output file
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Block type of the routed experts: e2, e3, e4, e8 or f16 [default: e4]
    #[arg(long = "type", value_name = "TYPE", value_parser = expert_type)]
    ty: Option<BlockType>,
    /// How block types are chosen
    #[arg(long, value_name = "PLAN", default_value = "uniform")]
    plan: PlanKind,
    #[command(flatten)]
    dense: DenseArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Calibration file, made by `calibrate`: weights the quantization errors
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Calibrate on this text in the same run, layer by layer: JSON lines with a `text` field, or
    /// plain text
    #[arg(long, value_name = "TEXT", conflicts_with = "calibration")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    collected: Collected,
    /// Make only part K of N, for `join`; parts can be made in parallel on several machines
    #[arg(long, value_name = "K/N", value_parser = part, conflicts_with = "calibrate")]
    part: Option<Part>,
    /// Write an HTML report with sizes, errors, and the bits and use of every expert
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Leave out layers that only draft tokens (MTP); answers do not need them
    #[arg(long)]
    no_mtp: bool,
    /// Replace the output file even if it was made from something else
    #[arg(long)]
    force: bool,
    /// Write a model card for publishing the file on the Hugging Face hub, such as README.md
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Parses `2/8`.
pub fn part(text: &str) -> std::result::Result<Part, String> {
    Part::parse(text).ok_or_else(|| "write it like 2/8: the second of eight".into())
}

/// How block types are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanKind {
    /// One block type for all experts
    Uniform,
    /// One block type per expert matrix: the least total error under a size target
    Mixed,
    /// As mixed, with one block type per projection of a layer's experts; for comparison
    PerTensor,
    /// As mixed, by the number of tokens routed to each expert; for comparison; needs --calibration
    Frequency,
}

impl PlanKind {
    fn allocation(self) -> Allocation {
        match self {
            Self::Uniform | Self::Mixed => Allocation::PerExpert,
            Self::PerTensor => Allocation::PerTensor,
            Self::Frequency => Allocation::Frequency,
        }
    }
}

/// Types of the dense weights.
#[derive(clap::Args)]
pub struct DenseArgs {
    /// Block type of the dense weights: all but the routed experts and the output head [default:
    /// e4, with e8 for attn_kv_a_mqa, beside experts of e4, e3 and e2]
    #[arg(long = "dense-type", alias = "trunk", value_name = "TYPE", value_parser = expert_type)]
    dense: Option<BlockType>,
    /// Block type of the output head [default: e8, or the type of wider experts]
    #[arg(long, value_name = "TYPE", value_parser = expert_type)]
    output_type: Option<BlockType>,
}

impl DenseArgs {
    /// Whether any option was given.
    pub fn is_given(&self) -> bool {
        self.dense.or(self.output_type).is_some()
    }

    /// The options as command-line arguments.
    pub fn words(&self) -> Vec<String> {
        let options = [("--dense-type", self.dense), ("--output-type", self.output_type)];
        let given = options.into_iter().filter_map(|(name, ty)| Some([name, ty?.name()]));
        given.flatten().map(String::from).collect()
    }

    /// The types of dense weights that go with experts of a type.
    pub fn beside(&self, experts: BlockType) -> DenseTypes {
        let default = DenseTypes::beside(experts);
        DenseTypes {
            output: self.output_type.unwrap_or(default.output),
            latent: self.dense.unwrap_or(default.latent),
            rest: self.dense.unwrap_or(default.rest),
        }
    }
}

/// Size target of a mixed plan.
#[derive(clap::Args)]
#[group(multiple = false)]
pub struct TargetArgs {
    /// Size target of the mixed plan: file bits per weight
    #[arg(long, value_name = "BITS")]
    target_bpw: Option<f64>,
    /// Size target of the mixed plan: file size, such as 900MB or 5.5GiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    target_size: Option<u64>,
}

impl TargetArgs {
    /// The options as command-line arguments.
    pub fn words(&self) -> Vec<String> {
        match (self.target_bpw, self.target_size) {
            (Some(bits), _) => vec!["--target-bpw".into(), bits.to_string()],
            (_, Some(bytes)) => vec!["--target-size".into(), bytes.to_string()],
            _ => Vec::new(),
        }
    }

    fn target(&self) -> Option<Target> {
        let bits = self.target_bpw.map(Target::BitsPerWeight);
        bits.or(self.target_size.map(Target::Bytes))
    }
}

/// Parses a type that experts may have.
pub fn expert_type(name: &str) -> std::result::Result<BlockType, String> {
    const TYPES: [BlockType; 5] =
        [BlockType::E4, BlockType::E3, BlockType::E2, BlockType::E8, BlockType::F16];
    let found = TYPES.into_iter().find(|ty| ty.name() == name);
    found.ok_or_else(|| format!("allowed: {}", TYPES.map(BlockType::name).join(", ")))
}

/// Rejects options that conflict.
pub fn check_types(
    plan: PlanKind,
    ty: Option<BlockType>,
    dense: &DenseArgs,
    target: &TargetArgs,
) -> Result {
    let refused = match (plan, target.target()) {
        (PlanKind::Uniform, None) => return Ok(()),
        (_, None) => "such a plan needs --target-bpw or --target-size",
        (PlanKind::Uniform, Some(_)) => "a target needs --plan mixed",
        _ if ty.is_some() => "--type is for --plan uniform; mixed chooses types",
        _ if dense.is_given() => {
            "--dense-type and --output-type are for --plan uniform; mixed chooses types"
        }
        _ => return Ok(()),
    };
    Err(Failure::Usage(refused.into()))
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    let target = args.target.target();
    check_types(args.plan, args.ty, &args.dense, &args.target)?;
    if args.plan == PlanKind::Frequency && args.calibration.is_none() {
        return Err(Failure::Usage("--plan frequency needs --calibration".into()));
    }
    if args.calibrate.is_none() && args.collected.is_given() {
        return Err(Failure::Usage("--products and --limit are for --calibrate".into()));
    }
    let source = args.fetch.local(&args.source.path()?, Purpose::Quantize)?;
    compute.install()?;
    let ty = args.ty.unwrap_or(BlockType::E4);
    let types = match target {
        Some(target) => Types::Mixed(target, args.plan.allocation()),
        None => Types::Uniform(ty, args.dense.beside(ty)),
    };
    let error_weights = match (&args.calibration, &args.calibrate) {
        (Some(file), _) => ErrorWeights::File(file),
        (_, Some(texts)) => ErrorWeights::Collect(texts, &args.collected),
        _ => ErrorWeights::None,
    };
    let request = Request {
        error_weights,
        part: args.part,
        no_mtp: args.no_mtp,
        force: args.force,
        ..Request::new(&source, &args.out, types)
    };
    let (page, card) = (args.report.as_deref(), args.card.as_deref());
    let report = make(compute, &Request { page, card, ..request })?;
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(io::stdout(), "{}", describe(&args.out, &report))?;
    }
    Ok(())
}

/// Source of the error weights.
pub enum Calibration {
    /// A calibration file.
    File(CalibrationFile),
    /// A calibration that runs along with quantization.
    Streamed(Box<Streamed>),
}

impl Calibration {
    /// Opens a calibration file that was made from this source, and records it in the source's
    /// identity.
    pub fn open(path: &Path, source: &Path, identity: &mut Identity) -> Result<Self> {
        let file = CalibrationFile::open(path)?;
        let origin = file.origin();
        if !identity.is(&origin.source) {
            let (path, source) = (path.display(), source.display());
            return Err(Failure::Error(format!(
                "{path} was made from another model than {source}"
            )));
        }
        identity.calibration = Some(format!(
            "{} documents, {}, statistics {}",
            origin.documents, origin.text, origin.statistics
        ));
        Ok(Self::File(file))
    }

    /// Collects statistics from texts while `out` is quantized, and records it in the source's
    /// identity.
    fn stream(
        compute: &Compute,
        request: &Request,
        texts: &Path,
        collected: &Collected,
        source: &mut Source,
    ) -> Result<Self> {
        let texts = collected.texts(texts)?;
        let calibrator = calibrator(compute, request.source, source)?;
        let block = collected.block(&Inventory::new(&*source.weights)?);
        let forward =
            LayerwiseForward::new(calibrator, &texts, ForwardOptions::beside(request.out, block))?;
        let origin = Origin::new(&source.identity.fingerprint, &texts);
        let streamed = Streamed::new(forward, &origin);
        source.identity.calibration = Some(streamed.description().into());
        Ok(Self::Streamed(Box::new(streamed)))
    }

    /// The error weights for the quantizer.
    pub fn importance(&self) -> &dyn Importance {
        match self {
            Self::File(file) => file,
            Self::Streamed(streamed) => &**streamed,
        }
    }
}

/// Choice of block types.
pub enum Types {
    /// One type for the experts, and types for the dense weights.
    Uniform(BlockType, DenseTypes),
    /// A mixed plan under a size target.
    Mixed(Target, Allocation),
    /// The types of the source.
    AsStored,
}

/// Everything that determines a quantization.
pub struct Request<'a> {
    source: &'a Path,
    out: &'a Path,
    types: Types,
    error_weights: ErrorWeights<'a>,
    part: Option<Part>,
    page: Option<&'a Path>,
    no_mtp: bool,
    force: bool,
    card: Option<&'a Path>,
}

/// Source of the error weights.
enum ErrorWeights<'a> {
    /// No weights.
    None,
    /// A calibration file.
    File(&'a Path),
    /// Statistics collected from these texts during quantization.
    Collect(&'a Path, &'a Collected),
}

impl<'a> Request<'a> {
    /// A whole file without calibration.
    pub fn new(source: &'a Path, out: &'a Path, types: Types) -> Self {
        let (error_weights, part, page, card) = (ErrorWeights::None, None, None, None);
        let (no_mtp, force) = (false, false);
        Self { source, out, types, error_weights, part, page, card, no_mtp, force }
    }

    /// Leaves out multi-token-prediction layers, if `no_mtp`.
    pub fn without_mtp(self, no_mtp: bool) -> Self {
        Self { no_mtp, ..self }
    }

    /// Replaces the output file whatever it is, if `force`.
    pub fn forced(self, force: bool) -> Self {
        Self { force, ..self }
    }
}

/// Says which parts of a checkpoint are left out, if any.
pub fn note_left_out(source: &Source) {
    if let Some(line) = source.left_out_line() {
        eprintln!("{line}");
    }
}

/// Quantizes with a progress bar.
pub fn make(compute: &Compute, request: &Request) -> Result<Report> {
    let Request { source, out, types, error_weights, part, page, card, no_mtp, force } = request;
    let stop = stop::on_sigterm()?;
    slips::check_model(source)?;
    let mut opened = sources::open(source)?;
    if *no_mtp {
        opened = opened.without_mtp();
    }
    note_left_out(&opened);
    let calibration = match error_weights {
        ErrorWeights::None => None,
        ErrorWeights::File(file) => Some(Calibration::open(file, source, &mut opened.identity)?),
        ErrorWeights::Collect(texts, collected) => {
            Some(Calibration::stream(compute, request, texts, collected, &mut opened)?)
        }
    };
    // A part is known by its journal.
    if !force && part.is_none() {
        check_replaces(out, source, &opened.identity)?;
    }
    let importance = calibration.as_ref().map(Calibration::importance);
    let (weights, identity) = (opened.weights.as_ref(), &opened.identity);
    let mut tokenizer = inherited_metadata(source, &opened)?;
    if let Types::AsStored = types {
        let by = Gguf::open_metadata(source)?.get("general.quantized_by").cloned();
        by.into_iter().for_each(|by| tokenizer.insert("general.quantized_by", by));
    }
    let plan = match types {
        Types::Mixed(target, allocation) => {
            let material = Material { weights, identity, tokenizer: &tokenizer, importance };
            let survey = with_bars(|progress| Survey::new(&material, progress))?;
            survey.plan(&material, *target, *allocation)?
        }
        Types::Uniform(ty, dense) => Plan::with_dense(weights.config(), *ty, *dense),
        Types::AsStored => Plan::as_stored(weights)?,
    };
    let job = Job { weights, identity, tokenizer: &tokenizer, importance, plan: &plan, out };
    let report = with_bars(|progress| quantize_until(&job, *part, &stop, progress))?;
    if let Some(page) = page {
        let name = out.file_name().unwrap_or(out.as_os_str()).to_string_lossy();
        let html = report::page(&name, &report, weights.config(), &plan, importance);
        write_whole(page, html.as_bytes())?;
    }
    if let Some(path) = card {
        write_whole(path, card_of(source, out, identity, &report)?.as_bytes())?;
    }
    if let Some(Calibration::Streamed(streamed)) = &calibration {
        for layer in streamed.coverage().layers.iter().filter(|layer| !layer.unseen.is_empty()) {
            let unseen: Vec<String> = layer.unseen.iter().map(usize::to_string).collect();
            eprintln!(
                "note: no text reached experts {} of layer {}",
                unseen.join(", "),
                layer.layer
            );
        }
    }
    Ok(report)
}

/// Licence and model of the hub, `ORG/MODEL`, where a source states them.
struct Provenance {
    license: Option<String>,
    base_model: Option<String>,
}

impl Provenance {
    fn of(source: &Path) -> Result<Self> {
        let (license, base_model) = match source.is_dir() {
            true => {
                let text = file::read(&source.join("README.md"), CARD_BYTES).unwrap_or_default();
                (report::license_of(&String::from_utf8_lossy(&text)), None)
            }
            false => {
                let gguf = Gguf::open(source)?;
                let text = |key| gguf.metadata().str(key).ok().flatten().map(String::from);
                let url = text("general.base_model.0.repo_url");
                let model = url.and_then(|url| Some(url.split_once("huggingface.co/")?.1.into()));
                (text("general.license"), model)
            }
        };
        Ok(Self { license, base_model: hub_id(source).or(base_model) })
    }
}

/// The model card of a file.
fn card_of(source: &Path, out: &Path, identity: &Identity, report: &Report) -> Result<String> {
    let Provenance { license, base_model } = Provenance::of(source)?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let card = report::Card {
        file: &out.file_name().unwrap_or(out.as_os_str()).to_string_lossy(),
        source: identity,
        base_model: base_model.as_deref(),
        license: license.as_deref(),
        command: &format!("vaquita {}", words.join(" ")),
        version: env!("CARGO_PKG_VERSION"),
    };
    Ok(card.markdown(report))
}

/// Runs long work with a progress bar for each stage.
pub fn with_bars<T>(work: impl FnOnce(&mut dyn FnMut(Progress)) -> T) -> T {
    let mut bar: Option<(&str, Bar)> = None;
    work(&mut |progress: Progress| {
        let name = progress.stage.name();
        if bar.as_ref().is_none_or(|(stage, _)| *stage != name) {
            bar = Some((name, Bar::new(name)));
        }
        if let Some((_, bar)) = &mut bar {
            bar.set(progress.done, progress.total);
        }
    })
}

/// Metadata that a file made from this source inherits: the tokenizer, the suggested sampling
/// options, and the origin (name, licence, authors) if the source states it. A source that does not run is refused before hours are spent on
/// its file. One without any tokenizer is not: its file is good for measurements with token ids.
pub fn inherited_metadata(path: &Path, source: &Source) -> Result<Metadata> {
    match source.judge(path) {
        Err(AppError::Tokenizer(error)) if error.is_absence() => {
            eprintln!("note: the file will not answer: {error}");
        }
        judged => {
            if let Some(note) = judged?.note {
                eprintln!("note: {}: {note}", path.display());
            }
        }
    }
    inherited(path)
}

fn inherited(source: &Path) -> Result<Metadata> {
    let mut metadata = Metadata::new();
    if source.is_dir() {
        if Tokenizer::is_in(source) {
            Tokenizer::from_folder(source)?.write_metadata(&mut metadata);
        }
        suggested(source)?.write_metadata(&mut metadata);
        let Provenance { license, base_model } = Provenance::of(source)?;
        if let Some(license) = license {
            metadata.insert("general.license", license);
        }
        if let Some(model) = base_model {
            write_base_model(&model, &mut metadata);
        }
    } else {
        let gguf = Gguf::open(source)?;
        for (key, value) in gguf.metadata().iter().filter(|(key, _)| is_inherited(key)) {
            metadata.insert(key, value.clone());
        }
    }
    Ok(metadata)
}

/// Names the model of the hub, `ORG/MODEL`, that a file is made from.
fn write_base_model(model: &str, metadata: &mut Metadata) {
    let (organization, name) = model.split_once('/').unwrap_or(("", model));
    metadata.insert("general.base_model.count", 1u32);
    metadata.insert("general.base_model.0.name", name);
    metadata.insert("general.base_model.0.organization", organization);
    metadata.insert("general.base_model.0.repo_url", format!("https://huggingface.co/{model}"));
}

/// Whether a file made from another GGUF file inherits a key: not if it concerns types or layout.
fn is_inherited(key: &str) -> bool {
    const OF_THE_FILE: [&str; 6] = [
        "architecture",
        "alignment",
        "file_type",
        "quantization_version",
        "quantized_by",
        "size_label",
    ];
    match key.strip_prefix("general.") {
        Some(rest) => !OF_THE_FILE.contains(&rest),
        None => key.starts_with("tokenizer."),
    }
}

/// The report, for people.
pub fn describe(out: &Path, report: &Report) -> String {
    let types = |counts: &BTreeMap<String, usize>| -> String {
        let counts: Vec<String> =
            counts.iter().map(|(ty, count)| format!("{ty} {count}")).collect();
        counts.join(", ")
    };
    let mut text = format!(
        "{}: {}, {:.3} bits per weight ({} weights)\nexperts: {:.3} bits per weight; matrices by type: {}; dense weights by type: {}\n",
        out.display(),
        size::show(report.file_bytes),
        report.bits_per_weight,
        size::count(report.parameters),
        report.expert_bits_per_weight,
        types(&report.expert_types),
        types(&report.dense_types),
    );
    if let Some(bits) = report.bits_per_weight_without_drafts {
        text.push_str(&format!(
            "{bits:.3} bits per weight without the layers that only draft tokens (MTP)\n"
        ));
    }
    if report.resumed_parameters > 0 {
        let weights = size::count(report.resumed_parameters);
        text.push_str(&format!("{weights} weights were there from an earlier run\n"));
    }
    text.push_str(&errors(report));
    text.push_str(&format!("{:.1} s\n", report.seconds));
    text
}

/// Errors by layer and the worst tensors; empty where no weight changed.
fn errors(report: &Report) -> String {
    let changed = report.layers.iter().any(|layer| {
        layer.other_error > 0.0 || layer.expert_error.is_some_and(|error| error > 0.0)
    });
    if !changed {
        return "no weight changed\n".into();
    }
    let percent = |error: f64| format!("{:.3}%", error * 100.0);
    let mut rows = vec![["layer", "error of experts", "of the rest"].map(String::from).to_vec()];
    rows.extend(report.layers.iter().map(|layer| {
        vec![
            layer.name(),
            layer.expert_error.map_or("-".into(), percent),
            percent(layer.other_error),
        ]
    }));
    let text = table(&rows);
    let mut rows = vec![["worst tensors", "type", "error"].map(String::from).to_vec()];
    let worst = report.worst.iter();
    rows.extend(worst.map(|one| vec![one.name.clone(), one.ty.clone(), percent(one.error)]));
    text + &table(&rows)
}
