//! Whoever reads the output may leave early, as `head` does: that is no error, and nothing to panic about.

use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let model = root.join("calibration/reference");
    for args in [&["inspect", "--tensors"][..], &["inspect", "--json"], &["plan", "--json"]] {
        // `true` has ended, or ends, without reading.
        let mut reader = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let pipe = reader.stdin.take().unwrap();
        reader.wait().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vaquita"));
        command.args(args).arg(&model).stdin(Stdio::null()).stdout(pipe);
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        assert!(!error.contains("panicked"), "{args:?}: {error}");
    }
}
