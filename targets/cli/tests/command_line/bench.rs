//! `vaquita bench`: speed, energy and the cores that compute.

use std::fs;

use serde_json::Value;

use crate::program::{failure, json, reference, root, success, vaquita};

#[test]
fn a_bench_says_what_was_measured() {
    let rows = json(
        vaquita(["bench", "-p", "8", "-n", "4", "-r", "2", "-d", "3", "-o", "json"])
            .arg(reference()),
    );
    let rows = rows.as_array().unwrap();
    let tests: Vec<&str> = rows.iter().map(|row| row["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp8 @ d3", "tg4 @ d3"]);
    for row in rows {
        assert!(row["avg_ts"].as_f64().unwrap() > 0.0);
        assert_eq!(row["samples_ts"].as_array().unwrap().len(), 2);
        for key in ["stddev_ts", "threads", "isa", "size", "params", "peak_rss_bytes"] {
            assert!(!row[key].is_null() || key == "peak_rss_bytes", "{key}");
        }
    }
    let table = success(vaquita(["bench", "-p", "8", "-n", "0", "-r", "1"]).arg(reference()));
    assert!(table.contains("| pp8 |"), "{table}");
    failure(vaquita(["bench", "-p", "0", "-n", "0"]).arg(reference()), 2);
}

#[test]
fn sequences_side_by_side_are_measured_together_and_each() {
    let bench = ["bench", "-p", "0", "-n", "4", "-r", "2", "-d", "3", "--sequences", "3"];
    let rows = json(vaquita(bench).args(["-o", "json"]).arg(reference()));
    let tests: Vec<&str> =
        rows.as_array().unwrap().iter().map(|row| row["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["tg4 @ d3", "tg4 x 3 @ d3"]);
    let sequences = &rows[1]["sequences"];
    assert_eq!(sequences["count"], 3);
    let number = |value: &Value| value.as_f64().unwrap();
    let each = number(&sequences["per_sequence_ts"]);
    assert!((3.0 * each / number(&rows[1]["avg_ts"]) - 1.0).abs() < 1e-9);
    assert!(number(&sequences["median_gap_s"]) > 0.0);
    assert!(number(&sequences["longest_gap_s"]) >= number(&sequences["median_gap_s"]));
    let table = success(vaquita(bench).arg(reference()));
    assert!(table.contains("t/s in each sequence"), "{table}");
    failure(vaquita(["bench", "--sequences", "1"]).arg(reference()), 2);
}

#[test]
fn what_a_token_costs_is_as_computed_by_hand_on_a_recorded_machine() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("plot.svg");
    let bench = ["bench", "-p", "10", "-n", "4", "-r", "2", "-o", "json"];
    let recording = root().join("runtime/tests/meters/bench.json");
    let mut command = vaquita(bench);
    command.args(["--energy", "auto"]).arg("--plot").arg(&plot).arg(reference());
    let rows = json(command.env("VAQUITA_RECORDING", &recording));
    let near = |found: &Value, expected: f64| {
        let found = found.as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 0.5e-4, "{found} for {expected}");
    };
    // Idle: 5 W. Prompt: 25 J in 2 s and 11 J in 1 s for 10 tokens each.
    let prompt = &rows[0]["energy"];
    near(&rows[0]["joules_per_token"], 1.8); // (2.5 + 1.1) / 2
    near(&prompt["joules_per_token"], 1.8);
    near(&prompt["joules_per_token_ci95"], 12.706 * 0.7); // t * (1.4 / sqrt(2)) / sqrt(2)
    near(&prompt["net_joules_per_token"], 1.05); // (15 + 6) J over 20 tokens
    near(&prompt["net_joules_per_token_ci95"], 12.706 * 0.45);
    near(&prompt["idle_watts"], 5.0);
    near(&prompt["mean_watts"], 12.0); // 36 J in 3 s
    near(&prompt["tokens_per_joule"], 1.0 / 1.8);
    // Generating: 40 J and 34 J in 4 s each for 4 tokens each.
    let generate = &rows[1]["energy"];
    near(&generate["joules_per_token"], 9.25);
    near(&generate["joules_per_token_ci95"], 12.706 * 0.75);
    near(&generate["net_joules_per_token"], 4.25); // 20 J of idling in each
    near(&generate["mean_watts"], 9.25);
    for row in rows.as_array().unwrap() {
        assert_eq!(row["energy"]["meter"], "INA3221");
        assert_eq!(row["energy"]["scope"], "whole module (VDD_IN)");
        assert_eq!(row["energy"]["estimate"], false);
        assert_eq!(row["thermal"]["temperature_c"], 50.5);
        assert_eq!(row["thermal"]["throttled"], Value::Null);
        assert_eq!(row["energy_readings"], 4);
    }
    let plot = fs::read_to_string(plot).unwrap();
    assert!(plot.contains("INA3221") && plot.contains("tg4"), "{plot}");
    assert_eq!(plot.matches("<polyline").count(), 3);
}

