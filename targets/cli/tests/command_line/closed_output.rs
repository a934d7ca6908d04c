//! A reader of the output may leave early, as `head` does. That is not an error.

use std::process::{Command, Stdio};

use crate::program::{output, reference, vaquita};

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_error() {
    let binary = env!("CARGO_BIN_EXE_vaquita");
    let script = format!("'{binary}' inspect --tensors '{}' | head -n 1", reference().display());
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let model = reference();
    for args in [&["inspect", "--tensors"][..], &["inspect", "--json"], &["plan", "--json"]] {
        // `true` has ended, or ends, without reading.
        let mut reader = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let pipe = reader.stdin.take().unwrap();
        reader.wait().unwrap();
        let output = output(vaquita(args).arg(&model).stdout(pipe));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        assert!(!error.contains("panicked"), "{args:?}: {error}");
    }
}
