//! `vaquita export`: writes a model in the layout of other programs.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;
use vaquita_quantize::export::{Export, TYPES, export};
use vaquita_quantize::{Progress, sources};
use vaquita_runtime::blocks::BlockType;

use super::quantize::{inherited_metadata, note_left_out};
use crate::compute::Compute;
use crate::failure::Result;
use crate::model_argument::ModelArgument;
use crate::terminal::Bar;
use crate::{size, slips};

/// Arguments of `export`.
#[derive(clap::Args)]
#[command(mut_arg("model", |model| model.help("GGUF file or Hugging Face folder")))]
pub struct Args {
    #[command(flatten)]
    model: ModelArgument,
    /// Output file
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Program that will read the file
    #[arg(long = "for", value_name = "PROGRAM", default_value = "llama.cpp")]
    reader: Reader,
    /// Block type of the matrices: f16, bf16, f32, q8_0, q6_k, q4_k or q4_0; the output head beside
    /// four bits is q6_k, as llama.cpp's tools make it
    #[arg(long = "type", value_name = "TYPE", default_value = "f16", value_parser = written_type)]
    ty: BlockType,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Reader {
    /// llama.cpp and programs based on it
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

fn written_type(name: &str) -> std::result::Result<BlockType, String> {
    let found = TYPES.into_iter().find(|ty| ty.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| format!("allowed: {}", TYPES.map(BlockType::name).join(", ")))
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    let Reader::LlamaCpp = args.reader;
    compute.install()?;
    let model = args.model.path()?;
    slips::check_model(&model)?;
    let source = sources::open(&model)?;
    note_left_out(&source);
    let tokenizer = inherited_metadata(&model, &source)?;
    let (weights, identity) = (source.weights.as_ref(), &source.identity);
    let job = Export { weights, identity, tokenizer: &tokenizer, ty: args.ty, out: &args.out };
    let mut bar = Bar::new("exporting");
    let bytes = export(&job, &mut |Progress { done, total, .. }| bar.set(done, total))?;
    drop(bar);
    if args.json {
        writeln!(
            io::stdout(),
            "{}",
            json!({"file": args.out, "bytes": bytes, "type": args.ty.name()})
        )?;
    } else {
        writeln!(
            io::stdout(),
            "{}: {} as {}",
            args.out.display(),
            size::show(bytes),
            args.ty.name()
        )?;
    }
    Ok(())
}
