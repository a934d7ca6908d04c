//! Suites of JSON schemas with instances: what a constraint accepts, and how long its masks take.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use vaquita_runtime::session::constraint::end_tokens;
use vaquita_runtime::structured::{Compiler, Rule};
use vaquita_runtime::tokenizer::Tokenizer;

/// A schema with instances and whether they are valid.
struct Case {
    schema: Value,
    instances: Vec<(Value, bool)>,
}

#[derive(Default)]
struct Results {
    schemas: usize,
    right: usize,
    refused: BTreeMap<String, usize>,
    invalid_accepted: usize,
    valid_rejected: usize,
    /// Time of each mask, without the time that the thread waited for a processor.
    masks: Vec<Duration>,
    compiles: Vec<Duration>,
}

/// Runs a suite of schemas, and returns whether no invalid instance was accepted.
pub fn run(suite: &str, folder: &Path, tokenizer: &Path) -> bool {
    let tokenizer = Tokenizer::from_folder(tokenizer).expect("the tokenizer opens");
    let ends = end_tokens(&tokenizer, &[]);
    let compiler = Compiler::new(&tokenizer, &ends).expect("the tokenizer has an end");
    let mut results = Results::default();
    for file in files(folder) {
        let text = std::fs::read_to_string(&file).expect("a file can be read");
        let Ok(json) = serde_json::from_str::<Value>(&text) else { continue };
        let cases = if suite == "maskbench" { maskbench(json) } else { json_schema(json) };
        for case in cases {
            results.schemas += 1;
            if !judge(&compiler, &tokenizer, &ends, &case, &file, &mut results) {
                results.right += 1;
            }
        }
    }
    report(&mut results);
    results.invalid_accepted == 0
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let json = |path: &PathBuf| path.extension().is_some_and(|end| end == "json");
    found.into_iter().filter(json).collect()
}

fn json_schema(json: Value) -> Vec<Case> {
    let groups = json.as_array().cloned().unwrap_or_default();
    let tests = |group: &Value| group["tests"].as_array().cloned().unwrap_or_default();
    let instance = |test: &Value| (test["data"].clone(), test["valid"] == true);
    let case = |group: &Value| Case {
        schema: group["schema"].clone(),
        instances: tests(group).iter().map(instance).collect(),
    };
    groups.iter().map(case).collect()
}

fn maskbench(json: Value) -> Vec<Case> {
    let tests = json["tests"].as_array().cloned().unwrap_or_default();
    let instance = |test: &Value| (test["data"].clone(), test["valid"] == true);
    vec![Case { schema: json["schema"].clone(), instances: tests.iter().map(instance).collect() }]
}

/// Tries all instances and says whether anything went wrong.
fn judge(
    compiler: &Compiler,
    tokenizer: &Tokenizer,
    ends: &[u32],
    case: &Case,
    file: &Path,
    results: &mut Results,
) -> bool {
    let start = Instant::now();
    let rule = Rule::JsonSchema { schema: case.schema.clone(), strict: false };
    let grammar = match compiler.compile(&rule) {
        Ok(grammar) => grammar,
        Err(error) => {
            // The last part of a path, or the message's start, stands for the reason.
            let text = error.to_string();
            let reason = text.split(": ").next().and_then(|path| path.rsplit('/').next());
            *results
                .refused
                .entry(reason.unwrap_or(&text).chars().take(40).collect())
                .or_default() += 1;
            return true;
        }
    };
    results.compiles.push(start.elapsed());
    let mut wrong = false;
    let mut logits = vec![0.0; tokenizer.vocab_size()];
    for (instance, valid) in &case.instances {
        let text = serde_json::to_string_pretty(instance).expect("JSON");
        let tokens = tokenizer.encode(&text, false).expect("text can be tokenized");
        let mut constraint = grammar.begin().expect("a grammar begins");
        let mut accepted = true;
        for token in tokens.iter().chain(&ends[..1]) {
            logits.fill(0.0);
            let (before, start) = (waited(), Instant::now());
            let masked = constraint.mask(&mut logits);
            let took = start.elapsed();
            results.masks.push(took.saturating_sub(waited() - before));
            if masked.is_err()
                || logits[*token as usize] != 0.0
                || constraint.accept(*token).is_err()
            {
                accepted = false;
                break;
            }
        }
        match (accepted, valid) {
            (true, false) => {
                println!("{}: accepts {}", file.display(), short(instance));
                results.invalid_accepted += 1;
                wrong = true;
            }
            (false, true) => {
                println!("{}: rejects {}", file.display(), short(instance));
                results.valid_rejected += 1;
                wrong = true;
            }
            _ => {}
        }
    }
    wrong
}

/// The beginning of a value.
fn short(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}

/// Time for which this thread has been ready to run while others ran, which is not a cost of masks. Linux counts it; elsewhere
/// it is zero.
fn waited() -> Duration {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = counts.split(' ').nth(1).and_then(|nanoseconds| nanoseconds.parse().ok());
    Duration::from_nanos(waited.unwrap_or(0))
}

fn report(results: &mut Results) {
    let refused: usize = results.refused.values().sum();
    println!("schemas {}, right {}, refused {refused}", results.schemas, results.right);
    println!(
        "invalid accepted {}, valid rejected {}",
        results.invalid_accepted, results.valid_rejected
    );
    let mut reasons: Vec<_> = results.refused.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (reason, count) in reasons.iter().take(20) {
        println!("  refused {count}: {reason}");
    }
    for (name, times) in [("mask", &mut results.masks), ("compile", &mut results.compiles)] {
        times.sort_unstable();
        let Some(last) = times.last().copied() else { continue };
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        let p99 = times[times.len() * 99 / 100];
        println!("{name}: mean {mean:?}, p99 {p99:?}, largest {last:?} of {}", times.len());
    }
}
