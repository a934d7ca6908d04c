//! Memory control groups of version 1.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A control group below this process's own, removed when dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` where there is no such hierarchy, or it cannot be written; a line on standard error
    /// says so.
    pub fn new(name: &str) -> Option<Self> {
        let group = Self::create(name);
        if group.is_none() {
            vaquita_skips::skipped(
                "no memory control group of version 1 can be made here (root may, where it is mounted)",
            );
        }
        group
    }

    fn create(name: &str) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.split_once(":memory:"))?.1;
        let parent = PathBuf::from("/sys/fs/cgroup/memory").join(own.trim_start_matches('/'));
        let folder = parent.join(format!("vaquita-{name}-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        Some(Self(folder))
    }

    /// Limits the group's memory; `None` if that is not possible.
    pub fn limited(self, bytes: u64) -> Option<Self> {
        fs::write(self.0.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        Some(self)
    }

    /// The most memory that the group has used, as the kernel counts it.
    pub fn peak(&self) -> u64 {
        let peak = fs::read_to_string(self.0.join("memory.max_usage_in_bytes")).expect("a peak");
        peak.trim().parse().expect("a number")
    }

    /// The same command, which joins the group before it begins.
    pub fn within(&self, command: &Command) -> Command {
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
