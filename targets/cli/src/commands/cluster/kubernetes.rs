//! `vaquita cluster kubernetes`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;
use vaquita_calibration::cluster::kubernetes::{Options, manifests};

use super::{Quantize, describe};
use crate::failure::Result;
use crate::size;

/// Subcommands.
#[derive(Subcommand)]
pub enum Work {
    /// Quantize a model in parts, calibrating it first with --calibrate
    Quantize(Args),
}

/// Arguments of `cluster kubernetes quantize`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    quantize: Quantize,
    /// Container image with the program
    #[arg(long, value_name = "IMAGE", default_value = "vaquita")]
    image: String,
    /// Claim of the volume that all pods share
    #[arg(long, value_name = "NAME", default_value = "vaquita")]
    claim: String,
    /// Where pods have the volume; model, texts and output are named as they are there. The model's config.json must be
    /// here under that name, too
    #[arg(long, value_name = "FOLDER", default_value = "/data")]
    mount: PathBuf,
    /// Make the claim, of this size
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    storage: Option<u64>,
}

/// Runs the command: prints manifests to stdout and the tasks' resources to stderr.
pub fn run(args: &Args) -> Result {
    let workflow = args.quantize.workflow("vaquita".into())?;
    let steps = args.quantize.steps(&workflow)?;
    let options = Options {
        image: args.image.clone(),
        claim: args.claim.clone(),
        mount: args.mount.clone(),
        storage: args.storage,
        memory_bytes: args.quantize.task_memory,
    };
    write!(io::stdout(), "{}", manifests(&workflow, &steps, &options)?)?;
    eprint!("{}", describe(&workflow, &steps));
    Ok(())
}
