//! `vaquita inspect`: describes a model and whether it runs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use vaquita_hub::{Hub, ModelName, Purpose, choose};
use vaquita_quantize::container::{Inventory, expert_parameters};
use vaquita_quantize::plan::{expert_layers, expert_specs};
use vaquita_quantize::sources::{self, CONFIG_BYTES, HfFolder};
use vaquita_runtime::app::{AppError, Fit, judge};
use vaquita_runtime::bytes::file;
use vaquita_runtime::checkpoint::config::AttentionConfig;
use vaquita_runtime::checkpoint::gguf_weights::{OpenError, check_header, record_layout};
use vaquita_runtime::checkpoint::{Config, GgufWeights, Projection, Verify, Weights};
use vaquita_runtime::gguf::{Gguf, Metadata};
use vaquita_runtime::opening::OpenModelError;
use vaquita_runtime::tokenizer::Tokenizer;

use crate::failure::Result;
use crate::hub::named;
use crate::model_argument::ModelArgument;
use crate::size;
use crate::terminal::table;

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgument,
    /// List all tensors
    #[arg(long)]
    tensors: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Description of a model. Values that cannot be determined are `null`.
#[derive(Debug, Default, Serialize)]
struct Summary {
    architecture: Option<String>,
    family: Option<String>,
    name: Option<String>,
    /// Whether it runs here, and if not, the reason.
    runs: bool,
    problem: Option<String>,
    /// Why it continues texts but holds no conversations.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_chat: Option<String>,
    /// How its tokenizer was read, if that matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    file_bytes: u64,
    parameters: u64,
    bits_per_weight: f64,
    expert_bits_per_weight: Option<f64>,
    /// Layers that only draft tokens (MTP), which answers do not need.
    #[serde(skip_serializing_if = "Option::is_none")]
    drafts: Option<Drafts>,
    /// Number of routed experts' matrices by type.
    expert_types: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Shape>,
    /// Provenance of the file, if it states any.
    made: BTreeMap<String, String>,
    tensors: Vec<Tensor>,
}

/// Weights of the draft layers, and the rest of the file.
#[derive(Debug, Serialize)]
struct Drafts {
    parameters: u64,
    bytes: u64,
    bits_per_weight_without: f64,
}

#[derive(Debug, Serialize)]
struct Shape {
    layers: usize,
    mtp_layers: usize,
    hidden_size: usize,
    vocabulary: usize,
    context: usize,
    attention_heads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_lora_rank: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_value_heads: Option<usize>,
    experts: usize,
    experts_per_token: usize,
    shared_experts: usize,
}

#[derive(Debug, Serialize)]
struct Tensor {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    shape: Vec<u64>,
    bytes: u64,
}

impl Summary {
    /// The description from metadata.
    fn of(metadata: &Metadata) -> Self {
        const MADE: [&str; 4] = [
            "vaquita.quantizer",
            "vaquita.plan",
            "vaquita.source.name",
            "vaquita.source.fingerprint",
        ];
        let text = |key: &str| metadata.str(key).ok().flatten().map(String::from);
        let made = MADE.into_iter().filter_map(|key| Some((key.into(), text(key)?)));
        Self {
            architecture: text("general.architecture"),
            name: text("general.name"),
            made: made.collect(),
            ..Self::default()
        }
    }

    /// Adds whether the model runs.
    fn add_verdict(&mut self, verdict: std::result::Result<Fit, AppError>) {
        match verdict {
            Ok(fit) => {
                self.runs = true;
                self.no_chat = fit.no_chat.map(|error| error.to_string());
                self.note = fit.note;
            }
            Err(error) => self.problem = Some(error.to_string()),
        }
    }
}

impl Shape {
    fn new(config: &Config) -> Self {
        let (kv_lora_rank, key_value_heads) = match &config.attention {
            AttentionConfig::Mla(mla) => (Some(mla.kv_lora_rank), None),
            AttentionConfig::Grouped(gqa) => (None, Some(gqa.num_key_value_heads)),
        };
        Self {
            layers: config.num_hidden_layers,
            mtp_layers: config.num_nextn_predict_layers,
            hidden_size: config.hidden_size,
            vocabulary: config.vocab_size,
            context: config.max_position_embeddings,
            attention_heads: config.attention.num_attention_heads(),
            kv_lora_rank,
            key_value_heads,
            experts: config.moe.n_routed_experts,
            experts_per_token: config.moe.num_experts_per_tok,
            shared_experts: config.moe.n_shared_experts,
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result {
    let model = args.model.path()?;
    let summary = match named(&model)? {
        Some(name) => published(&name)?,
        None => local(&model)?,
    };
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&summary)?)?;
    } else {
        write!(io::stdout(), "{}", describe(&summary, args.tensors))?;
    }
    Ok(())
}

