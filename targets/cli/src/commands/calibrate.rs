//! `vaquita calibrate`: what the inputs of a model's matrices look like over texts.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use vaquita_calibration::read_documents;
use vaquita_calibration::statistics::{Coverage, Origin, block_within, collect};
use vaquita_quantize::sources;

use super::eval::with_bar;
use crate::bundle::Bundle;
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::size;
use crate::terminal::table;

/// Where the text is when no other is named, in the project's folder.
const DEFAULT_TEXT: &str = "calibration/reference/calibration.jsonl";

/// Arguments of `calibrate`.
#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder or a GGUF file
    source: PathBuf,
    /// Documents: JSON lines with `text`
    #[arg(long, value_name = "FILE", default_value = DEFAULT_TEXT)]
    text: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Memory for the products of inputs, which error feedback needs: blocks of 32 to 256 inputs, as fit; or none
    #[arg(long, value_name = "SIZE", value_parser = size_or_none, default_value = "2GiB")]
    products: u64,
    /// Only the first N documents
    #[arg(long, value_name = "N")]
    limit: Option<NonZero<usize>>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    if args.text == Path::new(DEFAULT_TEXT) && !args.text.exists() {
        return Err(Failure::Usage(format!("{DEFAULT_TEXT} is not here; name a file with --text")));
    }
    compute.install()?;
    let mut texts = read_documents(&args.text)?;
    texts.truncate(args.limit.map_or(usize::MAX, NonZero::get));
    let fingerprint = sources::open(&args.source)?.identity.fingerprint;
    let subject = Bundle::open_for_all_threads(compute, &args.source)?.subject();
    let block = block_within(args.products, subject.model.config());
    if block.is_none() && args.products > 0 {
        eprintln!(
            "note: --products {} is too little; errors will not be fed back",
            size::show(args.products)
        );
    }
    let statistics = with_bar("calibrating", |bar| Ok(collect(&subject, &texts, block, bar)?))?;
    statistics.write(&Origin::new(&fingerprint, &texts), &args.out)?;
    let coverage = statistics.coverage();
    if args.json {
        println!("{}", serde_json::to_string(&coverage)?);
    } else {
        print!("{}", describe(&coverage));
    }
    Ok(())
}

fn size_or_none(text: &str) -> std::result::Result<u64, String> {
    if text == "none" { Ok(0) } else { size::parse(text) }
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
