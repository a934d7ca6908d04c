//! The program as scripts see it: what it prints, where, and how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn reference() -> PathBuf {
    root().join("calibration/reference")
}

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

fn vaquita<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(args: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaquita"));
    command.args(args).stdin(Stdio::null());
    for name in ["VAQUITA_ISA", "VAQUITA_MEMORY", "VAQUITA_LANES", "VAQUITA_RECORDING"] {
        command.env_remove(name);
    }
    command
}

fn output(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

/// What a command that succeeds prints.
fn success(command: &mut Command) -> String {
    let output = output(command);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).expect("output is text")
}

/// The one object that a command prints.
fn json(command: &mut Command) -> Value {
    let text = success(command);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("output is JSON")
}

/// The one line on stderr of a command that fails with an exit code, and nothing on stdout.
fn failure(command: &mut Command, code: i32) -> String {
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

fn quantize(source: &Path, out: &Path) -> Command {
    let mut command = vaquita(["quantize"]);
    command.arg(source).arg("-o").arg(out);
    command
}

/// A copy of a golden checkpoint, to be damaged.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

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
fn a_folder_runs_unquantized_and_thinking_can_be_hidden() {
    let ask = ["run", "-p", "723 * 8 = ?", "--temp", "0"];
    let shown = success(vaquita(ask).arg(reference()));
    assert!(shown.contains("write 4 carry 2"), "{shown}");
    assert!(shown.ends_with("\n\n5784\n"), "{shown}");
    assert!(!shown.contains('\x1b'), "no escapes where there is no terminal");
    let hidden = success(vaquita(ask).arg(reference()).arg("--hide-thinking"));
    assert_eq!(hidden, "5784\n");
}

#[test]
fn a_raw_prompt_is_continued_as_it_is_and_stops_where_it_is_told() {
    let prompt = "<｜User｜>723 * 8 = ?<｜Assistant｜><think>\n";
    let ask = ["run", "--raw", "-p", prompt, "--temp", "0", "--json"];
    let whole = json(vaquita(ask).arg(reference()));
    assert_eq!(whole["text"], "5784");
    let short = json(vaquita(ask).arg(reference()).args(["-n", "3"]));
    assert_eq!((&short["tokens"], &short["stop"]), (&3.into(), &"length".into()));
    let stopped = json(vaquita(ask).arg(reference()).args(["--stop", "carry"]));
    assert_eq!(stopped["stop"], "stop_string");
    assert_eq!(stopped["reasoning"], "3*8=24, write 4 ");
}

#[test]
fn the_answer_does_not_depend_on_threads_or_instructions() {
    let ask = ["run", "-p", "Convert 23 m to cm.", "--seed", "7", "--temp", "1.5", "--json"];
    let answer =
        |options: &[&str]| json(vaquita(ask).arg(reference()).args(options))["token_ids"].clone();
    let first = answer(&[]);
    assert_eq!(answer(&["--threads", "1"]), first);
    assert_eq!(answer(&["--isa", "scalar"]), first);
    let mut named = vaquita(ask);
    named.arg(reference()).env("VAQUITA_ISA", "scalar");
    assert_eq!(json(&mut named)["token_ids"], first);
}

#[test]
fn a_conversation_goes_on_and_can_be_reset() {
    let mut command = vaquita(["chat", "--temp", "0", "--hide-thinking"]);
    command.arg(reference()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = "723 * 8 = ?\n/stats\n/reset\n/nonsense\n723 * 8 = ?\n";
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("5784\n").count(), 2, "{text}");
    assert!(text.contains("answer "), "{text}");
    assert!(text.contains("/nonsense: no such command"), "{text}");
}

#[test]
fn a_text_is_cut_into_tokens_and_pieces() {
    let cut = |args: &[&str]| json(vaquita(["tokenize", "--json"]).arg(reference()).args(args));
    let with = cut(&["a whale 🐋"]);
    let without = cut(&["a whale 🐋", "--no-bos"]);
    let ids = |value: &Value| value["ids"].as_array().unwrap().clone();
    assert_eq!(ids(&with)[0], 0);
    assert_eq!(ids(&with)[1..], ids(&without)[..]);
    assert_eq!(with["pieces"].as_array().unwrap().len(), ids(&with).len());

    let mut piped = vaquita(["tokenize", "--json"]);
    piped.arg(reference()).arg("-").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), "a whale 🐋".as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), with);
}

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
fn a_budget_streams_experts_and_the_answer_stays_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reference.gguf");
    success(&mut quantize(&reference(), &file));
    let ask = ["run", "-p", "723 * 8 = ?", "--temp", "0", "--json", "--context", "128"];
    let mapped = json(vaquita(ask).arg(&file));
    assert!(mapped["streaming"].is_null());
    // The refusal names what is needed; a little more than that must do.
    let error = failure(vaquita(ask).arg(&file).args(["--memory", "1MiB"]), 1);
    let needed = error.split("at least ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(error.contains("MiB"), "{error}");
    let budget = format!("{}MiB", needed.parse::<f64>().unwrap() + 1.0);
    let streamed = json(vaquita(ask).arg(&file).args(["--memory", &budget]));
    assert_eq!(streamed["token_ids"], mapped["token_ids"]);
    assert!(streamed["streaming"]["bytes_read"].as_u64().unwrap() > 0, "{streamed}");
    assert!(streamed["streaming"]["share_of_bound"].as_f64().unwrap() > 0.0, "{streamed}");

    let bench = |form: &str| {
        let mut command = vaquita(["bench", "-p", "8", "-n", "16", "-r", "1", "--context", "128"]);
        command.args(["--memory", &budget, "-o", form]).arg(&file);
        command
    };
    for row in json(&mut bench("json")).as_array().unwrap() {
        let streaming = &row["streaming"];
        assert_eq!(streaming["hit_rate"], row["hit_rate"]);
        for key in ["read_bytes_per_second", "evictions_per_token", "share_of_bound"] {
            assert!(streaming[key].as_f64().unwrap() > 0.0, "{key}: {row}");
        }
        assert!(row["memory"]["minor_page_faults"].is_u64() || cfg!(not(target_os = "linux")));
    }
    let text = success(&mut bench("md"));
    assert!(text.contains("tg16: experts in memory") && text.contains("of the bound of"), "{text}");
    failure(vaquita(ask).arg(reference()).args(["--memory", "1GiB"]), 2);
    failure(vaquita(ask).arg(&file).args(["--memory", "lots"]), 2);
}

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

