//! Calibrating and quantizing on a cluster whose scheduler is there already: parts as an array of tasks, then a task
//! that merges or joins them.
//!
//! A [`Workflow`] says what is to be made; [`steps`](Workflow::steps) are its commands, the same for every scheduler.
//! [`slurm`] writes them as batch scripts and [`kubernetes`] as manifests. [`estimate`] says what tasks need, and
//! [`follow`] how far they are.

pub mod estimate;
pub mod follow;
pub mod kubernetes;
pub mod slurm;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vaquita_runtime::checkpoint::families::ConfigError;
use vaquita_runtime::checkpoint::gguf_weights::OpenError;
use vaquita_runtime::model::ModelError;

pub use estimate::{Estimate, Resources};

/// Exit code of work that was stopped after a step and goes on when it is run again: `EX_TEMPFAIL`.
pub const STOPPED: u8 = 75;
/// Tasks of an array, at the most.
pub const MAX_TASKS: usize = 1024;

/// Why there is no workflow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The model's configuration.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A file is not the JSON it should be.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The model is a GGUF file that does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The model does not run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Too many tasks, or none.
    #[error("{found} tasks; allowed: 1 to {MAX_TASKS}")]
    Tasks {
        /// What was asked for.
        found: usize,
    },
    /// A path that scripts cannot have.
    #[error(
        "{path:?} is not UTF-8, or has a line break, a quotation mark, a backslash or a percent sign; choose another path"
    )]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// Pods see only their volume.
    #[error(
        "{path} is not below {mount}, where pods have the volume; name paths as they are there"
    )]
    OutsideVolume {
        /// The path.
        path: PathBuf,
        /// Where the volume is.
        mount: PathBuf,
    },
    /// The folder of parts has those of other work.
    #[error(
        "{folder} has parts of other work (other options, texts or tasks); remove it, or choose another output file"
    )]
    OtherWork {
        /// The folder.
        folder: PathBuf,
    },
    /// A command of the scheduler failed.
    #[error("`{command}` failed: {message}")]
    Scheduler {
        /// The command.
        command: String,
        /// What it said.
        message: String,
    },
    /// Tasks ended without their output.
    #[error(
        "no task is left, and these ended without their output: {lost}; see {logs}; the same command runs them alone again"
    )]
    Lost {
        /// Steps and numbers.
        lost: String,
        /// Where the logs are.
        logs: PathBuf,
    },
}

/// What errors are weighed by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weighing {
    /// Nothing.
    None,
    /// A calibration file that is there.
    File(PathBuf),
    /// A calibration that is made first: texts, and options of `calibrate`.
    Text(PathBuf, Vec<String>),
}

/// What is to be made on a cluster. Paths are absolute, and the same on every machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workflow {
    /// The program, as tasks start it.
    pub program: String,
    /// The model to quantize.
    pub model: PathBuf,
    /// The file to make.
    pub out: PathBuf,
    /// Parts, each a task.
    pub tasks: usize,
    /// Cores of a task.
    pub cpus: usize,
    /// Options of `quantize`.
    pub options: Vec<String>,
    /// What errors are weighed by.
    pub weighing: Weighing,
}

/// A step: a job, or an array of them, that follows the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// Tasks of the array; `None` where it is one job.
    pub tasks: Option<usize>,
    /// The file that a task makes, where `$task` is its number: text of a shell, quoted.
    pub output: String,
    /// The arguments without `-o` and the output: text of a shell, quoted.
    pub arguments: String,
    /// What a task needs.
    pub resources: Resources,
}

impl Workflow {
    /// Refuses what schedulers cannot run.
    pub fn check(&self) -> Result<(), ClusterError> {
        if !(1..=MAX_TASKS).contains(&self.tasks) {
            return Err(ClusterError::Tasks { found: self.tasks });
        }
        let mut paths = vec![&self.model, &self.out];
        match &self.weighing {
            Weighing::None => {}
            Weighing::File(path) | Weighing::Text(path, _) => paths.push(path),
        }
        let fits = |path: &Path| {
            path.to_str().is_some_and(|text| !text.contains(['\n', '\r', '"', '\\', '%']))
        };
        match paths.into_iter().find(|path| !fits(path)) {
            Some(path) => Err(ClusterError::Path { path: path.clone() }),
            None => Ok(()),
        }
    }

