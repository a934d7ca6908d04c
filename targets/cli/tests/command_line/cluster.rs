//! `cluster slurm` against a Slurm of three shell scripts that runs tasks at once: `.ci/slurm` has a real one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::program::{reference, success, vaquita};

/// What `quantize` is to make of the reference model.
const OPTIONS: [&str; 6] = ["--type", "e2", "--limit", "8", "--products", "16MiB"];

/// `sbatch` runs all tasks of a script, one after the other, and notes which; `squeue` has as many
/// lines as the file `queue`, and takes one off.
struct Slurm {
    folder: tempfile::TempDir,
}

impl Slurm {
    fn new() -> Self {
        let slurm = Self { folder: tempfile::tempdir().unwrap() };
        let bin = slurm.path("bin");
        fs::create_dir(&bin).unwrap();
        let log = slurm.path("submitted");
        let sbatch = format!(
            r#"#!/bin/bash
script=${{!#}}
array=0
for word in "$@"; do case $word in --array=*) array=${{word#--array=}} ;; esac; done
echo "$(basename "$script") $array" >>{log}
for SLURM_ARRAY_TASK_ID in ${{array//,/ }}; do
    export SLURM_ARRAY_TASK_ID SLURM_ARRAY_JOB_ID=7 SLURM_JOB_ID=7
    bash "$script" >>{log}.output 2>&1
    [ $? != 75 ] || bash "$script" >>{log}.output 2>&1
done
wc -l <{log}
"#,
            log = log.display()
        );
        let queue = slurm.path("queue");
        let queue = queue.display();
        let squeue = format!(
            "#!/bin/sh\n[ ! -e {queue} ] || {{ cat {queue}; tail -n +2 {queue} >{queue}.next; mv {queue}.next {queue}; }}\n"
        );
        let scripts = [("sbatch", &*sbatch), ("squeue", &squeue), ("scontrol", "#!/bin/sh\n")];
        for (name, text) in scripts {
            fs::write(bin.join(name), text).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        slurm
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `cluster slurm quantize` over four tasks.
    fn command(&self, out: &str) -> Command {
        let mut command = vaquita(["cluster", "slurm", "quantize", "--tasks", "4", "--cpus", "1"]);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.args(OPTIONS).arg("--calibrate").arg(reference().join("calibration.jsonl"));
        command.arg(reference()).arg("-o").arg(self.path(out));
        command
    }

    fn submitted(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("submitted")).unwrap_or_default();
        text.lines().map(String::from).collect()
    }
}

/// The same by one process.
fn undivided(folder: &Path) -> Vec<u8> {
    let [calibration, out] = ["whole.calibration", "whole.gguf"].map(|name| folder.join(name));
    let mut calibrate = vaquita(["calibrate"]);
    calibrate.args(&OPTIONS[2..]).arg(reference()).arg("-o").arg(&calibration);
    success(calibrate.arg("--text").arg(reference().join("calibration.jsonl")));
    let mut quantize = vaquita(["quantize"]);
    quantize.args(&OPTIONS[..2]).arg(reference()).arg("-o").arg(&out);
    success(quantize.arg("--calibration").arg(&calibration));
    fs::read(out).unwrap()
}

#[test]
fn parts_made_by_scripts_are_the_undivided_file_and_lost_ones_alone_are_made_again() {
    let slurm = Slurm::new();
    let text = success(&mut slurm.command("model.gguf"));
    assert!(text.contains("quantize") && text.contains("--submit submits them"), "{text}");
    assert!(slurm.submitted().is_empty());

    success(slurm.command("model.gguf").arg("--submit"));
    let steps = ["1-calibrate.sbatch 1,2,3,4", "2-merge.sbatch 0"];
    let later = ["3-quantize.sbatch 1,2,3,4", "4-join.sbatch 0"];
    assert_eq!(slurm.submitted(), [steps, later].concat());
    let whole = undivided(slurm.folder.path());
    assert!(fs::read(slurm.path("model.gguf")).unwrap() == whole);
    let parts = slurm.path("model.gguf.parts");
    let is_part = |path: &Path| path.extension().is_some_and(|end| end == "part");
    let left =
        fs::read_dir(&parts).unwrap().filter(|entry| is_part(&entry.as_ref().unwrap().path()));
    assert_eq!(left.count(), 0, "joined parts are gone");

    // Nothing is left to do; then all from the calibration on.
    success(slurm.command("model.gguf").arg("--submit"));
    assert_eq!(slurm.submitted().len(), 4);
    fs::remove_file(slurm.path("model.gguf")).unwrap();
    fs::create_dir(parts.join("quantize-3-of-4.part")).unwrap(); // in the way, so that joining fails
    let failed = slurm.command("model.gguf").arg("--submit").output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    let error = String::from_utf8_lossy(&failed.stderr);
    assert!(error.contains("ended without their output: join"), "{error}");
    assert_eq!(slurm.submitted()[4..], ["3-quantize.sbatch 1,2,4", "4-join.sbatch 0"]);
    fs::remove_dir(parts.join("quantize-3-of-4.part")).unwrap();
    success(slurm.command("model.gguf").arg("--submit"));
    assert_eq!(slurm.submitted()[6..], ["3-quantize.sbatch 3", "4-join.sbatch 0"]);
    assert!(fs::read(slurm.path("model.gguf")).unwrap() == whole);

    let other = slurm.command("model.gguf").args(["--trunk", "e8"]).output().unwrap();
    let error = String::from_utf8_lossy(&other.stderr);
    assert!(error.contains("parts of other work"), "{error}");
}

#[test]
fn a_submission_is_followed_until_its_last_task_ends() {
    let slurm = Slurm::new();
    let queue = slurm.path("queue");
    // The model exists as soon as it is submitted: these tasks outlive it.
    fs::write(&queue, "8_1\n8_2\n").unwrap();
    success(slurm.command("model.gguf").arg("--submit"));
    assert_eq!(fs::read_to_string(&queue).unwrap(), "");
}

#[test]
fn manifests_are_written_to_standard_output() {
    let kubernetes = |out: &str| {
        let first = ["cluster", "kubernetes", "quantize", "--tasks", "3", "--storage", "1GiB"];
        let mut command = vaquita(first);
        command.arg("--mount").arg(reference().parent().unwrap());
        command.arg("-m").arg(reference()).arg("-o").arg(out);
        command
    };
    let out = reference().with_file_name("model.gguf");
    let text = success(&mut kubernetes(out.to_str().unwrap()));
    assert_eq!(text.matches("\nkind: Job\n").count(), 2);
    assert!(text.contains("storage: 1024Mi") && text.contains("completions: 3"), "{text}");
    assert!(!out.with_file_name("model.gguf.parts").exists(), "nothing is made here");
    let output = kubernetes("/elsewhere/model.gguf").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("/elsewhere/model.gguf is not below"), "{error}");
}

#[test]
fn sigterm_ends_a_step_and_the_same_command_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let command = |out: &str| {
        let mut command = vaquita(["calibrate"]);
        command.args(["--threads", "1", "--limit", "150", "--products", "none"]);
        command.args(["--part", "1/2"]).arg(reference()).arg("-o").arg(path(out));
        command.arg("--text").arg(reference().join("calibration.jsonl"));
        command
    };
    success(&mut command("undisturbed.part"));
    let mut child = command("a.part").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let journal = path(".a.part.journal");
    while fs::read_to_string(&journal).unwrap_or_default().is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
    // A scheduler may signal the program as well as its script, which passes the signal on.
    for _ in 0..2 {
        success(Command::new("kill").args(["-TERM", &child.id().to_string()]));
    }
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{error}");
    assert!(error.contains("stopped after a layer"), "{error}");
    success(&mut command("a.part"));
    assert!(fs::read(path("a.part")).unwrap() == fs::read(path("undisturbed.part")).unwrap());
}

#[test]
fn parts_of_a_calibration_are_merged_by_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let calibrate = |out: &str, more: &[&str]| {
        let mut command = vaquita(["calibrate"]);
        command.args(&OPTIONS[2..]).args(more);
        command.arg("--text").arg(reference().join("calibration.jsonl"));
        success(command.arg(reference()).arg("-o").arg(path(out)))
    };
    let whole = calibrate("whole.calibration", &["--json"]);
    calibrate("1.part", &["--part", "1/2"]);
    calibrate("2.part", &["--part", "2/2"]);
    let mut merge = vaquita(["calibrate", "merge", "--json"]);
    merge.arg(path("2.part")).arg(path("1.part"));
    let merged = success(merge.arg("-o").arg(path("a.calibration")));
    assert_eq!(merged, whole);
    assert!(
        fs::read(path("a.calibration")).unwrap() == fs::read(path("whole.calibration")).unwrap()
    );
    let output = vaquita(["calibrate"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