#[test]
fn lossy_modes_are_labelled_wherever_their_figures_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.gguf");
    success(&mut quantize(&reference(), &file));
    let text = root().join("calibration/reference/heldout.jsonl");
    let mut kld = vaquita(["eval", "kld", "--limit", "2", "--json", "--active-experts", "2"]);
    kld.arg(&file).arg("--reference").arg(&file).arg("--text").arg(&text);
    let kld = json(&mut kld);
    assert!(kld["mean_kld"].as_f64().unwrap() > 0.0, "the reference stays as it is: {kld}");
    assert_eq!(kld["lossy"], "lossy: 2 experts per token");
    let bench = ["bench", "-p", "0", "-n", "4", "-r", "1", "--active-experts", "2"];
    let table = success(vaquita(bench).arg(&file));
    assert!(table.contains("| tg4 (lossy: 2 experts per token) |"), "{table}");
    failure(vaquita(["run", "-p", "1"]).arg(&file).args(["--active-experts", "33"]), 1);
    failure(vaquita(["run", "-p", "1"]).arg(&file).args(["--route-prefer-resident", "7"]), 1);
    failure(vaquita(["run", "-p", "1"]).arg(reference()).args(["--active-experts", "2"]), 2);
}

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
    assert!(error.contains("--cpu-mask: the system allows these cores"), "{error}");
    failure(vaquita(bench).arg(reference()).args(["--cpu-mask", "fast"]), 2);
}

