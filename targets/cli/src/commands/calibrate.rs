//! `vaquita calibrate`: collects statistics of the inputs of a model's matrices on a text.

use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaquita_calibration::read_documents;
use vaquita_calibration::statistics::{
    Calibration, Calibrator, Coverage, ForwardOptions, Origin, Shape, calibrate, merge,
};
use vaquita_quantize::Part;
use vaquita_quantize::container::Inventory;
use vaquita_quantize::sources::{self, Source};
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::prompt::Prompter;

use super::demo::reference;
use super::eval::with_bar;
use crate::bundle::open_tokenizer;
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::model_argument::ModelArgument;
use crate::terminal::{Bar, table};
use crate::{size, stop};

/// Default text, in the folder of the reference model.
const DEFAULT_TEXT: &str = "calibration.jsonl";

/// Default memory for second moments.
pub const DEFAULT_PRODUCTS: u64 = 2 << 30;

/// Arguments of `calibrate`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    merge: Option<Merge>,
    #[command(flatten)]
    collect: Collect,
}

#[derive(clap::Subcommand)]
enum Merge {
    /// Merge the parts of a calibration that `calibrate --part` made
    Merge(MergeArgs),
}

#[derive(clap::Args)]
struct MergeArgs {
    /// All parts, in any order
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(mut_arg("model", |model| model.help("Hugging Face folder or GGUF file")))]
struct Collect {
    #[command(flatten)]
    source: ModelArgument,
    /// Documents: JSON lines with a `text` field, or plain text [default: the text that ships with
    /// the project]
    #[arg(
        long,
        value_name = "FILE",
        default_value_os_t = reference().join(DEFAULT_TEXT),
        hide_default_value = true
    )]
    text: PathBuf,
    /// Output file
    #[arg(short, long, value_name = "FILE", required = true)]
    out: Option<PathBuf>,
    #[command(flatten)]
    collected: Collected,
    /// Read only part K of N of the documents, for `calibrate merge`: parts can be made in parallel
    /// on several machines
    #[arg(long, value_name = "K/N", value_parser = super::quantize::part)]
    part: Option<Part>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Extent of the statistics.
#[derive(clap::Args)]
pub struct Collected {
    /// Memory for the second moments of one layer's inputs, which error feedback needs: blocks of
    /// 32 to 256 inputs, 16 bytes an entry, as large as fit; or none [default: 2GiB]
    #[arg(long, value_name = "SIZE", value_parser = size::parse_or_none)]
    pub products: Option<u64>,
    /// Use only the first N documents
    #[arg(long, value_name = "N")]
    limit: Option<NonZero<usize>>,
}

impl Collected {
    /// Whether any option was given.
    pub fn is_given(&self) -> bool {
        self.products.is_some() || self.limit.is_some()
    }

    /// The options as command-line arguments.
    pub fn words(&self) -> Vec<String> {
        let products = self.products.map(|bytes| match bytes {
            0 => "none".to_string(),
            bytes => bytes.to_string(),
        });
        let options = [("--products", products), ("--limit", self.limit.map(|n| n.to_string()))];
        let given = options.into_iter().filter_map(|(name, value)| Some([name.into(), value?]));
        given.flatten().collect()
    }

    /// The texts of a file.
    pub fn texts(&self, path: &Path) -> Result<Vec<String>> {
        let mut texts = read_documents(path)?;
        texts.truncate(self.limit.map_or(usize::MAX, NonZero::get));
        Ok(texts)
    }

    /// Block width of the second moments, in inputs.
    pub fn block(&self, inventory: &Inventory) -> Option<usize> {
        let products = self.products.unwrap_or(DEFAULT_PRODUCTS);
        let block = Shape::of(inventory, None).block_within(products);
        if block.is_none() && products > 0 {
            let products = size::show(products);
            eprintln!("note: --products {products} is too little; errors will not be fed back");
        }
        block
    }
}

/// Opens a source for calibration, one layer at a time.
pub fn calibrator(compute: &Compute, path: &Path, source: &Source) -> Result<Calibrator> {
    let cache = if path.is_dir() { CacheType::F32 } else { CacheType::F16 };
    let weights = source.weights.clone();
    let prompter = Prompter::for_model(Arc::new(open_tokenizer(path)?), weights.config())
        .map_err(|error| Failure::Error(format!("{}: {error}", path.display())))?;
    Ok(Calibrator {
        weights,
        prompter,
        options: compute.model(cache, 1)?.session(),
        pool: compute.pool()?,
    })
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    match args.merge {
        Some(Merge::Merge(args)) => merge_parts(compute, &args),
        None => collect(compute, args.collect),
    }
}

fn merge_parts(compute: &Compute, args: &MergeArgs) -> Result {
    compute.install()?;
    let mut bar = Bar::new("merging");
    let coverage = merge(&args.parts, &args.out, &mut |done, total| {
        bar.set(done as u64, total as u64);
    })?;
    drop(bar);
    print(&coverage, args.json)
}

fn collect(compute: &Compute, args: Collect) -> Result {
    let source_path = &args.source.path()?;
    let Some(out) = args.out.as_deref() else {
        return Err(Failure::Usage("name, with -o, the file to write".into()));
    };
    if args.text == reference().join(DEFAULT_TEXT) && !args.text.exists() {
        let text = args.text.display();
        return Err(Failure::Usage(format!("{text} is missing; name a text with --text")));
    }
    compute.install()?;
    let stop = stop::on_sigterm()?;
    let texts = args.collected.texts(&args.text)?;
    let source = sources::open(source_path)?;
    let calibrator = calibrator(compute, source_path, &source)?;
    let block = args.collected.block(&Inventory::new(&*source.weights)?);
    let origin = Origin::new(&source.identity.fingerprint, &texts);
    let options = ForwardOptions::beside(out, block);
    let (origin, texts, part) = (&origin, &texts, args.part);
    let job = Calibration { origin, texts, part, out, stop: &stop };
    let coverage = with_bar("calibrating", |bar| {
        Ok(calibrate(calibrator, &job, options, &mut |done, total| bar(done, total))?)
    })?;
    print(&coverage, args.json)
}

fn print(coverage: &Coverage, json: bool) -> Result {
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string(coverage)?)?;
    } else {
        write!(io::stdout(), "{}", describe(coverage))?;
    }
    Ok(())
}

fn describe(coverage: &Coverage) -> String {
    let head = ["layer", "experts", "fewest tokens", "median", "most", "unseen"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(coverage.layers.iter().map(|layer| {
        let unseen: Vec<String> = layer.unseen.iter().map(usize::to_string).collect();
        let numbers =
            [layer.layer as u64, layer.experts as u64, layer.least, layer.median, layer.most];
        let mut row: Vec<String> = numbers.iter().map(u64::to_string).collect();
        row.push(if unseen.is_empty() { "none".into() } else { unseen.join(", ") });
        row
    }));
    table(&rows)
}