fn local(path: &Path) -> Result<Summary> {
    if path.is_dir() { folder(path) } else { gguf_file(path) }
}

/// Describes a model of the hub, by its headers if it is not in the cache.
fn published(name: &ModelName) -> Result<Summary> {
    let hub = Hub::from_env()?;
    if let Some(path) = hub.cached(name, Purpose::Run) {
        return local(&path);
    }
    let listing = hub.listing(name)?;
    let choice = choose(&listing, name, Purpose::Run)?;
    let outline = hub.outline(&listing, &choice)?;
    let mut summary = local(&outline.path())?;
    if outline.path().is_dir() {
        summary.name = Some(name.repo.name.clone());
        summary.file_bytes = choice.bytes();
        summary.bits_per_weight = bits(choice.bytes(), summary.parameters);
    }
    Ok(summary)
}

/// Describes a checkpoint as far as it opens.
fn folder(path: &Path) -> Result<Summary> {
    let source = match HfFolder::open(path) {
        Ok(source) => source,
        Err(error) => {
            let Some(architecture) = model_type(path) else { return Err(error.into()) };
            return Ok(Summary {
                architecture: Some(architecture),
                name: Some(sources::name(path)),
                problem: Some(error.to_string()),
                ..Summary::default()
            });
        }
    };
    let inventory = Inventory::new(&source)?;
    let file_bytes = source.file_bytes();
    let config = inventory.config;
    let tensors = inventory.tensors.iter().map(|spec| Tensor {
        name: spec.name.clone(),
        ty: "source".into(),
        shape: vec![spec.cols as u64, spec.rows as u64],
        bytes: 0,
    });
    let mut summary = Summary {
        architecture: Some(config.family.architecture().into()),
        family: Some(config.family.name().into()),
        name: Some(sources::name(path)),
        file_bytes,
        parameters: inventory.parameters,
        bits_per_weight: bits(file_bytes, inventory.parameters),
        shape: Some(Shape::new(config)),
        tensors: tensors.collect(),
        ..Summary::default()
    };
    summary.add_verdict(judge(&source, sources::tokenizer(path)));
    Ok(summary)
}

/// `model_type` of a folder's configuration.
fn model_type(folder: &Path) -> Option<String> {
    let text = file::read(&folder.join("config.json"), CONFIG_BYTES).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&text).ok()?;
    json["model_type"].as_str().map(String::from)
}

fn gguf_file(path: &Path) -> Result<Summary> {
    let (gguf, problem) = match Gguf::open_header(path) {
        Ok(opened) => opened,
        // The model can be described even if its tensors cannot.
        Err(error) => {
            let Ok(metadata) = Gguf::open_metadata(path) else { return Err(error.into()) };
            let mut summary = Summary::of(&metadata);
            summary.file_bytes = std::fs::metadata(path)?.len();
            summary.problem = Some(error.to_string());
            return Ok(summary);
        }
    };
    let mut summary = Summary::of(gguf.metadata());
    summary.file_bytes = gguf.file_bytes();
    for tensor in gguf.tensors() {
        summary.parameters += tensor.dims.iter().product::<u64>();
        summary.tensors.push(Tensor {
            name: tensor.name.clone(),
            ty: tensor.ty.name().into(),
            shape: tensor.dims.clone(),
            bytes: tensor.len,
        });
    }
    let tensor_bytes = gguf.tensors().iter().map(|tensor| tensor.len).sum();
    match GgufWeights::new(gguf, Verify::Never) {
        Ok(weights) => {
            add_model(&mut summary, &weights);
            summary.add_verdict(match problem {
                Some(error) => Err(OpenModelError::from(OpenError::from(error)).into()),
                None => match check_header(weights.gguf()) {
                    Ok(()) => judge(&weights, Tokenizer::from_metadata(weights.gguf().metadata())),
                    Err(error) => Err(OpenModelError::from(error).into()),
                },
            });
        }
        Err(error) => summary.problem = Some(problem.map_or(error.to_string(), |p| p.to_string())),
    }
    // A download may end before its tensors do.
    let bytes = summary.file_bytes.max(tensor_bytes);
    summary.bits_per_weight = bits(bytes, summary.parameters);
    Ok(summary)
}

/// Adds what is known only of a supported architecture.
fn add_model(summary: &mut Summary, weights: &GgufWeights) {
    let config = weights.config();
    summary.family = Some(config.family.name().into());
    summary.shape = Some(Shape::new(config));
    // Where tensors are missing, the verdict says so.
    if let Ok(inventory) = Inventory::new(weights) {
        summary.parameters = inventory.parameters;
        summary.drafts = drafts(summary, &inventory);
    }
    let (mut bytes, mut parameters, mut known) = (0, 0, true);
    for spec in expert_layers(config).flat_map(|layer| expert_specs(config, layer)) {
        let types = weights.expert_types(&spec);
        let shapes = Projection::ALL.map(|projection| spec.shape(projection));
        match types.and_then(|types| Some((types, record_layout(types, shapes)?))) {
            Some((types, (_, len))) => {
                bytes += len as u64;
                parameters += expert_parameters(&spec);
                for ty in types {
                    *summary.expert_types.entry(ty.name().into()).or_default() += 1;
                }
            }
            None => known = false,
        }
    }
    summary.expert_bits_per_weight = (known && parameters > 0).then(|| bits(bytes, parameters));
    for tensor in &mut summary.tensors {
        if let Some(ty) = weights.tensor_type(&tensor.name) {
            tensor.ty = ty.name().into();
        }
    }
}

