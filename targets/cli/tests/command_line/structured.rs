//! `vaquita run` with what its answer is held to, and with penalties.

use serde_json::{Value, json};

use crate::program::{failure, json, reference, vaquita};

/// A run with a hot model, whose reasoning is cut short by its temperature only.
fn run(options: &[&str]) -> Value {
    let mut command =
        vaquita(["run", "-p", "What is 12 + 30?", "--json", "--temp", "1.5", "-n", "200"]);
    json(command.args(options).arg(reference()))
}

#[test]
fn an_answer_keeps_its_schema() {
    let schema = json!({"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"], "additionalProperties": false});
    let found = run(&["--json-schema", &schema.to_string()]);
    let text = found["text"].as_str().unwrap();
    match found["stop"] == "end_of_sentence" {
        true => {
            // An integer of JSON may have more digits than an i64.
            let sum = serde_json::from_str::<Value>(text).unwrap()["sum"].as_f64();
            assert!(sum.is_some_and(|sum| sum.fract() == 0.0), "{text}");
        }
        false => assert_eq!(found["stop"], "length"),
    }
}

#[test]
fn an_answer_is_one_of_the_choices() {
    let found = run(&["--choice", "forty", "--choice", "42"]);
    if found["stop"] == "end_of_sentence" {
        assert!(["forty", "42"].contains(&found["text"].as_str().unwrap()), "{found}");
    }
}

#[test]
fn what_cannot_be_enforced_is_refused_with_its_path() {
    let schema = r#"{"properties": {"a": {"not": {"type": "null"}}}}"#;
    let mut command = vaquita(["run", "-p", "Hi", "--json-schema", schema]);
    let message = failure(command.arg(reference()), 2);
    assert!(message.contains("#/properties/a/not: `not` cannot be enforced"), "{message}");
    let mut command = vaquita(["run", "-p", "Hi", "--regex", "a("]);
    assert!(failure(command.arg(reference()), 2).contains("regular expression"));
    failure(vaquita(["run", "-p", "Hi", "--regex", "a", "--choice", "b"]).arg(reference()), 2);
    failure(vaquita(["run", "-p", "Hi", "--grammar", "no-such-file"]).arg(reference()), 1);
}

#[test]
fn biases_and_log_probabilities_are_reported() {
    let prompt = ["run", "-p", "Hi", "--json", "-n", "3", "--temp", "0", "--logprobs", "2"];
    let plain = json(vaquita(prompt).arg(reference()));
    let first = plain["token_ids"][0].as_u64().unwrap();
    let at = &plain["logprobs"][0];
    assert_eq!((&at["token"], &at["top"][0]["token"]), (&plain["token_ids"][0], &at["token"]));
    assert!(at["logprob"].as_f64().unwrap() <= 0.0 && at["top"].as_array().unwrap().len() == 2);
    let ban = format!("{first}=-inf");
    let banned = json(vaquita(prompt).args(["--logit-bias", &ban]).arg(reference()));
    assert_ne!(banned["token_ids"][0], plain["token_ids"][0]);
    // The model's own probabilities do not change.
    assert_eq!(banned["logprobs"][0]["top"], at["top"]);
    failure(vaquita(prompt).args(["--logit-bias", "x"]).arg(reference()), 2);
    failure(vaquita(prompt).args(["--presence-penalty", "3"]).arg(reference()), 1);
}

#[test]
fn penalties_change_an_answer_the_same_way_each_time() {
    let dry = ["--dry-multiplier", "1000", "--dry-allowed-length", "1"];
    let options =
        [&dry[..], &["--seed", "1", "--xtc-probability", "0.5", "--frequency-penalty", "2"]]
            .concat();
    let found = [run(&options), run(&options), run(&[])];
    assert_eq!(found[0]["token_ids"], found[1]["token_ids"]);
    assert_ne!(found[0]["token_ids"], found[2]["token_ids"]);
}
