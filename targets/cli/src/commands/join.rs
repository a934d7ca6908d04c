//! `vaquita join`: joins the parts of a file.

use std::io::{self, Write};
use std::path::PathBuf;

use vaquita_quantize::join;

use super::quantize::with_bars;
use crate::compute::Compute;
use crate::failure::Result;
use crate::size;

/// Arguments of `join`.
#[derive(clap::Args)]
pub struct Args {
    /// Parts made by `quantize --part`: all of them, in any order
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Output file
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    compute.install()?;
    let file_bytes = with_bars(|progress| join(&args.parts, &args.out, progress))?;
    if args.json {
        writeln!(
            io::stdout(),
            "{}",
            serde_json::json!({ "parts": args.parts.len(), "file_bytes": file_bytes })
        )?;
    } else {
        let (out, parts) = (args.out.display(), args.parts.len());
        writeln!(io::stdout(), "{out}: {}, of {parts} parts", size::show(file_bytes))?;
    }
    Ok(())
}
