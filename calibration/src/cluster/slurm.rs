//! Batch scripts for Slurm and their submission: an array of tasks for each step with parts, each
//! step after the previous one.
//!
//! Scripts are safe to resubmit: a task exits at once if its output exists. Slurm sends SIGTERM
//! before it reclaims a node or when the time limit approaches; the script forwards it, the program
//! exits after the current step with exit code [`STOPPED`], and the task requeues itself and
//! resumes there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ClusterError, STOPPED, Step, Workflow, quoted};

/// Seconds before the time limit at which a task is asked to stop.
const NOTICE: u64 = 300;
/// Minimum time limit of a task, in minutes.
const LEAST_MINUTES: u64 = 30;

/// Options of the scripts.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Partition.
    pub partition: Option<String>,
    /// Account.
    pub account: Option<String>,
    /// Folder on the local disks of the nodes, in which parts are made before they are copied.
    pub scratch: Option<PathBuf>,
    /// Time limit per task, in minutes; from the estimate if `None`.
    pub minutes: Option<u64>,
    /// Memory per task, in bytes; from the estimate if `None`.
    pub memory_bytes: Option<u64>,
}

/// Writes a script for each step to the workflow's folder and returns their paths.
pub fn write(
    workflow: &Workflow,
    steps: &[Step],
    options: &Options,
) -> Result<Vec<PathBuf>, ClusterError> {
    let folder = workflow.prepare()?;
    let mut paths = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        let path = folder.join(format!("{}-{}.sbatch", at + 1, step.name));
        let text = script(workflow, step, options);
        fs::write(&path, text).map_err(|source| ClusterError::Io { path: path.clone(), source })?;
        paths.push(path);
    }
    Ok(paths)
}

/// Returns the script of a step.
pub fn script(workflow: &Workflow, step: &Step, options: &Options) -> String {
    let folder = workflow.folder();
    let name = step.name;
    let mut text = format!("#!/bin/bash\n# {name}: written by `vaquita cluster slurm`\n");
    let mut ask = |line: String| text.push_str(&format!("#SBATCH --{line}\n"));
    ask(format!("job-name=vaquita-{name}"));
    if let Some(count) = step.tasks {
        ask(format!("array=1-{count}"));
    }
    ask(format!("cpus-per-task={}", workflow.cpus));
    // 25% more than estimated.
    let memory = options.memory_bytes.unwrap_or(step.resources.memory_bytes / 4 * 5);
    ask(format!("mem={}M", memory.div_ceil(1 << 20)));
    // Three times the estimate: a task that needs more stops, is requeued and resumes.
    let minutes = (step.resources.seconds * 3).div_ceil(60).max(LEAST_MINUTES);
    ask(format!("time={}", options.minutes.unwrap_or(minutes)));
    ask(format!("signal=B:TERM@{NOTICE}"));
    ask("requeue".into());
    ask("open-mode=append".into());
    let log = if step.tasks.is_some() { format!("{name}-%a.log") } else { format!("{name}.log") };
    ask(format!("output=\"{}/logs/{log}\"", folder.display()));
    for (option, value) in [("partition", &options.partition), ("account", &options.account)] {
        if let Some(value) = value {
            ask(format!("{option}={value}"));
        }
    }
    text.push_str(&format!("set -u\n\nvaquita={}\n", quoted(&workflow.program)));
    let job = if step.tasks.is_some() {
        text.push_str("task=$SLURM_ARRAY_TASK_ID\n");
        "${SLURM_ARRAY_JOB_ID}_$task"
    } else {
        "$SLURM_JOB_ID"
    };
    text.push_str(&format!("out={}\n", step.output));
    text.push_str(&format!(
        r#"[ ! -e "$out" ] || exit 0 # an earlier run made it

# Runs the step in the background, so that SIGTERM can be passed on, and sets its exit code: {STOPPED} if it was stopped.
make() {{ # FILE
    status={STOPPED}
    [ -z "$stopped" ] || return
    "$vaquita" {} --threads {} -o "$1" &
    child=$!
    wait "$child"
    status=$?
    [ -z "$stopped" ] || {{ wait "$child" && status=0 || status={STOPPED}; }}
    child=
}}
stopped= child=
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child"' TERM

"#,
        step.arguments, workflow.cpus
    ));
    match &options.scratch {
        Some(scratch) if step.tasks.is_some() => {
            text.push_str(&on_scratch(workflow, step, scratch))
        }
        _ => text.push_str("make \"$out\"\n"),
    }
    text.push_str(&format!(
        r#"
# Stopped after a step: another turn goes on from there.
if [ "$status" = {STOPPED} ]; then
    scontrol requeue "{job}"
    exit {STOPPED}
fi
"#
    ));
    if name == "join" {
        let folder = quoted(&folder.to_string_lossy());
        text.push_str(&format!("[ \"$status\" != 0 ] || rm -f {folder}/*.part\n"));
    }
    text.push_str("exit \"$status\"\n");
    text
}

