//! `vaquita cluster`: calibrates and quantizes through a cluster's own scheduler.

mod kubernetes;
mod slurm;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use vaquita_calibration::cluster::estimate::{self, Amounts};
use vaquita_calibration::cluster::{Estimate, Step, Weighing, Workflow};
use vaquita_runtime::blocks::BlockType;

use super::calibrate::{Collected, DEFAULT_PRODUCTS};
use super::quantize::{DenseArgs, PlanKind, TargetArgs, check_types, expert_type};
use crate::failure::{Failure, Result};
use crate::model_argument::ModelArgument;
use crate::size;
use crate::terminal::table;

/// Bytes of text per token, approximately.
const BYTES_PER_TOKEN: u64 = 3;

/// Arguments of `cluster`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    scheduler: Scheduler,
}

#[derive(Subcommand)]
enum Scheduler {
    /// Write batch scripts for Slurm, submit them, follow them
    #[command(subcommand)]
    Slurm(slurm::Work),
    /// Write manifests for Kubernetes
    #[command(subcommand)]
    Kubernetes(kubernetes::Work),
}

/// Model, quantization options and number of tasks. All nodes see the model's folder and the output's.
#[derive(clap::Args)]
struct Quantize {
    #[command(flatten)]
    model: ModelArgument,
    /// The file to write; all nodes must see it and the model; parts, scripts and logs go to a folder beside it
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Parts, each a task of its own
    #[arg(long, value_name = "N")]
    tasks: usize,
    /// Cores of a task
    #[arg(long, value_name = "N", default_value = "8")]
    cpus: usize,
    /// Type of the routed experts [default: e4]
    #[arg(long = "type", value_name = "TYPE", value_parser = expert_type)]
    ty: Option<BlockType>,
    /// How types are chosen; each task measures a mixed plan again
    #[arg(long, value_name = "PLAN", default_value = "uniform")]
    plan: PlanKind,
    #[command(flatten)]
    dense: DenseArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// What `calibrate` found, to weigh errors by
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Calibrate on these texts first, in as many tasks: JSON lines with `text`, or plain text
    #[arg(long, value_name = "TEXT", conflicts_with = "calibration")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    collected: Collected,
    /// Memory of a task [default: by the model's shape]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    task_memory: Option<u64>,
    /// The program as tasks start it [default: this one; `vaquita` in a container]
    #[arg(long, value_name = "FILE")]
    program: Option<String>,
}

impl Quantize {
    fn workflow(&self, program: String) -> Result<Workflow> {
        check_types(self.plan, self.ty, &self.dense, &self.target)?;
        if self.plan == PlanKind::Frequency
            && self.calibration.is_none()
            && self.calibrate.is_none()
        {
            return Err(Failure::Usage(
                "--plan frequency needs --calibration or --calibrate".into(),
            ));
        }
        if self.calibrate.is_none() && self.collected.is_given() {
            return Err(Failure::Usage("--products and --limit are for --calibrate".into()));
        }
        let mut options = Vec::new();
        if let Some(ty) = self.ty {
            options.extend(["--type".into(), ty.name().into()]);
        }
        let plan = clap::ValueEnum::to_possible_value(&self.plan);
        if let Some(plan) = plan.filter(|_| self.plan != PlanKind::Uniform) {
            options.extend(["--plan".into(), plan.get_name().into()]);
        }
        options.extend(self.dense.words());
        options.extend(self.target.words());
        let weighing = match (&self.calibration, &self.calibrate) {
            (Some(file), _) => Weighing::File(absolute(file)?),
            (_, Some(text)) => Weighing::Text(absolute(text)?, self.collected.words()),
            _ => Weighing::None,
        };
        let (model, out) = (absolute(&self.model.clone().path()?)?, absolute(&self.out)?);
        let (tasks, cpus) = (self.tasks, self.cpus.max(1));
        let program = self.program.clone().unwrap_or(program);
        let workflow = Workflow { program, model, out, tasks, cpus, options, weighing };
        workflow.check()?;
        Ok(workflow)
    }

    fn steps(&self, workflow: &Workflow) -> Result<Vec<Step>> {
        let config = estimate::config(&workflow.model)?;
        let tokens = self.calibrate.as_deref().map_or(0, bytes_of) / BYTES_PER_TOKEN;
        let products = match workflow.weighing {
            Weighing::None => 0,
            _ => self.collected.products.unwrap_or(DEFAULT_PRODUCTS),
        };
        let model_bytes = bytes_of(&workflow.model);
        let (tasks, cpus) = (workflow.tasks, workflow.cpus);
        let amounts = Amounts { model_bytes, tokens, products, tasks, cpus };
        Ok(workflow.steps(&Estimate::new(&config, &amounts)))
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}

/// Bytes of a file, or of the weights in a folder; 0 if they are not on this machine.
fn bytes_of(path: &Path) -> u64 {
    let of = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    if !path.is_dir() {
        return of(path);
    }
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    let files = files.map(|file| file.path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
        .map(|path| of(&path))
        .sum()
}

/// The steps as a table.
fn describe(workflow: &Workflow, steps: &[Step]) -> String {
    let head = ["step", "tasks", "cores", "memory", "hours", "reads", "writes"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(steps.iter().map(|step| {
        let of = &step.resources;
        vec![
            step.name.into(),
            step.tasks.unwrap_or(1).to_string(),
            workflow.cpus.to_string(),
            size::show(of.memory_bytes),
            format!("{:.1}", of.seconds as f64 / 3600.0),
            size::show(of.read_bytes),
            size::show(of.written_bytes),
        ]
    }));
    table(&rows)
}

/// Runs the command.
pub fn run(args: Args) -> Result {
    match args.scheduler {
        Scheduler::Slurm(slurm::Work::Quantize(args)) => slurm::run(&args),
        Scheduler::Kubernetes(kubernetes::Work::Quantize(args)) => kubernetes::run(&args),
    }
}
