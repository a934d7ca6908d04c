//! Numbers that no machine has a use for, and a control group with little memory.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::program::{failure, json, output, quantize, reference, success, vaquita};

#[test]
fn absurd_numbers_are_refused_with_a_sentence() {
    let refused = |options: &[&str]| {
        let mut command = vaquita(["run", "-p", "2+2?", "-n", "1"]);
        failure(command.args(options).arg(reference()), 2)
    };
    let error = refused(&["--threads", "100000"]);
    assert!(error.contains("100000 threads are not possible; this machine takes up to"), "{error}");
    assert!(refused(&["--lanes", "1000"]).contains("allowed: 1 to 64"));
    assert!(refused(&["--context", "1000000000"]).contains("this model takes up to"));
    let mut plan = vaquita(["plan", "--steps", "1000000000"]);
    assert!(failure(plan.arg(reference()), 2).contains("allowed: 1 to 1000"));
}

/// A control group of version 1 below this process's own, removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` where there is no such hierarchy, or it cannot be written.
    fn new(name: &str, bytes: u64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.split_once(":memory:"))?.1;
        let parent = PathBuf::from("/sys/fs/cgroup/memory").join(own.trim_start_matches('/'));
        let folder = parent.join(format!("vaquita-{name}-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let group = Self(folder);
        fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        Some(group)
    }

    /// The same command, which joins the group before it begins.
    fn within(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]).arg(&self.0);
        shell.arg(command.get_program()).args(command.get_args().collect::<Vec<&OsStr>>());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        shell
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_small_control_group_is_not_exceeded() {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    success(&mut quantize(&reference(), &file));
    for limit in [20 * MIB, 34 * MIB, 48 * MIB, 64 * MIB] {
        let Some(group) = Cgroup::new(&format!("limit-{limit}"), limit) else {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("skipped: no control group of version 1 can be made here\n"),
            );
            return;
        };
        if limit == 64 * MIB {
            let found = json(&mut group.within(&vaquita(["doctor", "--no-storage", "--json"])));
            assert_eq!(found["memory_limit_bytes"], limit);
        }
        let mut run = vaquita(["run", "-p", "2+2?", "-n", "8", "--memory", "auto", "--json"]);
        run.args(["--context", "128", "--cache", "q8"]).arg(&file);
        let found = output(&mut group.within(&run));
        let error = String::from_utf8_lossy(&found.stderr).into_owned();
        // It runs, or says that this is too little; it is not killed.
        match found.status.code() {
            Some(0) => {}
            Some(1) => assert!(error.contains("are too few"), "{limit}: {error}"),
            other => panic!("{limit}: {other:?}: {error}"),
        }
    }
}