/// Script that makes a part on the node's local disk and copies it. If that fails, for example on a
/// full disk, it makes the part in place.
fn on_scratch(workflow: &Workflow, step: &Step, scratch: &Path) -> String {
    let id = crc32fast::hash(workflow.out.to_string_lossy().as_bytes());
    let work = quoted(&scratch.join(format!("vaquita-{id:08x}-{}", step.name)).to_string_lossy());
    format!(
        r#"# On the node's own disk, which keeps what another turn on this node can go on from, and is cleaned otherwise.
work={work}-"$task"
status=1
mkdir -p "$work" && make "$work/part"
if [ "$status" = 0 ]; then
    cp "$work/part" "$out.copy" && mv "$out.copy" "$out"
    status=$?
fi
[ "$status" = {STOPPED} ] || rm -rf "$work"
if [ "$status" != 0 ] && [ "$status" != {STOPPED} ]; then
    echo "not on $work, then: once more in $(dirname "$out")" >&2
    rm -f "$out.copy"
    make "$out"
fi
"#
    )
}

/// Submits all steps with missing outputs, each after the previous one, and only those tasks of an
/// array whose outputs are missing. Returns the job ids.
pub fn submit(
    workflow: &Workflow,
    steps: &[Step],
    scripts: &[PathBuf],
) -> Result<Vec<String>, ClusterError> {
    let mut jobs: Vec<String> = Vec::new();
    if workflow.out.exists() {
        return Ok(jobs);
    }
    for (step, script) in steps.iter().zip(scripts) {
        let missing = missing(workflow, step);
        // Parts that were merged or joined may have been deleted.
        let later = match step.name {
            "calibrate" => workflow.calibration().is_some_and(|file| file.exists()),
            _ => false,
        };
        if missing.is_empty() || later {
            continue;
        }
        let mut command = Command::new("sbatch");
        command.arg("--parsable").arg("--kill-on-invalid-dep=yes");
        if step.tasks.is_some() {
            let tasks: Vec<String> = missing.iter().map(usize::to_string).collect();
            command.arg(format!("--array={}", tasks.join(",")));
        }
        if let Some(before) = jobs.last() {
            command.arg(format!("--dependency=afterok:{before}"));
        }
        let said = run(command.arg(script))?;
        let number = said.trim().split(';').next().unwrap_or_default();
        jobs.push(number.to_string());
    }
    let note = workflow.folder().join("jobs");
    let io = |source| ClusterError::Io { path: note.clone(), source };
    fs::write(&note, jobs.join("\n")).map_err(io)?;
    Ok(jobs)
}

/// Numbers of a step's tasks with missing outputs, from 1.
pub(super) fn missing(workflow: &Workflow, step: &Step) -> Vec<usize> {
    let outputs = workflow.outputs(step);
    (1..=outputs.len()).filter(|task| !outputs[task - 1].exists()).collect()
}

/// Jobs of earlier submissions of this workflow that Slurm still knows.
pub fn earlier(workflow: &Workflow) -> Result<Vec<String>, ClusterError> {
    let note = workflow.folder().join("jobs");
    let Ok(text) = fs::read_to_string(&note) else { return Ok(Vec::new()) };
    let jobs: Vec<String> = text.lines().map(String::from).collect();
    match jobs.is_empty() || waiting(&jobs)? == 0 {
        true => Ok(Vec::new()),
        false => Ok(jobs),
    }
}

/// Number of tasks of the given jobs that are pending or running.
pub fn waiting(jobs: &[String]) -> Result<usize, ClusterError> {
    let mut tasks = 0;
    for job in jobs {
        let mut command = Command::new("squeue");
        match run(command.args(["--noheader", "--array", "--format=%i", "--jobs", job])) {
            Ok(said) => tasks += said.lines().filter(|line| !line.trim().is_empty()).count(),
            // Slurm forgets jobs a few minutes after they end.
            Err(ClusterError::Scheduler { message, .. }) if message.contains("Invalid job id") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(tasks)
}

fn run(command: &mut Command) -> Result<String, ClusterError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |message: String| ClusterError::Scheduler { command: name.clone(), message };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().into())),
    }
}
