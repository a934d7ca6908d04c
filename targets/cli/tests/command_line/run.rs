//! `vaquita run`: answers, budgets and what they depend on.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{failure, golden, json, quantize, reference, root, success, vaquita};

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

/// A copy of the reference model with another template.
fn with_template(template: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(reference()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    folder
}

#[test]
fn the_template_is_told_whether_to_think_and_any_variable() {
    let template = "{{ bos_token }}{% for m in messages %}<｜User｜>{{ m.content }}{% endfor %}\
        {% if enable_thinking is defined and enable_thinking is false %} quick{% endif %}\
        {{ note if note is defined }}<｜Assistant｜>";
    let folder = with_template(template);
    let tokens = |options: &[&str]| {
        let ask = vaquita(["run", "-p", "2+2?", "--temp", "0", "-n", "1", "--json"]);
        let mut ask = ask;
        json(ask.args(options).arg(folder.path()))["prompt_tokens"].as_u64().unwrap()
    };
    let plain = tokens(&[]);
    assert_eq!(tokens(&["--think", "on"]), plain);
    let quick = tokens(&["--think", "off"]);
    assert!(quick > plain);
    assert_eq!(tokens(&["--template-var", "enable_thinking=false"]), quick);
    assert!(tokens(&["--template-var", "note= and more words of text"]) > plain);
    let refused =
        |options: &[&str]| failure(vaquita(["run", "-p", "x"]).args(options).arg(folder.path()), 2);
    assert!(refused(&["--think", "low"]).contains("it knows: on, off"));
    assert!(refused(&["--template-var", "messages=1"]).contains("NAME=VALUE"));
    let mut none = vaquita(["run", "-p", "x", "--think", "off"]);
    assert!(failure(none.arg(reference()), 2).contains("no switch"));
}

#[test]
fn a_template_that_writes_megabytes_is_refused_before_they_are_tokens() {
    let folder = with_template("{{ 'ab ' * 3000000 }}");
    let error = failure(vaquita(["run", "-p", "x"]).arg(folder.path()), 1);
    assert!(error.contains("context of"), "{error}");
}

#[test]
fn a_raw_prompt_is_continued_as_it_is_and_stops_where_it_is_told() {
    let prompt = "<｜User｜>723 * 8 = ?<｜Assistant｜><think>\n";
    let ask = ["run", "--raw", "-p", prompt, "--temp", "0", "--json"];
    let whole = json(vaquita(ask).arg(reference()));
    assert_eq!(whole["text"], "5784");
    let short = json(vaquita(ask).arg(reference()).args(["-n", "3"]));
    assert_eq!((&short["tokens"], &short["stop"]), (&3.into(), &"length".into()));
    let stopped = json(vaquita(ask).arg(reference()).args(["--stop", "8"]));
    assert_eq!((&stopped["stop"], &stopped["text"]), (&"stop_string".into(), &"57".into()));
    assert_eq!(stopped["reasoning"], whole["reasoning"], "a stop string ends no thoughts");
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
fn a_prompt_that_does_not_fit_is_refused() {
    let error = failure(vaquita(["run", "-p", "hi", "--context", "3"]).arg(reference()), 1);
    assert!(error.contains("the context of 3 tokens is full"), "{error}");
    let long = json(vaquita(["run", "-p", "hi", "--context", "12", "--json"]).arg(reference()));
    assert_eq!(long["stop"], "context_full");
}

#[test]
fn a_prompt_that_was_seen_before_starts_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (file, prompts) = (folder.path().join("model.gguf"), folder.path().join("prompts"));
    success(&mut quantize(&reference(), &file));
    let question =
        "Which whale swims past which boat, and which boat follows which whale? ".repeat(6);
    let ask = |options: &[&str]| {
        let mut ask = vaquita(["run", "--seed", "3", "--json", "-n", "8", "-p", &question]);
        json(ask.args(options).arg(&file))
    };
    let (plain, cache) = (ask(&[]), ["--cache-dir", prompts.to_str().unwrap()]);
    let (first, second) = (ask(&cache), ask(&cache));
    assert_eq!(first["cached_tokens"], 0);
    let known = second["prompt_tokens"].as_u64().unwrap() - 1; // the last one is read again
    assert_eq!(second["cached_tokens"], known);
    for answer in [first, second] {
        assert_eq!(answer["token_ids"], plain["token_ids"]);
    }
    let mut folder = vaquita(["run", "-p", "x"]);
    let refused = failure(folder.args(cache).arg(reference()), 1);
    assert!(refused.contains("not a GGUF file"), "{refused}");
}

#[test]
fn drafts_are_counted_and_change_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    success(&mut quantize(&reference(), &file));
    let answer = |options: &[&str]| {
        let mut ask = vaquita(["run", "-p", "723 * 8 = ?", "--seed", "3", "--json"]);
        json(ask.args(options).arg(&file))
    };
    let plain = answer(&[]);
    assert!(plain["drafts"].is_null());
    for mode in ["auto", "mtp:3", "lookup:4"] {
        for budget in [&[][..], &["--memory", "60MiB", "--context", "512"]] {
            let drafted = answer(&[&["--draft", mode], budget].concat());
            assert_eq!(drafted["token_ids"], plain["token_ids"], "{mode}");
            if mode != "lookup:4" {
                assert!(drafted["drafts"]["accepted"][0].as_u64() > Some(0), "{mode}");
            }
        }
    }
    let refused = failure(vaquita(["run", "-p", "x", "--draft", "on"]).arg(&file), 2);
    assert!(refused.contains("mtp:DEPTH"), "{refused}");
    let golden = golden("qwen3-moe");
    let refused = failure(vaquita(["bench", "--draft", "mtp:2"]).arg(golden), 1);
    assert!(refused.contains("no multi-token-prediction layer"), "{refused}");
}