#[test]
fn energy_is_unmeasured_estimated_or_refused_but_never_zero() {
    let meters = root().join("runtime/tests/meters");
    let bench = |options: &[&str], machine: &str| {
        let mut command = vaquita(["bench", "-p", "0", "-n", "2", "-r", "2", "--idle", "0"]);
        command.args(options).arg(reference()).env("VAQUITA_RECORDING", meters.join(machine));
        command
    };
    let rows = json(&mut bench(&["--energy", "auto", "-o", "json"], "rapl-denied.json"));
    assert_eq!((&rows[0]["energy"], &rows[0]["joules_per_token"]), (&Value::Null, &Value::Null));
    let reason = rows[0]["energy_unmeasured"].as_str().unwrap();
    assert!(reason.contains("root only"), "{reason}");
    let text = success(&mut bench(&["--energy", "auto"], "rapl-denied.json"));
    assert!(text.contains("| unmeasured |") && text.contains("energy unmeasured: RAPL"), "{text}");
    let error = failure(&mut bench(&["--energy", "pmic"], "rapl-denied.json"), 1);
    assert!(error.contains("this machine has none"), "{error}");
    let error = failure(&mut bench(&["--energy", "rapl"], "rapl-garbage.json"), 1);
    assert!(error.contains("\"lots\""), "{error}");

    let live = |options: &[&str]| {
        let mut command = vaquita(["bench", "-p", "0", "-n", "2", "-r", "2"]);
        command.args(options).arg(reference());
        command
    };
    let rows = json(&mut live(&["--assume-watts", "6.5", "-o", "json"]));
    assert_eq!(rows[0]["energy"]["estimate"], true);
    let watts = rows[0]["energy"]["mean_watts"].as_f64().unwrap();
    assert!((watts - 6.5).abs() < 1e-6, "{watts}");
    assert_eq!(rows[0]["energy"]["idle_watts"], Value::Null);
    let text = success(&mut live(&["--assume-watts", "6.5"]));
    assert!(text.contains("(estimate) |") && text.contains("estimated from"), "{text}");
    let external = ["--meter-command", "echo name lead; echo 4 W; sleep 60", "--idle", "0.1"];
    let text = success(&mut live(&external));
    assert!(text.contains("measured by lead") && text.contains("4.000 W"), "{text}");
    // One value is a figure, but neither an interval nor an idle baseline.
    let rows = json(live(&external).args(["-o", "json"]));
    assert_eq!(rows[0]["energy_readings"], 0);
    let energy = &rows[0]["energy"];
    assert!((energy["mean_watts"].as_f64().unwrap() - 4.0).abs() < 1e-6, "{energy}");
    for key in ["joules_per_token_ci95", "net_joules_per_token", "idle_watts"] {
        assert_eq!(energy[key], Value::Null, "{key}");
    }
    let error = failure(&mut live(&["--meter-command", "echo nonsense"]), 1);
    assert!(error.contains("--meter-command") && error.contains("nonsense"), "{error}");
    failure(&mut live(&["--assume-watts", "0"]), 2);
    failure(&mut live(&["--energy", "thermometer"]), 2);
}

#[test]
fn cores_can_be_chosen_and_unknown_ones_are_refused() {
    let bench = ["bench", "-p", "0", "-n", "2", "-r", "1", "-o", "json"];
    let rows = json(vaquita(bench).arg(reference()).args(["--threads", "3"]));
    assert_eq!(rows[0]["threads"], 3);
    if cfg!(target_os = "linux") {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let first: String =
            allowed.unwrap().trim().chars().take_while(char::is_ascii_digit).collect();
        let rows = json(vaquita(bench).arg(reference()).args(["--cpu-mask", &first]));
        assert_eq!(rows[0]["threads"], 1);
    }
    let error = failure(vaquita(bench).arg(reference()).args(["--cpu-mask", "1000"]), 1);
    assert!(
        error.contains("the system allows these cores") && error.contains("--cpu-mask"),
        "{error}"
    );
    failure(vaquita(bench).arg(reference()).args(["--cpu-mask", "fast"]), 2);
}
