//! `vaquita deploy`: copies the program and models to a board.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use vaquita_deploy::{Remote, build, quote};

use crate::failure::{Failure, Result};
use crate::size;
use crate::terminal::Bar;

/// Path of the repository that this program was built from.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Arguments of `deploy`.
#[derive(clap::Args)]
pub struct Args {
    /// ssh destination: pi@raspberrypi.local
    host: String,
    /// GGUF files to copy
    #[arg(value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// The same as MODEL; can be repeated
    #[arg(short = 'm', long = "model", value_name = "MODEL")]
    models_by_option: Vec<PathBuf>,
    /// Folder on the board, relative to the home folder
    #[arg(long, value_name = "FOLDER", default_value = "vaquita")]
    to: String,
    /// Program to copy [default: build it]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Repository to build from [default: the one that this program was built from]
    #[arg(long, value_name = "FOLDER", default_value = SOURCE, hide_default_value = true)]
    source: PathBuf,
    /// ssh command, with its options
    #[arg(long, value_name = "COMMAND", default_value = "ssh")]
    ssh: String,
}

/// Runs the command.
pub fn run(args: Args) -> Result {
    let models = [args.models, args.models_by_option].concat();
    let names: Vec<String> = models.iter().map(|model| name(model)).collect::<Result<_>>()?;
    let remote = Remote::new(&args.ssh, &args.host)?;
    let target = remote.target()?;
    let program = match args.binary {
        Some(program) => program,
        None if args.source.join("Cargo.toml").is_file() => build(&args.source, target)?,
        None => {
            let message = format!(
                "{} is not a repository to build from; give --source or --binary",
                args.source.display()
            );
            return Err(Failure::Usage(message));
        }
    };
    let folder = &args.to;
    remote.output(&format!("mkdir -p -- {}", quote(folder)))?;
    copy(&remote, &program, folder, "vaquita")?;
    for (model, name) in models.iter().zip(&names) {
        copy(&remote, model, folder, name)?;
    }
    let doctor = format!("cd -- {} && ./vaquita doctor", quote(folder));
    if names.is_empty() {
        remote.show(&doctor)?;
    }
    for name in &names {
        remote.show(&format!("{doctor} -- {}", quote(&format!("./{name}"))))?;
    }
    Ok(())
}

fn name(model: &Path) -> Result<String> {
    let name = model.file_name().filter(|_| model.is_file()).and_then(|name| name.to_str());
    let name = name.filter(|name| *name != "vaquita").map(String::from);
    name.ok_or_else(|| Failure::Usage(format!("{} is not a model file", model.display())))
}

fn copy(remote: &Remote, from: &Path, folder: &str, name: &str) -> Result {
    let mut bar = Bar::new(name);
    let copied =
        remote.copy(from, &format!("{folder}/{name}"), &mut |done, all| bar.set(done, all))?;
    drop(bar);
    let (kept, sent) = (size::show(copied.kept_bytes), size::show(copied.sent_bytes));
    writeln!(io::stdout(), "{name}: sent {sent}, {kept} were there")?;
    Ok(())
}