/// Time that a process has computed, in ticks of 10 ms (proc(5): utime and stime).
#[cfg(target_os = "linux")]
fn cpu_ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_chat_that_waits_leaves_the_processor_alone_within_a_second() {
    use std::io::{Read, Write};
    use std::time::Duration;
    let mut chat = vaquita(["chat", "--temp", "0", "--threads", "4"]);
    chat.arg(reference()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut chat = chat.spawn().unwrap();
    chat.stdin.as_mut().unwrap().write_all(b"723 * 8 = ?\n").unwrap();
    let (mut said, mut buffer) = (String::new(), [0; 256]);
    while !said.contains("5784") {
        let read = chat.stdout.as_mut().unwrap().read(&mut buffer).unwrap();
        assert!(read > 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    std::thread::sleep(Duration::from_secs(1));
    let before = cpu_ticks(chat.id());
    assert!(before > 0, "it has computed the answer");
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu_ticks(chat.id()) - before;
    drop(chat.stdin.take());
    chat.wait().unwrap();
    // 1% of two seconds
    assert!(used <= 2, "{used} ticks of 10 ms");
}

#[test]
fn the_doctor_advises_on_a_model_for_this_machine_and_a_recorded_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.gguf");
    success(&mut quantize(&reference(), &file));
    let found = json(vaquita(["doctor", "--json"]).arg(&file));
    assert!(found["memory_bytes_per_second"].as_f64().unwrap() > 1e6);
    assert!(!found["tiers"].as_array().unwrap().is_empty());
    assert_eq!(found["storage"]["rates"].as_array().unwrap().len(), 3, "{found}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the model is left");

    let board = root().join("runtime/tests/meters/board.json");
    let mut command = vaquita(["doctor", "--no-storage"]);
    let text = success(command.arg(&file).env("VAQUITA_RECORDING", &board));
    assert!(text.contains("Radxa ROCK 5B") && text.contains("cores 4,5,6,7"), "{text}");
    assert!(text.contains("8.00 GiB, limited to 4.00 GiB, 3.00 GiB available"), "{text}");
    assert!(text.contains("all of it fits, no --memory; about"), "{text}");
    let mut command = vaquita(["doctor", "--no-storage", "--json"]);
    let found = json(command.arg(&file).env("VAQUITA_RECORDING", &board));
    assert_eq!(found["storage"], Value::Null);
    assert_eq!(
        (&found["model"]["how"], &found["model"]["context"]),
        (&"mapped".into(), &2048.into())
    );
    failure(vaquita(["doctor"]).arg(reference()), 2);
    failure(vaquita(["doctor", "--no-storage", "nothing.gguf"]).current_dir(&folder), 1);
    let text = success(vaquita(["doctor", "--storage", "/nowhere"]).current_dir(&folder));
    assert!(text.contains("unmeasured: /nowhere:"), "{text}");
}

#[test]
fn a_boards_default_budget_is_for_files_and_gives_way_to_the_option() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.gguf");
    success(&mut quantize(&reference(), &file));
    let ask = |model: &Path, options: &[&str]| {
        let mut command = vaquita(["run", "-p", "723 * 8 = ?", "--temp", "0", "--json"]);
        json(command.arg(model).args(options).env("VAQUITA_MEMORY", "1GiB"))
    };
    assert_eq!(ask(&file, &[])["memory"]["budget_bytes"], 1u64 << 30);
    assert_eq!(ask(&file, &["--memory", "2GiB"])["memory"]["budget_bytes"], 2u64 << 30);
    assert_eq!(ask(&reference(), &[])["memory"], Value::Null);
}

#[test]
#[cfg(target_os = "linux")]
fn a_deployment_brings_program_and_model_and_runs_the_doctor_there() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.gguf");
    success(&mut quantize(&reference(), &file));
    // Stands in for ssh: `ssh -- HOST SCRIPT` in a folder that stands in for the user's own. The real one is tested
    // in targets/deploy.
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let ssh = folder.path().join("ssh");
    let script = format!("#!/bin/sh\ncd {} && exec sh -c \"$3\"\n", home.display());
    fs::write(&ssh, script).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let deploy = |host: &str, more: &[&str]| {
        let mut command = vaquita(["deploy", "--binary", env!("CARGO_BIN_EXE_vaquita"), "--ssh"]);
        command.arg(&ssh).args(more).arg("--").arg(host).arg(&file);
        command
    };
    let text = success(&mut deploy("pi@board", &[]));
    assert!(text.contains("m.gguf: sent") && text.contains("tokens/s"), "{text}");
    assert!(fs::read(home.join("vaquita/m.gguf")).unwrap() == fs::read(&file).unwrap());
    let text = success(&mut deploy("pi@board", &[]));
    assert!(text.contains("m.gguf: sent 0 B") && text.contains("vaquita: sent 0 B"), "{text}");

    let error = failure(&mut deploy("-oProxyCommand=true", &[]), 1);
    assert!(error.contains("is no host"), "{error}");
    let error = failure(vaquita(["deploy", "pi@board", "no-such.gguf"]).current_dir(&folder), 2);
    assert!(error.contains("is no model file"), "{error}");
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

    // At moments that no two runs of this test have in common.
    let mut random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8);
    for kill in 0..10 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let part = (random >> 33) as f64 / f64::from(u32::MAX >> 1);
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
    let error = failure(&mut quantize(&golden("deepseek-v3"), missing), 1);
    assert!(error.contains("/nowhere/at/all/out.gguf"), "{error}");
}

