//! `vaquita eval`: the keys that scripts read.

use std::fs;

use crate::program::{failure, golden, json, reference, success, vaquita};

#[test]
fn evaluations_have_the_keys_that_scripts_read() {
    let text = reference().join("heldout.jsonl");
    let limit = ["--limit", "3", "--json"];
    let perplexity =
        json(vaquita(["eval", "perplexity"]).arg(reference()).arg("--text").arg(&text).args(limit));
    assert!(perplexity["perplexity"].as_f64().unwrap() > 1.0);
    assert!(perplexity["tokens"].as_u64().unwrap() > 50);

    let mut compare = vaquita(["eval", "kld"]);
    compare.arg(reference()).arg("--reference").arg(reference()).arg("--text").arg(&text);
    let same = json(compare.args(limit));
    for (key, value) in [
        ("mean_kld", 0.0),
        ("p99_kld", 0.0),
        ("same_top", 1.0),
        ("ppl_ratio", 1.0),
        ("ppl_ratio_se", 0.0),
    ] {
        assert_eq!(same[key], value, "{key}");
    }

    let questions = reference().join("eval.jsonl");
    let grades = json(
        vaquita(["eval", "tasks"]).arg(reference()).arg("--questions").arg(questions).args(limit),
    );
    assert!((0.0..=1.0).contains(&grades["accuracy"].as_f64().unwrap()));
    let asked: u64 =
        grades["tasks"].as_object().unwrap().values().map(|task| task[1].as_u64().unwrap()).sum();
    assert_eq!(asked, 3);
}

#[test]
fn a_reference_is_written_once_and_compared_with_without_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("texts.ref");
    let text = reference().join("heldout.jsonl");
    let mut command = vaquita(["eval", "reference", "--limit", "3", "--json"]);
    let written = json(command.arg(reference()).arg("-o").arg(&file).arg("--text").arg(&text));
    assert_eq!(written["bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(written["documents"], 3);

    let compare = || {
        let mut command = vaquita(["eval", "kld", "--json"]);
        command.arg(reference()).arg("--reference").arg(&file);
        command
    };
    let found = json(&mut compare());
    assert_eq!(found["tokens"], written["tokens"]);
    assert!(found["mean_kld"].as_f64().unwrap() < 1e-6, "{found}");
    let error = failure(compare().arg("--text").arg(&text), 2);
    assert!(error.contains("leave out --text"), "{error}");
    fs::write(&file, &fs::read(&file).unwrap()[..5000]).unwrap();
    let error = failure(&mut compare(), 1);
    assert!(error.contains("texts.ref: the file is damaged"), "{error}");
}

#[test]
fn logits_are_written_as_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, chunk: &str| {
        let out = folder.path().join(name);
        let mut command = vaquita(["eval", "logits", "--tokens", "0,17,42", "--chunk", chunk]);
        success(command.arg(golden("deepseek-v3")).arg("-o").arg(&out));
        fs::read(out).unwrap()
    };
    let bytes = write("a.safetensors", "3");
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let logits = file.tensor("logits").unwrap();
    assert_eq!(logits.dtype(), safetensors::Dtype::F32);
    assert_eq!(logits.shape(), [3, 320]);
    assert_eq!(bytes, write("b.safetensors", "1"));
    let outside = vaquita(["eval", "logits", "--tokens", "320", "-o", "/tmp/never"])
        .arg(golden("deepseek-v3"))
        .output()
        .unwrap();
    assert_eq!(outside.status.code(), Some(1));
}

#[test]
fn protocols_have_the_keys_that_scripts_read() {
    let questions = |name: &str| golden("protocol").join(format!("{name}.jsonl"));
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("answers.jsonl");
    let run = |name: &str| {
        let mut command = vaquita(["eval", "protocol", name, "--limit", "2", "--json"]);
        command.arg(reference()).arg("--questions").arg(questions(name));
        command
    };
    let aime = || {
        let mut command = run("aime");
        command.args(["--prompt", "{question}", "--temp", "0"]).arg("--answers").arg(&kept);
        command
    };
    let found = json(aime().args(["--samples", "2"]));
    assert_eq!((&found["protocol"], &found["samples"]), (&"aime".into(), &2.into()));
    assert_eq!(found["pass_at_1"]["mean"], 0.0);
    assert_eq!(found["flexible"]["mean"], 1.0);
    assert_eq!(found["flexible"]["se"], 0.0);
    // More samples of the same run, but not of another.
    assert_eq!(json(aime().args(["--samples", "3"]))["without_answer"], 6);
    assert_eq!(fs::read_to_string(&kept).unwrap().lines().count(), 1 + 2 * 3);
    let error = failure(aime().args(["--seed", "1"]), 1);
    assert!(error.contains("another run"), "{error}");

    let scored = json(&mut run("mmlu"));
    assert!(scored["accuracy"]["mean"].is_number() && scored["questions"] == 2);
    let mut other = vaquita(["eval", "protocol", "math"]);
    let error = failure(other.arg(reference()).arg("--questions").arg(questions("alpaca")), 1);
    assert!(error.contains("`problem`"), "{error}");
}

#[test]
fn outputs_are_written_for_a_judge_whose_verdicts_become_rates() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("outputs.json");
    let mut command = vaquita(["eval", "protocol", "alpaca", "--limit", "1", "--json", "-n", "20"]);
    command.arg(reference()).arg("--questions").arg(golden("protocol").join("alpaca.jsonl"));
    assert_eq!(json(command.arg("-o").arg(&out))["cut"], 1);
    let outputs: serde_json::Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(outputs[0]["generator"], "reference");
    assert!(outputs[0]["output"].is_string() && outputs[0]["instruction"].is_string());

    let verdicts = golden("protocol").join("verdicts.json");
    let rates =
        json(vaquita(["eval", "protocol", "alpaca", "--json", "--verdicts"]).arg(&verdicts));
    assert!((rates["length_controlled"]["mean"].as_f64().unwrap() - 0.655).abs() < 0.001);
    failure(
        vaquita(["eval", "protocol", "alpaca", "--verdicts"]).arg(&verdicts).arg("-o").arg(&out),
        2,
    );
}
