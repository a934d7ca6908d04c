//! A disk that takes no file: each command that makes one names the full disk, and advises what
//! helps.

use std::path::Path;
use std::process::Command;

use crate::program::{golden, output, reference, success, vaquita};

/// A file system without room for a single file.
struct FullDisk(tempfile::TempDir);

impl FullDisk {
    fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mut mount = Command::new("mount");
        // The folder itself takes the only entry.
        mount.args(["-t", "tmpfs", "-o", "size=64k,nr_inodes=1", "tmpfs"]).arg(disk.0.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(disk)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_without_room_for_a_file_is_said_to_be_full() {
    let Some(disk) = FullDisk::mount() else {
        vaquita_skips::skipped("this user may not mount a small file system (root may)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (out, stock) = (disk.0.path().join("out"), folder.path().join("stock.gguf"));
    let source = golden("deepseek-v3");
    let quantize = |out: &Path, options: &[&str]| {
        let mut command = vaquita(["quantize", "--type", "e4"]);
        command.args(options).arg(&source).arg("-o").arg(out);
        command
    };
    success(vaquita(["export"]).arg(&source).arg("-o").arg(&stock));
    let parts = ["1/2", "2/2"].map(|part| {
        let path = folder.path().join(format!("part-{}", &part[..1]));
        success(&mut quantize(&path, &["--part", part]));
        path
    });
    let of = |args: &[&str], model: &Path| {
        let mut command = vaquita(args);
        command.arg(model).arg("-o").arg(&out);
        command
    };
    let text = reference().join("heldout.jsonl");
    let text = text.to_str().unwrap();
    let mut join = vaquita(["join"]);
    join.args(&parts).arg("-o").arg(&out);
    let mut trace = vaquita(["run", "-p", "2+2?", "-n", "1", "--trace"]);
    let reference_file = folder.path().join("reference.gguf");
    let mut made = vaquita(["quantize", "--type", "e8"]);
    success(made.arg(reference()).arg("-o").arg(&reference_file));
    trace.arg(&out).arg(&reference_file);
    let mut man = vaquita(["man"]);
    man.arg(disk.0.path());
    for mut command in [
        quantize(&out, &[]),
        quantize(&out, &["--part", "1/2"]),
        of(&["convert"], &stock),
        of(&["export"], &source),
        of(&["eval", "logits", "--tokens", "1,2"], &source),
        of(&["eval", "reference", "--limit", "1", "--text", text], &reference()),
        of(&["calibrate", "--limit", "1"], &reference()),
        join,
        trace,
        man,
    ] {
        // A note may come before the error.
        let output = output(&mut command);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {error}");
        assert!(error.contains("is full"), "{command:?}: {error}");
        assert!(error.contains("another disk") || error.contains("free some"), "{error}");
        assert!(!error.contains("folder that exists"), "{command:?}: {error}");
        assert!(std::fs::read_dir(disk.0.path()).unwrap().next().is_none(), "{command:?}");
    }
}