#[test]
fn files_that_are_no_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    fs::write(&file, b"GGUFgarbage").unwrap();
    let error = failure(vaquita(["run", "-p", "hi"]).arg(&file), 1);
    assert!(error.contains("model.gguf"), "{error}");
    let error = failure(&mut vaquita(["inspect", "/nowhere.gguf"]), 1);
    assert!(error.contains("/nowhere.gguf"), "{error}");
    let error = failure(vaquita(["run", "-p", "hi"]).arg(golden("deepseek-v3")), 1);
    assert!(error.contains("tokenizer"), "{error}");
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    failure(&mut vaquita(["quantize"]), 2);
    failure(&mut vaquita(["dance"]), 2);
    let out = Path::new("/tmp/never.gguf");
    let mixed = failure(quantize(&reference(), out).args(["--plan", "mixed"]), 2);
    assert!(mixed.contains("--target-bpw"), "{mixed}");
    failure(quantize(&reference(), out).args(["--type", "q4_k"]), 2);
    failure(quantize(&reference(), out).args(["--target-bpw", "3"]), 2);
    let both = ["--plan", "mixed", "--target-bpw", "3", "--trunk", "e4"];
    let trunk = failure(quantize(&reference(), out).args(both), 2);
    assert!(trunk.contains("--trunk"), "{trunk}");
    let isa = failure(vaquita(["run", "-p", "hi", "--isa", "mmx"]).arg(reference()), 2);
    assert!(isa.contains("this machine has: scalar"), "{isa}");
    let context = failure(vaquita(["run", "-p", "hi", "--context", "9999"]).arg(reference()), 2);
    assert!(context.contains("up to 2048"), "{context}");
}

