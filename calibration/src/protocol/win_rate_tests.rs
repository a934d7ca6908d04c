//! Win rates of verdicts compared with scikit-learn and AlpacaEval:
//! `tests/golden/protocol/make_verdicts.py`.

use std::path::{Path, PathBuf};

use serde_json::{Value, from_value, json};

use super::win_rate::{Verdict, win_rate};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/protocol").join(name)
}

fn rates() -> Value {
    serde_json::from_slice(&std::fs::read(golden("win_rates.json")).unwrap()).unwrap()
}

fn verdicts() -> Vec<Verdict> {
    Verdict::read(&golden("verdicts.json")).unwrap()
}

#[track_caller]
fn assert_near(found: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() < tolerance, "{found} {expected}");
}

#[test]
fn rates_are_those_of_scikit_learn() {
    let (rates, verdicts) = (rates(), verdicts());
    let found = win_rate(&verdicts);
    assert_near(found.win_rate.mean, &rates["win_rate"], 1e-12);
    assert_near(found.win_rate.se.unwrap(), &rates["win_rate_se"], 1e-12);
    assert_near(found.length_controlled.mean, &rates["without_anchors"], 1e-6);
    assert_eq!(found.verdicts, 200);
    assert_eq!(found.wins + found.losses + found.draws, 200);
    // The model's outputs win by their length here.
    assert!(found.length_coefficient < 0.0);
    let se = found.length_controlled.se.unwrap();
    assert!(se > 0.01 && se < 0.1, "{se}");
}

#[test]
fn difficulties_may_be_unknown() {
    let file = std::fs::read(golden("verdicts.json")).unwrap();
    let mut rows: Vec<Value> = serde_json::from_slice(&file).unwrap();
    for row in &mut rows {
        row.as_object_mut().unwrap().remove("instruction_difficulty");
    }
    let verdicts: Vec<Verdict> = rows.into_iter().map(|row| from_value(row).unwrap()).collect();
    let found = win_rate(&verdicts).length_controlled.mean;
    assert_near(found, &rates()["without_difficulty"], 1e-6);
}

#[test]
fn versions_of_the_baseline_count_as_in_alpaca_eval() {
    let (rates, mut verdicts) = (rates(), verdicts());
    verdicts
        .extend(crate::read_jsonl::<Verdict>(&golden("anchors.jsonl"), "`preference`").unwrap());
    let found = win_rate(&verdicts).length_controlled.mean;
    assert_near(found, &rates["with_anchors"], 1e-6);
    // AlpacaEval's own figure has its penalty, which moves it by less than half a point.
    assert_near(found, &rates["alpaca_eval"], 0.005);
}

#[test]
fn a_model_that_always_wins_has_finite_rates() {
    let verdict = |preference: f64| {
        from_value::<Verdict>(json!({"output_1": "a", "output_2": "a", "preference": preference}))
            .unwrap()
    };
    let found = win_rate(&vec![verdict(2.0); 10]);
    assert!(found.length_controlled.mean > 0.99 && found.length_controlled.mean < 1.0);
    assert_eq!((found.wins, found.draws), (10, 0));
    let found = win_rate(&[verdict(0.0), verdict(1.5)]);
    assert!((found.length_controlled.mean - 0.5).abs() < 1e-9);
    assert_eq!(found.draws, 2);
}

#[test]
fn verdicts_out_of_range_are_refused() {
    let read = |json: Value| from_value::<Verdict>(json).map_err(|error| error.to_string());
    assert!(read(json!({"preference": 3})).is_err());
    assert!(read(json!({"preference": null})).unwrap_err().contains("gave none"));
    assert!(read(json!({"preference": 0.5, "not_gamed_baseline": false})).is_err());
    assert!(Verdict::read(&golden("win_rates.json")).is_err());
    assert!(Verdict::read(&golden("anchors.jsonl")).is_err());
}
