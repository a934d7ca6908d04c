//! The program and the models it is run on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The reference model: a trained checkpoint of 17.5 M parameters.
pub fn reference() -> PathBuf {
    root().join("calibration/reference")
}

/// A checkpoint below `tests/golden`.
pub fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

/// The program with `args`, without the variables that change its defaults.
pub fn vaquita<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(args: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaquita"));
    command.args(args).stdin(Stdio::null());
    for name in ["VAQUITA_ISA", "VAQUITA_MEMORY", "VAQUITA_LANES", "VAQUITA_RECORDING"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command and returns its output, whatever its exit code.
pub fn output(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

/// Standard output of a command that must succeed.
pub fn success(command: &mut Command) -> String {
    let output = output(command);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).expect("output is text")
}

/// The JSON object that a command prints as its only line.
pub fn json(command: &mut Command) -> Value {
    let text = success(command);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("output is JSON")
}

/// Standard error of a command that must fail with exit code `code` and print nothing on standard output. Exit code 1
/// comes with exactly one line.
pub fn failure(command: &mut Command, code: i32) -> String {
    let output = output(command);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {error}");
    assert!(output.stdout.is_empty(), "{command:?}");
    if code == 1 {
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("error: "), "{error}");
    }
    error
}

/// `vaquita quantize SOURCE -o OUT`.
pub fn quantize(source: &Path, out: &Path) -> Command {
    let mut command = vaquita(["quantize"]);
    command.arg(source).arg("-o").arg(out);
    command
}

/// Copies a golden checkpoint into a temporary folder, where a test may damage it.
pub fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

/// Whether a folder holds no entries.
pub fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// Exports a golden checkpoint in llama.cpp's layout with stacked experts.
pub fn exported(name: &str, folder: &Path) -> PathBuf {
    let file = folder.join(format!("{name}.gguf"));
    success(vaquita(["export", "--type", "f16"]).arg(golden(name)).arg("-o").arg(&file));
    file
}