#[test]
fn a_prompt_that_does_not_fit_is_refused() {
    let error = failure(vaquita(["run", "-p", "hi", "--context", "3"]).arg(reference()), 1);
    assert!(error.contains("the context of 3 tokens is full"), "{error}");
    let long = json(vaquita(["run", "-p", "hi", "--context", "12", "--json"]).arg(reference()));
    assert_eq!(long["stop"], "context_full");
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_error() {
    let binary = env!("CARGO_BIN_EXE_vaquita");
    let script = format!("'{binary}' inspect --tensors '{}' | head -n 1", reference().display());
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A stacked file of a golden checkpoint, as llama.cpp has them.
fn exported(name: &str, folder: &Path) -> PathBuf {
    let file = folder.join(format!("{name}.gguf"));
    success(vaquita(["export", "--type", "f16"]).arg(golden(name)).arg("-o").arg(&file));
    file
}

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
    assert_eq!((&found["runs"], &found["name"]), (&true.into(), &"qwen3-moe".into()));

    let report = json(convert(&["--type", "e4", "--json"]).env("VAQUITA_ISA", "scalar"));
    assert_eq!(report["plan"], "e4");
    let error = failure(&mut convert(&["--trunk", "e8"]), 2);
    assert!(error.contains("go with --type"), "{error}");
    let error = failure(vaquita(["convert"]).arg(golden("qwen3-moe")).arg("-o").arg(&made), 1);
    assert!(error.contains("vaquita quantize"), "{error}");
    let error = failure(vaquita(["convert"]).arg(&stacked).arg("-o").arg(&stacked), 1);
    assert!(error.contains("part of the source"), "{error}");
}

#[test]
fn inspect_says_of_any_file_what_it_is_and_why_it_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let sound = fs::read(exported("olmoe", folder.path())).unwrap();
    let file = folder.path().join("odd.gguf");
    let inspected = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        json(vaquita(["inspect", "--json"]).arg(&file))
    };
    let replaced = |from: &[u8], to: &[u8], nth: usize| {
        let mut bytes = sound.clone();
        let at = bytes.windows(from.len()).enumerate().filter(|(_, found)| *found == from);
        let at = at.map(|(at, _)| at).nth(nth).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    assert_eq!(inspected(&sound)["runs"], true);
    let stack = b"blk.1.ffn_up_exps.weight";
    // Name, number of extents, extents, type.
    let type_at =
        sound.windows(stack.len()).position(|found| found == stack).unwrap() + stack.len();
    let typed = |ty: u32| {
        let mut bytes = sound.clone();
        bytes[type_at + 28..][..4].copy_from_slice(&ty.to_le_bytes());
        bytes
    };
    let cases = [
        (replaced(b"olmoe", b"mamba", 0), "mamba", "unknown architecture"),
        (sound[..sound.len() / 2].to_vec(), "olmoe", "truncated or damaged"),
        (typed(99), "olmoe", "the type of tensor blk.1.ffn_up_exps.weight is 99"),
        (typed(24), "olmoe", "tensor blk.1.ffn_up_exps.weight has type I8"),
        (
            replaced(stack, b"blk.1.ffn_UP_exps.weight", 0),
            "olmoe",
            "blk.1.ffn_up_exps.weight is missing",
        ),
        (replaced(b"output_norm", b"output_morn", 0), "olmoe", "output_norm.weight is missing"),
    ];
    for (bytes, architecture, problem) in cases {
        let found = inspected(&bytes);
        assert_eq!((&found["runs"], &found["architecture"]), (&false.into(), &architecture.into()));
        assert!(found["problem"].as_str().unwrap().contains(problem), "{problem}: {found}");
    }
    let part = "deepseek-v3-00001-of-00002.gguf";
    fs::copy(golden("gguf").join(part), folder.path().join(part)).unwrap();
    let found = json(vaquita(["inspect", "--json"]).arg(folder.path().join(part)));
    assert_eq!(found["architecture"], "deepseek2");
    assert!(found["problem"].as_str().unwrap().contains("part 2 of 2"), "{found}");
    fs::write(&file, b"PK").unwrap();
    assert!(failure(vaquita(["inspect"]).arg(&file), 1).contains("odd.gguf"));
}
