//! Manifests for Kubernetes: a volume claim, and for each step a Job, indexed where it has parts. Kubernetes has no
//! order of jobs, so an init container of each looks for the outputs of the step before. Where they are not there yet,
//! the pod ends, which counts as no failure, and another follows later: a pod that waited would keep from the step
//! before what it needs.
//!
//! SIGTERM reaches the program, which ends after its step; the pod that follows goes on from there, since the volume has
//! what was done.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{ClusterError, STOPPED, Step, Weighing, Workflow};

/// Seconds that a pod gets to finish its step.
const GRACE: u64 = 300;
/// Failures of one task before the job fails.
const RETRIES: u64 = 4;

/// What to ask Kubernetes for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The container image.
    pub image: String,
    /// The claim of the volume.
    pub claim: String,
    /// Where pods have the volume; all paths lie below.
    pub mount: PathBuf,
    /// Bytes of a claim that is to be made; it is there already without.
    pub storage: Option<u64>,
    /// Memory for each task; from the estimate without.
    pub memory_bytes: Option<u64>,
}

/// All manifests, as one YAML stream.
pub fn manifests(
    workflow: &Workflow,
    steps: &[Step],
    options: &Options,
) -> Result<String, ClusterError> {
    workflow.check()?;
    let mut paths = vec![&workflow.model, &workflow.out];
    if let Weighing::File(path) | Weighing::Text(path, _) = &workflow.weighing {
        paths.push(path);
    }
    if let Some(path) = paths.into_iter().find(|path| !path.starts_with(&options.mount)) {
        let (path, mount) = (path.clone(), options.mount.clone());
        return Err(ClusterError::OutsideVolume { path, mount });
    }
    let mut all = vec![String::from(
        "# Written by `vaquita cluster kubernetes`: kubectl apply -f FILE; the steps wait for each other.\n",
    )];
    all.extend(options.storage.map(|bytes| claim(&options.claim, bytes)));
    let mut before: Vec<PathBuf> = Vec::new();
    for step in steps {
        all.push(job(workflow, step, &before, options));
        before = workflow.outputs(step);
    }
    Ok(all.join("---\n"))
}

fn claim(name: &str, bytes: u64) -> String {
    format!(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {}
spec:
  # Pods on several nodes write to it.
  accessModes: [ReadWriteMany]
  resources:
    requests:
      storage: {}Mi
",
        yaml(name),
        bytes.div_ceil(1 << 20)
    )
}

fn job(workflow: &Workflow, step: &Step, before: &[PathBuf], options: &Options) -> String {
    // Names of jobs tell files apart, so that two can be made at the same time.
    let id = crc32fast::hash(workflow.out.to_string_lossy().as_bytes());
    let name = format!("vaquita-{}-{id:08x}", step.name);
    let memory = options.memory_bytes.unwrap_or(step.resources.memory_bytes / 4 * 5);
    let (completions, retries) = match step.tasks {
        Some(tasks) => (
            format!("  completionMode: Indexed\n  completions: {tasks}\n  parallelism: {tasks}\n"),
            format!("  backoffLimitPerIndex: {RETRIES}\n"),
        ),
        None => (String::new(), format!("  backoffLimit: {RETRIES}\n")),
    };
    let folder = workflow.folder();
    let wait = wait(&folder, before);
    let run = command(workflow, step);
    let mount = yaml(&options.mount.to_string_lossy());
    format!(
        "apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
  labels: {{app: vaquita, step: {}}}
spec:
{completions}{retries}  # A pod that came too early or was stopped after a step (exit code {STOPPED}), or lost its node, has not failed.
  podFailurePolicy:
    rules:
    - action: Ignore
      onExitCodes: {{operator: In, values: [{STOPPED}]}}
    - action: Ignore
      onPodConditions:
      - {{type: DisruptionTarget, status: \"True\"}}
  template:
    metadata:
      labels: {{app: vaquita, step: {}}}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: {GRACE}
      initContainers:
      - name: wait
        image: {}
        command: [bash, -c, {}]
        resources:
          requests: {{cpu: 100m, memory: 64Mi}}
          limits: {{memory: 64Mi}}
        volumeMounts: &mounts
        - {{name: data, mountPath: {mount}}}
      containers:
      - name: vaquita
        image: {}
        command: [bash, -c, {}]
        resources:
          requests: {{cpu: {}, memory: {}Mi}}
          limits: {{memory: {}Mi}}
        volumeMounts: *mounts
      volumes:
      - name: data
        persistentVolumeClaim: {{claimName: {}}}
",
        step.name,
        step.name,
        yaml(&options.image),
        yaml(&wait),
        yaml(&options.image),
        yaml(&run),
        workflow.cpus,
        memory.div_ceil(1 << 20),
        memory.div_ceil(1 << 20),
        yaml(&options.claim),
    )
}

/// The init step: makes the folder and looks for what the step before makes.
fn wait(folder: &Path, before: &[PathBuf]) -> String {
    let quoted = |path: &Path| super::quoted(&path.to_string_lossy());
    let mut script = format!("mkdir -p {}\n", quoted(folder));
    if !before.is_empty() {
        let files: Vec<String> = before.iter().map(|path| quoted(path)).collect();
        let files = files.join(" ");
        script.push_str(&format!(
            "for file in {files}; do\n  [ -e \"$file\" ] || exit {STOPPED}\ndone\n"
        ));
    }
    script
}

/// The step's command. `exec` makes it the container's process, which SIGTERM reaches.
fn command(workflow: &Workflow, step: &Step) -> String {
    let mut script = String::new();
    if step.tasks.is_some() {
        script.push_str("task=$((JOB_COMPLETION_INDEX + 1))\n");
    }
    script.push_str(&format!(
        "out={}\n[ ! -e \"$out\" ] || exit 0 # an earlier pod made it\nexec {} --threads {} {} -o \"$out\"\n",
        step.output,
        super::quoted(&workflow.program),
        workflow.cpus,
        step.arguments
    ));
    script
}

/// A text as YAML takes it on one line: as JSON.
fn yaml(text: &str) -> String {
    json!(text).to_string()
}
