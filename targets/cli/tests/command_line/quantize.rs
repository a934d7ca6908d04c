//! `vaquita quantize`, `plan` and `calibrate`.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::program::{
    copy, failure, golden, is_empty, json, quantize, reference, success, vaquita,
};

#[test]
fn a_checkpoint_becomes_a_file_that_answers_and_can_be_looked_into() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reference.gguf");
    let report = json(quantize(&reference(), &file).arg("--json"));
    assert_eq!(report["file_bytes"], fs::metadata(&file).unwrap().len());

    let found = json(vaquita(["inspect", "--json"]).arg(&file));
    for key in ["file_bytes", "parameters", "bits_per_weight", "expert_bits_per_weight"] {
        assert_eq!(found[key], report[key], "{key}");
    }
    assert_eq!(found["architecture"], "deepseek2");
    assert_eq!(found["runs"], true);
    assert_eq!(found["shape"]["experts"], 32);
    assert_eq!(found["expert_types"]["e4"], 384);

    let ask = ["run", "-p", "723 * 8 = ?", "--temp", "0", "--json"];
    let answer = json(vaquita(ask).arg(&file));
    assert_eq!(answer["text"], "5784");
    assert!(answer["reasoning"].as_str().unwrap().starts_with("3*8=24, write 4 carry 2."));
    assert_eq!(answer["stop"], "end_of_sentence");
    assert!(answer["tokens"].as_u64().unwrap() > 10);
    assert!(answer["peak_rss_bytes"].as_u64().is_none_or(|bytes| bytes > 1 << 20));
    // Energy is measured or null, never 0.
    assert!(answer["energy_joules"].as_f64().is_none_or(|joules| joules > 0.0));
}

#[test]
fn a_calibration_says_what_experts_saw_and_brings_the_file_closer() {
    let folder = tempfile::tempdir().unwrap();
    let [calibration, plain, weighted] =
        ["a.calibration", "plain.gguf", "weighted.gguf"].map(|name| folder.path().join(name));
    let mut calibrate = vaquita(["calibrate", "--limit", "100", "--json", "--threads", "1"]);
    calibrate.arg(reference()).arg("-o").arg(&calibration);
    let coverage = json(calibrate.arg("--text").arg(reference().join("calibration.jsonl")));
    assert_eq!(coverage["layers"].as_array().unwrap().len(), 3);
    assert!(coverage["layers"][0]["most"].as_u64().unwrap() > 100, "{coverage}");

    success(quantize(&reference(), &plain).args(["--type", "e2"]));
    let with = |source: &Path| {
        let mut command = quantize(source, &weighted);
        command.args(["--type", "e2", "--calibration"]).arg(&calibration);
        command
    };
    success(&mut with(&reference()));
    let divergence = |file: &Path| {
        let mut command = vaquita(["eval", "kld", "--limit", "20", "--json", "--reference"]);
        let text = reference().join("heldout.jsonl");
        let found = json(command.arg(reference()).arg(file).arg("--text").arg(text));
        found["mean_kld"].as_f64().unwrap()
    };
    assert!(divergence(&weighted) < divergence(&plain));
    // Another model's statistics are of no use.
    let error = failure(&mut with(&golden("deepseek-v3")), 1);
    assert!(error.contains("another model"), "{error}");
    fs::write(&calibration, "GGUF").unwrap();
    let error = failure(&mut with(&reference()), 1);
    assert!(error.contains("not a whole calibration file"), "{error}");
}

#[test]
fn an_unknown_architecture_is_told_which_work() {
    let folder = copy("deepseek-v3");
    let config = folder.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("deepseek_v3", "mamba9")).unwrap();
    let error = failure(&mut quantize(folder.path(), &folder.path().join("out.gguf")), 1);
    for word in ["mamba9", "deepseek_v2", "deepseek_v3"] {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_damaged_checkpoint_is_an_error_and_leaves_no_file() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("out.gguf");

    let truncated = copy("deepseek-v3");
    let weights = truncated.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let error = failure(&mut quantize(truncated.path(), &file), 1);
    assert!(error.contains("model.safetensors is not a whole safetensors file"), "{error}");

    fs::remove_file(&weights).unwrap();
    let error = failure(&mut quantize(truncated.path(), &file), 1);
    assert!(error.contains("model.safetensors"), "{error}");

    let index = r#"{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}"#;
    fs::write(truncated.path().join("model.safetensors.index.json"), index).unwrap();
    let error = failure(&mut quantize(truncated.path(), &file), 1);
    assert!(error.contains("model-00001-of-00002.safetensors is missing"), "{error}");

    let misshapen = copy("deepseek-v3");
    let config = misshapen.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"vocab_size\": 320", "\"vocab_size\": 321")).unwrap();
    let error = failure(&mut quantize(misshapen.path(), &file), 1);
    assert!(error.contains("321") && error.contains("320"), "{error}");

    assert!(is_empty(out.path()));
}

#[test]
fn a_plan_can_be_seen_without_quantizing() {
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("map.svg");
    let mut command = vaquita(["plan", "--steps", "3", "--json", "--target-bpw", "3.5", "--map"]);
    let curve = json(command.arg(&map).arg(reference()));
    assert_eq!(curve["curve"].as_array().unwrap().len(), 3);
    assert!(fs::read_to_string(&map).unwrap().contains("layer 3"));
    failure(vaquita(["plan", "--map", "x.svg"]).arg(reference()), 2);
}

#[test]
fn a_killed_quantizer_goes_on_and_the_file_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, out] = ["whole.gguf", "model.gguf"].map(|name| folder.path().join(name));
    let start = std::time::Instant::now();
    json(quantize(&reference(), &whole).args(["--type", "e2", "--json", "--threads", "1"]));
    let undisturbed = start.elapsed();

    // Every run of this test kills at other moments.
    let random = std::hash::RandomState::new();
    for kill in 0..10 {
        let hash = std::hash::BuildHasher::hash_one(&random, kill);
        let part = hash as f64 / u64::MAX as f64;
        let mut command = quantize(&reference(), &out);
        command.args(["--type", "e2", "--threads", "1"]).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(undisturbed.mul_f64(part));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            assert!(fs::read(&whole).unwrap() == fs::read(&out).unwrap(), "after {kill} kills");
            fs::remove_file(&out).unwrap();
        }
    }
    let report = json(quantize(&reference(), &out).args(["--type", "e2", "--json"]));
    assert!(report["resumed_parameters"].is_u64(), "{report}");
    assert!(fs::read(&whole).unwrap() == fs::read(&out).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_place_that_takes_no_file_is_an_error() {
    let missing = Path::new("/nowhere/at/all/out.gguf");
    let error = failure(&mut quantize(&reference(), missing), 1);
    assert!(error.contains("/nowhere/at/all/out.gguf"), "{error}");
}
