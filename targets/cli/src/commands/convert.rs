//! `vaquita convert`: rearranges a GGUF file from llama.cpp's layout to the expert-major one.

use std::io::{self, Write};
use std::path::PathBuf;

use vaquita_hub::Purpose;
use vaquita_quantize::convert;
use vaquita_runtime::blocks::BlockType;

use super::quantize::{DenseArgs, Request, Types, describe, expert_type, make};
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::hub::Fetch;
use crate::model_argument::ModelArgument;
use crate::slips;

/// Arguments of `convert`.
#[derive(clap::Args)]
#[command(mut_arg("model", |model| model.help("GGUF file, the first file of a split model, or hf:ORG/MODEL of the hub")))]
pub struct Args {
    #[command(flatten)]
    source: ModelArgument,
    #[command(flatten)]
    fetch: Fetch,
    /// Output file
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Requantize the routed experts to this type [default: keep all weights as they are]
    #[arg(long = "type", value_name = "TYPE", value_parser = expert_type)]
    ty: Option<BlockType>,
    #[command(flatten)]
    dense: DenseArgs,
    /// Leave out layers that only draft tokens (MTP); answers do not need them
    #[arg(long)]
    no_mtp: bool,
    /// Replace the output file even if it was made from something else
    #[arg(long)]
    force: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    if args.ty.is_none() && args.dense.is_given() {
        let message = "--dense-type and --output-type go with --type; without it no weight changes";
        return Err(Failure::Usage(message.into()));
    }
    let source = args.fetch.local(&args.source.path()?, Purpose::Run)?;
    slips::check_model(&source)?;
    convert::check(&source, args.ty.is_none())?;
    compute.install()?;
    let types = match args.ty {
        Some(ty) => Types::Uniform(ty, args.dense.beside(ty)),
        None => Types::AsStored,
    };
    let request = Request::new(&source, &args.out, types);
    let report = make(compute, &request.without_mtp(args.no_mtp).forced(args.force))?;
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(io::stdout(), "{}", describe(&args.out, &report))?;
    }
    Ok(())
}
