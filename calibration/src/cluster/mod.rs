//! Calibration and quantization on a cluster with an existing scheduler: an array of tasks for the
//! parts, then a task that merges or joins them.
//!
//! A [`Workflow`] describes the output; [`steps`](Workflow::steps) lists its commands, which are
//! the same for every scheduler. [`slurm`] writes them as batch scripts and [`kubernetes`] as
//! manifests. [`estimate`] computes the resources of tasks, and [`follow`] their progress.

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
use vaquita_runtime::bytes::file::reason;
use vaquita_runtime::checkpoint::families::ConfigError;
use vaquita_runtime::checkpoint::gguf_weights::OpenError;
use vaquita_runtime::model::ModelError;

pub use estimate::{Estimate, Resources};

/// Exit code of a run that was stopped after a step and resumes when it is started again:
/// `EX_TEMPFAIL`.
pub const STOPPED: u8 = 75;
/// Maximum number of tasks of an array.
pub const MAX_TASKS: usize = 1024;

/// Error of preparing or running a workflow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A file cannot be read or written.
    #[error("{path}: {}", reason(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The configuration of the model is not supported.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: ConfigError,
    },
    /// A file is not the expected JSON.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: serde_json::Error,
    },
    /// The model is a GGUF file that cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The model is not supported.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The number of tasks is zero or too large.
    #[error("{found} tasks; allowed: 1 to {MAX_TASKS}")]
    Tasks {
        /// The requested number.
        found: usize,
    },
    /// A path that cannot be used in scripts.
    #[error(
        "{path:?} is not UTF-8, or has a line break, a quotation mark, a backslash or a percent sign; choose another path"
    )]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A path outside the volume, which is all that pods can access.
    #[error(
        "{path} is not below {mount}, where pods have the volume; name paths as they are there"
    )]
    OutsideVolume {
        /// The path.
        path: PathBuf,
        /// Mount point of the volume.
        mount: PathBuf,
    },
    /// The folder of parts contains parts of other work.
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
        /// Error output of the command.
        message: String,
    },
    /// Tasks ended without their outputs.
    #[error(
        "no task is left, and these ended without their output: {lost}; see {logs}; the same command runs them alone again"
    )]
    Lost {
        /// Names of the steps and numbers of the tasks.
        lost: String,
        /// Folder of the logs.
        logs: PathBuf,
    },
}

/// Source of the error weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weighing {
    /// No weights.
    None,
    /// An existing calibration file.
    File(PathBuf),
    /// A calibration that is made first, from texts and options of `calibrate`.
    Text(PathBuf, Vec<String>),
}

/// Work to be done on a cluster. Paths are absolute and the same on every machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workflow {
    /// Program, as tasks start it.
    pub program: String,
    /// Model to quantize.
    pub model: PathBuf,
    /// Output file.
    pub out: PathBuf,
    /// Number of parts, each of which is a task.
    pub tasks: usize,
    /// Cores per task.
    pub cpus: usize,
    /// Options of `quantize`.
    pub options: Vec<String>,
    /// Source of the error weights.
    pub weighing: Weighing,
}

/// A step: a job or an array of tasks that runs after the previous step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Name of the step.
    pub name: &'static str,
    /// Number of tasks in the array; `None` for a single job.
    pub tasks: Option<usize>,
    /// Output file of a task, as quoted shell text in which `$task` is the number of the task.
    pub output: String,
    /// Arguments without `-o` and the output, as quoted shell text.
    pub arguments: String,
    /// Resources of a task.
    pub resources: Resources,
}

impl Workflow {
    /// Refuses workflows that schedulers cannot run.
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

    /// Folder of parts, scripts and logs, next to the output.
    pub fn folder(&self) -> PathBuf {
        let name = self.out.file_name().unwrap_or_default().to_string_lossy();
        self.out.with_file_name(format!("{name}.parts"))
    }

    /// Calibration file that the workflow makes; `None` if it makes none.
    pub fn calibration(&self) -> Option<PathBuf> {
        matches!(self.weighing, Weighing::Text(..)).then(|| self.folder().join("c.calibration"))
    }

    /// Part that a task of an array makes.
    pub fn part(&self, step: &str, task: usize) -> PathBuf {
        self.folder().join(format!("{step}-{task}-of-{}.part", self.tasks))
    }

    /// Outputs of all tasks of a step.
    pub fn outputs(&self, step: &Step) -> Vec<PathBuf> {
        match step.name {
            "merge" => self.calibration().into_iter().collect(),
            "join" => vec![self.out.clone()],
            name => (1..=self.tasks).map(|task| self.part(name, task)).collect(),
        }
    }

    /// The steps, each of which depends on the previous one.
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

    /// Creates the folder of parts and records the workflow in it. Refuses a folder with parts of
    /// other work.
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
                // The same work may continue with another build of the program or on more cores.
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

/// Quotes options, with a space before each.
fn words(options: &[String]) -> String {
    options.iter().map(|option| format!(" {}", quoted(option))).collect()
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+:,@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
