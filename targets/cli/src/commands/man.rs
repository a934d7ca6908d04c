//! `vaquita man`: manual pages, made from the definition of the command line.

use std::io::{self, Write};
use std::path::PathBuf;

use vaquita_runtime::bytes::file::reason;

use crate::failure::{Failure, Result};

/// Arguments of `man`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder for the pages, `vaquita.1` and one for each command
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Runs the command.
pub fn run(program: clap::Command, args: Args) -> Result {
    let folder = args.folder.display();
    let failed = |error: io::Error| Failure::Error(format!("{folder}: {}", reason(&error)));
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(program, &args.folder).map_err(failed)?;
    writeln!(
        io::stdout(),
        "{folder}: manual pages written; read one with `man {folder}/vaquita.1`"
    )?;
    Ok(())
}
