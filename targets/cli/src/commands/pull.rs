//! `vaquita pull`: fetches a model of the hub.

use std::io::{self, Write};

use serde::Serialize;
use vaquita_hub::{Hub, ModelName, Purpose, choose};

use crate::failure::Result;
use crate::hub::{describe, fetch};

/// Arguments of `pull`.
#[derive(clap::Args)]
pub struct Args {
    /// ORG/MODEL[@REVISION][:FILE or quantization], such as org/Model-GGUF:Q4_K_M. Without a
    /// quantization: the only GGUF file or one of about 4 bits per weight, and if there is none,
    /// the checkpoint for `quantize` (:safetensors names it)
    #[arg(value_parser = ModelName::parse)]
    model: ModelName,
    /// Print a JSON object instead of the path
    #[arg(long)]
    json: bool,
}

/// Report of the fetched files. The keys are a stable interface.
#[derive(Serialize)]
struct Pulled {
    /// Path to open.
    path: String,
    commit: String,
    license: Option<String>,
    bytes: u64,
    /// Bytes that were not in the cache before.
    fetched_bytes: u64,
}

/// Runs the command.
pub fn run(args: Args) -> Result {
    let hub = Hub::from_env()?;
    let listing = hub.listing(&args.model)?;
    let choice = choose(&listing, &args.model, Purpose::Run)?;
    eprintln!("{}", describe(&listing, &choice));
    let fetched_bytes = hub.missing_bytes(&listing, &choice);
    let path = fetch(&hub, &args.model, &listing, &choice)?.display().to_string();
    if !args.json {
        return Ok(writeln!(io::stdout(), "{path}")?);
    }
    let (bytes, license) = (choice.bytes(), listing.license);
    let pulled = Pulled { path, commit: listing.commit, license, bytes, fetched_bytes };
    Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&pulled)?)?)
}
