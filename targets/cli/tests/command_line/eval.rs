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
