//! `vaquita replay` and the traces that `--trace` records.

use std::fs;

use crate::program::{json, quantize, reference, root, success, vaquita};

#[test]
fn policies_are_compared_on_a_trace() {
    let trace = root().join("runtime/tests/traces/qwen.route.csv");
    let rows = json(vaquita(["replay", "--budget", "200MiB", "--json"]).arg(trace));
    let rows = rows.as_array().unwrap();
    let hits = |policy: &str| {
        let row = rows.iter().find(|row| row["policy"] == policy).unwrap();
        row["hit_rate"].as_f64().unwrap()
    };
    assert_eq!(rows.len(), 4);
    assert!(hits("belady") >= hits("reuse") && hits("belady") >= hits("lru"));
}

#[test]
fn a_runs_routing_is_recorded_replayed_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let [file, trace, plot] = ["m.gguf", "m.trace", "m.svg"].map(|name| folder.path().join(name));
    success(&mut quantize(&reference(), &file));
    let ask = ["run", "-p", "723 * 8 = ?", "--temp", "0", "--json", "--context", "128"];
    let answer = json(vaquita(ask).arg(&file).arg("--trace").arg(&trace));
    let lines = fs::read_to_string(&trace).unwrap().lines().count() as u64;
    // The token that ends the answer is not routed any more.
    let tokens = answer["prompt_tokens"].as_u64().unwrap() + answer["tokens"].as_u64().unwrap();
    assert!(lines > tokens, "{lines} lines, {tokens} tokens");
    let rows = json(
        vaquita(["replay", "--budget", "2MiB", "--json"]).arg(&trace).arg("--plot").arg(&plot),
    );
    assert_eq!(rows.as_array().unwrap().len(), 4);
    assert!(fs::read_to_string(&plot).unwrap().starts_with("<svg"));
    let several = vaquita(["eval", "perplexity", "--threads", "2"])
        .arg(&file)
        .arg("--text")
        .arg(root().join("calibration/reference/heldout.jsonl"))
        .arg("--trace")
        .arg(&trace)
        .output()
        .unwrap();
    assert_eq!(several.status.code(), Some(2));
}
