//! `vaquita verify`: reads a whole file and compares it with its checksums.

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;
use vaquita_runtime::app::judge;
use vaquita_runtime::checkpoint::whole::Whole;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::tokenizer::Tokenizer;

use crate::failure::{Failure, Result};
use crate::model_argument::ModelArgument;
use crate::size;
use crate::terminal::Bar;

/// Most names of damaged tensors in a message.
const NAMES: usize = 5;

/// Arguments of `verify`.
#[derive(clap::Args)]
#[command(mut_arg("model", |model| model.help("GGUF file")))]
pub struct Args {
    #[command(flatten)]
    model: ModelArgument,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result {
    let path = &args.model.path()?;
    if path.is_dir() {
        let message = "folders have no checksums; `vaquita inspect` says whether one is whole";
        return Err(Failure::Error(format!("{}: {message}", path.display())));
    }
    let weights = GgufWeights::open(path, Verify::First)?;
    let total = weights.gguf().tensors().iter().map(|info| info.len).sum();
    let (mut bar, mut done) = (Bar::new("reading"), 0);
    let whole = weights.read_whole(&mut |bytes| {
        done += bytes;
        bar.set(done, total);
    });
    drop(bar);
    if !whole.damaged.is_empty() {
        return Err(Failure::Error(damage(path, &whole)));
    }
    let judged = judge(&weights, Tokenizer::from_metadata(weights.gguf().metadata()));
    let problem = judged.err().map(|error| error.to_string());
    if args.json {
        let found = json!({
            "tensors": whole.tensors,
            "bytes": whole.bytes,
            "header_verified": whole.header,
            "tensors_verified": whole.verified,
            "runs": problem.is_none(),
            "problem": problem,
        });
        writeln!(io::stdout(), "{found}")?;
    } else {
        writeln!(io::stdout(), "{}", describe(path, &whole, problem.as_deref()))?;
    }
    Ok(())
}

fn damage(path: &Path, whole: &Whole) -> String {
    let count = whole.damaged.len();
    let names = whole.damaged[..count.min(NAMES)].join(", ");
    let more = if count > NAMES { format!(" and {} more", count - NAMES) } else { String::new() };
    let of = whole.tensors;
    let path = path.display();
    format!("{path}: {count} of {of} tensors are damaged: {names}{more}; copy or quantize it again")
}

fn describe(path: &Path, whole: &Whole, problem: Option<&str>) -> String {
    let (path, tensors, bytes) = (path.display(), whole.tensors, size::show(whole.bytes));
    let matches = match (whole.header, whole.verified) {
        (true, 1..) => format!("header and {tensors} tensors ({bytes}) match their checksums"),
        (false, 1..) => format!(
            "{tensors} tensors ({bytes}) match their checksums; the header has none (an older file)"
        ),
        _ => format!(
            "{tensors} tensors ({bytes}) can be read; the file has no checksums, so damage within \
             weights cannot be told"
        ),
    };
    let runs = match problem {
        None => "the model runs".into(),
        Some(problem) => format!("the model does not run: {problem}"),
    };
    // Names come from the file.
    let text = format!("{path}: {matches}; {runs}");
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