/// The share of the draft layers; `None` where there are none.
fn drafts(summary: &Summary, inventory: &Inventory) -> Option<Drafts> {
    let config = inventory.config;
    let is_draft = |layer: usize| layer >= config.num_hidden_layers;
    let dense = inventory.tensors.iter().filter(|spec| spec.layer().is_some_and(is_draft));
    let dense: u64 = dense.map(|spec| spec.rows as u64 * spec.cols as u64).sum();
    let layers = expert_layers(config).filter(|layer| is_draft(layer.0));
    let experts = layers.flat_map(|layer| expert_specs(config, layer));
    let parameters = dense + experts.map(|spec| expert_parameters(&spec)).sum::<u64>();
    let layer_of = |name: &str| name.strip_prefix("blk.")?.split('.').next()?.parse().ok();
    let tensors = summary.tensors.iter();
    let tensors = tensors.filter(|tensor| layer_of(&tensor.name).is_some_and(is_draft));
    let bytes = tensors.map(|tensor| tensor.bytes).sum();
    (parameters > 0).then(|| Drafts {
        parameters,
        bytes,
        bits_per_weight_without: bits(
            summary.file_bytes.saturating_sub(bytes),
            inventory.parameters.saturating_sub(parameters),
        ),
    })
}

fn bits(bytes: u64, parameters: u64) -> f64 {
    bytes as f64 * 8.0 / parameters.max(1) as f64
}

fn describe(summary: &Summary, tensors: bool) -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.into(), value));
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or("unknown".into());
    row("name", or_unknown(&summary.name));
    row("architecture", or_unknown(&summary.architecture));
    row("family", or_unknown(&summary.family));
    row(
        "runs",
        match (&summary.problem, summary.runs) {
            (Some(problem), _) => format!("no: {problem}"),
            (None, runs) => if runs { "yes" } else { "no" }.into(),
        },
    );
    if let Some(reason) = &summary.no_chat {
        row("chats", format!("no: {reason}"));
    }
    if let Some(note) = &summary.note {
        row("note", note.clone());
    }
    row("size", size::show(summary.file_bytes));
    row("weights", size::count(summary.parameters));
    row("bits per weight", format!("{:.3}", summary.bits_per_weight));
    if let Some(bits) = summary.expert_bits_per_weight {
        row("  of the experts", format!("{bits:.3}"));
    }
    if let Some(drafts) = &summary.drafts {
        let (weights, bytes) = (size::count(drafts.parameters), size::show(drafts.bytes));
        row("draft layers (MTP)", format!("{weights} weights, {bytes}; answers do not need them"));
        row("  bits without them", format!("{:.3}", drafts.bits_per_weight_without));
    }
    if let Some(shape) = &summary.shape {
        row("layers", format!("{} (and {} for drafts)", shape.layers, shape.mtp_layers));
        row("hidden size", shape.hidden_size.to_string());
        row("vocabulary", shape.vocabulary.to_string());
        row("context", shape.context.to_string());
        row(
            "experts",
            format!(
                "{} of {} per token, and {} shared",
                shape.experts_per_token, shape.experts, shape.shared_experts
            ),
        );
    }
    for (key, value) in &summary.made {
        row(key, value.clone());
    }
    row("tensors", summary.tensors.len().to_string());
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text: String =
        rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect();
    let all: usize = summary.expert_types.values().sum();
    if all > 0 {
        text.push_str("\nmatrices of experts by type\n");
        for (ty, count) in &summary.expert_types {
            let bar = "#".repeat((count * 40).div_ceil(all));
            text.push_str(&format!("  {ty:<4} {count:>7}  {bar}\n"));
        }
    }
    if tensors {
        let heads = ["tensor", "type", "shape", "bytes"].map(String::from).to_vec();
        let lines = summary.tensors.iter().map(|tensor| {
            let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
            vec![tensor.name.clone(), tensor.ty.clone(), shape.join("x"), tensor.bytes.to_string()]
        });
        let rows: Vec<Vec<String>> = std::iter::once(heads).chain(lines).collect();
        text.push_str(&format!("\n{}", table(&rows)));
    }
    // Names come from the file: strip escape sequences before they reach the terminal.
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}
