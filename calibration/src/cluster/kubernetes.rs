//! Manifests for Kubernetes: a volume claim, and a Job for each step, indexed if the step has
//! parts. Kubernetes does not order jobs, so each Job has an init container that checks for the
//! outputs of the previous step. If they do not exist yet, the pod exits, which does not count as a
//! failure, and is replaced later: a pod that waited would hold resources that the previous step
//! needs.
//!
//! SIGTERM reaches the program, which exits after the current step. The next pod resumes there,
//! since completed work is on the volume.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{ClusterError, STOPPED, Step, Weighing, Workflow};

/// Seconds that a pod has to finish its step after SIGTERM.
const GRACE: u64 = 300;
/// Number of failures of one task after which the job fails.
const RETRIES: u64 = 4;

/// Options of the manifests.
#[derive(Clone, Debug)]
pub struct Options {
    /// Container image.
    pub image: String,
    /// Name of the volume claim.
    pub claim: String,
    /// Mount point of the volume in pods; all paths are below it.
    pub mount: PathBuf,
    /// Size of the claim to create, in bytes; `None` if the claim exists.
    pub storage: Option<u64>,
    /// Memory per task, in bytes; from the estimate if `None`.
    pub memory_bytes: Option<u64>,
}

/// Returns all manifests as one YAML stream.
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
    // Job names identify the output file, so that two files can be made at the same time.
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

/// Script of the init container: creates the folder and checks for the outputs of the previous
/// step.
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

/// Command of the step. `exec` makes it the main process of the container, which receives SIGTERM.
fn command(workflow: &Workflow, step: &Step) -> String {
    let mut script = String::new();
    if step.tasks.is_some() {
        script.push_str("task=$((JOB_COMPLETION_INDEX + 1))\n");
    }
    script.push_str(&format!(
        "out={}\n[ ! -e \"$out\" ] || exit 0 # an earlier pod made it\nexec {} {} --threads {} -o \"$out\"\n",
        step.output,
        super::quoted(&workflow.program),
        step.arguments,
        workflow.cpus
    ));
    script
}

/// Encodes a string as a one-line YAML scalar, in JSON syntax.
fn yaml(text: &str) -> String {
    json!(text).to_string()
}