    /// The folder of parts, scripts and logs, beside the output.
    pub fn folder(&self) -> PathBuf {
        let name = self.out.file_name().unwrap_or_default().to_string_lossy();
        self.out.with_file_name(format!("{name}.parts"))
    }

    /// The calibration file that is made; `None` where none is.
    pub fn calibration(&self) -> Option<PathBuf> {
        matches!(self.weighing, Weighing::Text(..)).then(|| self.folder().join("c.calibration"))
    }

    /// The part that a task of an array makes.
    pub fn part(&self, step: &str, task: usize) -> PathBuf {
        self.folder().join(format!("{step}-{task}-of-{}.part", self.tasks))
    }

    /// What every step makes.
    pub fn outputs(&self, step: &Step) -> Vec<PathBuf> {
        match step.name {
            "merge" => self.calibration().into_iter().collect(),
            "join" => vec![self.out.clone()],
            name => (1..=self.tasks).map(|task| self.part(name, task)).collect(),
        }
    }

    /// The steps, in the order in which each needs the one before.
    pub fn steps(&self, estimate: &Estimate) -> Vec<Step> {
        let folder = quoted(&self.folder().to_string_lossy());
        let count = self.tasks;
        let parts = |step: &str| format!("{folder}/{step}-{{1..{count}}}-of-{count}.part");
        let model = quoted(&self.model.to_string_lossy());
        let array = |name: &'static str, arguments: String, resources: &Resources| Step {
            name,
            tasks: Some(count),
            output: format!("{folder}/{name}-\"$task\"-of-{count}.part"),
            arguments: format!("{arguments} --part \"$task\"/{count}"),
            resources: resources.clone(),
        };
        let mut steps = Vec::new();
        let mut weighing = String::new();
        match &self.weighing {
            Weighing::None => {}
            Weighing::File(path) => {
                weighing = format!(" --calibration {}", quoted(&path.to_string_lossy()));
            }
            Weighing::Text(text, options) => {
                let text = quoted(&text.to_string_lossy());
                let arguments = format!("calibrate {model} --text {text}{}", words(options));
                steps.push(array("calibrate", arguments, &estimate.calibrate));
                steps.push(Step {
                    name: "merge",
                    tasks: None,
                    output: format!("{folder}/c.calibration"),
                    arguments: format!("calibrate merge {}", parts("calibrate")),
                    resources: estimate.merge.clone(),
                });
                weighing = format!(" --calibration {folder}/c.calibration");
            }
        }
        let arguments = format!("quantize {model}{weighing}{}", words(&self.options));
        steps.push(array("quantize", arguments, &estimate.quantize));
        steps.push(Step {
            name: "join",
            tasks: None,
            output: quoted(&self.out.to_string_lossy()),
            arguments: format!("join {}", parts("quantize")),
            resources: estimate.join.clone(),
        });
        steps
    }

    /// Makes the folder of parts and notes in it what they are of; refuses one with parts of other work.
    pub fn prepare(&self) -> Result<PathBuf, ClusterError> {
        self.check()?;
        let folder = self.folder();
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ClusterError::Io { path, source }
        };
        let logs = folder.join("logs");
        fs::create_dir_all(&logs).map_err(io(&logs))?;
        let note = folder.join("workflow.json");
        if note.exists() {
            let text = fs::read(&note).map_err(io(&note))?;
            let found: Option<Self> = serde_json::from_slice(&text).ok();
            let same = found.is_some_and(|found| {
                // The same work by another build of the program, or on more cores, goes on.
                Self { program: self.program.clone(), cpus: self.cpus, ..found } == *self
            });
            if !same {
                return Err(ClusterError::OtherWork { folder });
            }
        }
        let text = serde_json::to_vec_pretty(self);
        let text = text.map_err(|source| ClusterError::Json { path: note.clone(), source })?;
        fs::write(&note, text).map_err(io(&note))?;
        Ok(folder)
    }
}

/// Options, quoted, each after a space.
fn words(options: &[String]) -> String {
    options.iter().map(|option| format!(" {}", quoted(option))).collect()
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+:,@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
