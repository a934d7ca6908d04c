//! Progress of a workflow, from the parts that exist and the journals of those in progress.

use std::path::Path;
use std::thread;
use std::time::Duration;

use vaquita_quantize::journal;

use super::{ClusterError, Step, Workflow, slurm};

/// Units of progress per task.
const WHOLE: u64 = 1000;
/// Number of consecutive polls without a task or an output after which the work counts as lost.
/// File systems and schedulers show changes at different times.
const LOOKS: usize = 3;
/// Number of polls for which the last task may go on after the output file exists. A node that does
/// not answer keeps its task in the queue.
const LAST_LOOKS: usize = 30;

/// Progress of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Name of the step.
    pub step: &'static str,
    /// Completed work, in thousandths of a task.
    pub done: u64,
    /// Total work of the step, in thousandths of a task.
    pub total: u64,
}

/// Progress of the first step with missing outputs; `None` if the output file exists.
pub fn progress(workflow: &Workflow, steps: &[Step]) -> Option<Progress> {
    if workflow.out.exists() {
        return None;
    }
    let merged = workflow.calibration().is_some_and(|file| file.exists());
    let step = steps
        .iter()
        .filter(|step| !(merged && step.name == "calibrate"))
        .find(|step| workflow.outputs(step).iter().any(|output| !output.exists()))?;
    let outputs = workflow.outputs(step);
    let done = outputs.iter().map(|output| of_task(output)).sum();
    Some(Progress { step: step.name, done, total: WHOLE * outputs.len() as u64 })
}

fn of_task(output: &Path) -> u64 {
    if output.exists() {
        return WHOLE;
    }
    match journal::progress(output) {
        Some((done, total)) if total > 0 => WHOLE * done.min(total) as u64 / total as u64,
        _ => 0,
    }
}

/// Waits for the output file and for the end of Slurm's tasks: the last one removes the parts when
/// the file exists. Fails if Slurm has no tasks and the file does not exist.
pub fn slurm(
    workflow: &Workflow,
    steps: &[Step],
    jobs: &[String],
    pause: Duration,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<(), ClusterError> {
    let mut looks = 0;
    while let Some(progress) = progress(workflow, steps) {
        on_progress(progress);
        looks = if slurm::waiting(jobs)? > 0 { 0 } else { looks + 1 };
        if looks == LOOKS {
            return Err(lost(workflow, steps, progress.step));
        }
        thread::sleep(pause);
    }
    let mut looks = 0;
    while looks < LAST_LOOKS && slurm::waiting(jobs)? > 0 {
        thread::sleep(pause);
        looks += 1;
    }
    Ok(())
}

fn lost(workflow: &Workflow, steps: &[Step], name: &str) -> ClusterError {
    let step = steps.iter().find(|step| step.name == name);
    let tasks = step.map(|step| slurm::missing(workflow, step)).unwrap_or_default();
    let tasks: Vec<String> = tasks.iter().map(usize::to_string).collect();
    let array = step.is_some_and(|step| step.tasks.is_some());
    let lost = if array { format!("{name} {}", tasks.join(", ")) } else { name.into() };
    ClusterError::Lost { lost, logs: workflow.folder().join("logs") }
}
