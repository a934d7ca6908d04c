//! `vaquita convert`.

use std::fs;
use std::path::Path;

use crate::program::{exported, failure, golden, json, success, vaquita};

#[test]
fn a_file_is_converted_without_changing_a_weight_or_requantized() {
    let folder = tempfile::tempdir().unwrap();
    let stacked = exported("qwen3-moe", folder.path());
    let made = folder.path().join("made.gguf");
    let convert = |options: &[&str]| {
        let mut command = vaquita(["convert"]);
        command.arg(&stacked).arg("-o").arg(&made).args(options);
        command
    };
    let report = json(convert(&[]).arg("--json"));
    assert_eq!(report["plan"], "as stored");
    assert!(report["layers"].as_array().unwrap().iter().all(|layer| layer["other_error"] == 0.0));
    let logits = |file: &Path| {
        let out = folder.path().join("logits.safetensors");
        success(vaquita(["eval", "logits", "--tokens", "1,2,3,4,5"]).arg(file).arg("-o").arg(&out));
        fs::read(out).unwrap()
    };
    assert!(logits(&made) == logits(&stacked));
    let found = json(vaquita(["inspect", "--json"]).arg(&made));
    // It has no tokenizer, as its source has none; logits do not need one.
    assert_eq!((&found["runs"], &found["name"]), (&false.into(), &"qwen3-moe".into()));
    assert!(found["problem"].as_str().unwrap().contains("tokenizer"), "{found}");

    let report = json(convert(&["--type", "e4", "--json"]).env("VAQUITA_ISA", "scalar"));
    assert_eq!(report["plan"], "e4");
    // `--trunk` is the former name of `--dense-type`.
    let error = failure(&mut convert(&["--trunk", "e8"]), 2);
    assert!(error.contains("go with --type"), "{error}");
    let error = failure(vaquita(["convert"]).arg(golden("qwen3-moe")).arg("-o").arg(&made), 1);
    assert!(error.contains("vaquita quantize"), "{error}");
    let output = vaquita(["convert"]).arg(&stacked).arg("-o").arg(&stacked).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("no tokenizer") && error.contains("part of the source"), "{error}");
}
