//! `vaquita cluster slurm`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use vaquita_calibration::cluster::follow;
use vaquita_calibration::cluster::slurm::{Options, earlier, submit, write};

use super::{Quantize, describe};
use crate::failure::{Failure, Result};
use crate::terminal::Bar;

/// Interval between two inspections of journals and queue.
const PAUSE: Duration = Duration::from_secs(2);

/// Subcommands.
#[derive(Subcommand)]
pub enum Work {
    /// Quantize a model in parts, calibrating it first with --calibrate
    Quantize(Args),
}

/// Arguments of `cluster slurm quantize`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    quantize: Quantize,
    /// Partition of the tasks
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// Account of the tasks
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Make parts in this folder on the nodes' own disks, and copy them when they are whole
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
    /// Minutes of a task [default: three times the estimate, 30 at least; one that needs more goes on in another turn]
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// Submit the scripts, those of lost tasks alone where others are done, and follow them to the end
    #[arg(long)]
    submit: bool,
    /// Do not wait for the end
    #[arg(long, requires = "submit")]
    detach: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result {
    let program = std::env::current_exe()?;
    let program = program.to_str().ok_or_else(|| {
        Failure::Error("the program's path is no text; name it with --program".into())
    })?;
    let workflow = args.quantize.workflow(program.into())?;
    let steps = args.quantize.steps(&workflow)?;
    let options = Options {
        partition: args.partition.clone(),
        account: args.account.clone(),
        scratch: args.scratch.as_deref().map(super::absolute).transpose()?,
        minutes: args.minutes,
        memory_bytes: args.quantize.task_memory,
    };
    let scripts = write(&workflow, &steps, &options)?;
    let mut out = io::stdout();
    write!(out, "{}", describe(&workflow, &steps))?;
    let folder = workflow.folder();
    if !args.submit {
        let folder = folder.display();
        writeln!(out, "scripts: {folder}/*.sbatch; the same command with --submit submits them")?;
        return Ok(());
    }
    let mut jobs = earlier(&workflow)?;
    if jobs.is_empty() {
        jobs = submit(&workflow, &steps, &scripts)?;
    }
    writeln!(out, "jobs: {}", jobs.join(", "))?;
    if args.detach {
        return Ok(());
    }
    let mut bar: Option<(&str, Bar)> = None;
    follow::slurm(&workflow, &steps, &jobs, PAUSE, &mut |progress| {
        if bar.as_ref().is_none_or(|(step, _)| *step != progress.step) {
            bar = Some((progress.step, Bar::new(progress.step)));
        }
        if let Some((_, bar)) = &mut bar {
            bar.set(progress.done, progress.total);
        }
    })?;
    drop(bar);
    writeln!(out, "{} is there", workflow.out.display())?;
    Ok(())
}
