//! `vaquita completions`: completion scripts, made from the definition of the command line.

use std::io::{self, Write};

use clap_complete::{Shell, generate};

use crate::failure::Result;

/// Arguments of `completions`.
#[derive(clap::Args)]
pub struct Args {
    /// Shell to complete in
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Runs the command.
pub fn run(mut program: clap::Command, args: Args) -> Result {
    // Through memory: the generators panic where a write fails.
    let mut script = Vec::new();
    generate(args.shell, &mut program, "vaquita", &mut script);
    Ok(io::stdout().write_all(&script)?)
}
