//! Win rates from a judge's verdicts, plain and length-controlled, as AlpacaEval 2 defines them.
//!
//! A logistic regression predicts each verdict from the difference of lengths, `tanh` of it over its
//! standard deviation, the difficulty of the instruction, if it is known, and a constant, the
//! model's strength. The length-controlled win rate is the mean prediction with a difference of 0.
//! AlpacaEval selects an L1 penalty by cross-validation; this fit has only the small quadratic
//! penalty that keeps it finite.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::estimate::Estimate;
use super::regression::{self, Example, FEATURES};
use crate::{EvalError, read_jsonl};

/// Weight of verdicts on versions of the baseline itself, two of which stand against one of the
/// model.
const ANCHOR_WEIGHT: f64 = 0.1;
/// Fields of a verdict, for errors.
const FIELDS: &str = "`output_1` (of the baseline), `output_2` (of the model) and `preference`";

/// A verdict of a judge.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "VerdictJson")]
pub struct Verdict {
    /// 1 if the model wins, 0 if the baseline does, or the probability of it.
    preference: f64,
    difference: Difference,
    /// Difficulty of the instruction.
    difficulty: Option<f64>,
}

/// By how much the baseline's output is longer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Difference {
    /// In characters.
    Characters(f64),
    /// In standard deviations, for versions of the baseline that were judged earlier.
    Anchor(f64),
}

#[derive(Deserialize)]
struct VerdictJson {
    preference: Option<f64>,
    #[serde(default)]
    output_1: String,
    #[serde(default)]
    output_2: String,
    instruction_difficulty: Option<f64>,
    not_gamed_baseline: Option<bool>,
    std_delta_len: Option<f64>,
}

impl TryFrom<VerdictJson> for Verdict {
    type Error = &'static str;

    fn try_from(json: VerdictJson) -> Result<Self, Self::Error> {
        let preference = json.preference.ok_or("`preference` is missing: the judge gave none")?;
        let difficulty = json.instruction_difficulty;
        if json.not_gamed_baseline == Some(false) {
            let difference = json.std_delta_len.ok_or("missing field `std_delta_len`")?;
            if !(0.0..=1.0).contains(&preference) {
                return Err("`preference` of a version of the baseline is from 0 to 1");
            }
            return Ok(Self { preference, difference: Difference::Anchor(difference), difficulty });
        }
        // AlpacaEval's: 1 is the baseline, 2 the model, 1.5 or 0 a draw.
        let preference = if preference == 0.0 { 1.5 } else { preference };
        if !(1.0..=2.0).contains(&preference) {
            return Err("`preference` is from 1 (the baseline wins) to 2 (the model wins), or 0");
        }
        let length = |text: &str| text.chars().count() as f64;
        let difference = length(&json.output_1) - length(&json.output_2);
        let difference = Difference::Characters(difference);
        Ok(Self { preference: preference - 1.0, difference, difficulty })
    }
}

impl Verdict {
    /// Reads verdicts: a JSON list, as AlpacaEval writes `annotations.json`, or JSON lines.
    pub fn read(path: &Path) -> Result<Vec<Self>, EvalError> {
        let io = |source| EvalError::Io { path: path.into(), source };
        let text = fs::read_to_string(path).map_err(io)?;
        let verdicts: Vec<Self> = match text.trim_start().starts_with('[') {
            true => serde_json::from_str(&text).map_err(|source| EvalError::Line {
                path: path.into(),
                line: source.line(),
                source,
                fields: FIELDS,
            })?,
            false => read_jsonl(path, FIELDS)?,
        };
        match verdicts.iter().any(Self::is_of_model) {
            true => Ok(verdicts),
            false => Err(EvalError::Nothing { what: "a verdict" }),
        }
    }

    fn is_of_model(&self) -> bool {
        matches!(self.difference, Difference::Characters(_))
    }
}

/// Win rates over a baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WinRate {
    /// Mean preference; a draw is half a win.
    pub win_rate: Estimate,
    /// Win rate at equal lengths.
    pub length_controlled: Estimate,
    /// Number of verdicts on the model.
    pub verdicts: usize,
    /// Verdicts that the model wins, loses and draws.
    pub wins: usize,
    /// Verdicts that the baseline wins.
    pub losses: usize,
    /// Verdicts that nobody wins.
    pub draws: usize,
    /// Coefficient of the length.
    pub length_coefficient: f64,
}

/// Win rates of verdicts.
pub fn win_rate(verdicts: &[Verdict]) -> WinRate {
    let of_model = || verdicts.iter().filter(|verdict| verdict.is_of_model());
    let lengths: Vec<f64> = of_model()
        .filter_map(|verdict| match verdict.difference {
            Difference::Characters(length) => Some(length),
            Difference::Anchor(_) => None,
        })
        .collect();
    let deviation = deviation(&lengths);
    let knows_difficulty = verdicts.iter().any(|verdict| verdict.difficulty.is_some());
    let difficulty = |verdict: &Verdict| verdict.difficulty.unwrap_or_default();
    let example = |verdict: &Verdict| {
        let (length, is_model) = match verdict.difference {
            Difference::Characters(length) if deviation > 0.0 => (length / deviation, true),
            Difference::Characters(_) => (0.0, true),
            Difference::Anchor(length) => (length, false),
        };
        Example {
            // The constant is the strength of the model alone.
            features: [length.tanh(), difficulty(verdict), f64::from(u8::from(is_model))],
            wins: verdict.preference,
            weight: if is_model { 1.0 } else { ANCHOR_WEIGHT },
        }
    };
    let examples: Vec<Example> = verdicts.iter().map(example).collect();
    let fit = regression::fit(&examples, [true, knows_difficulty, true]);
    let at_equal_length: Vec<[f64; FEATURES]> =
        of_model().map(|verdict| [0.0, difficulty(verdict), 1.0]).collect();
    let (mean, se) = fit.mean_prediction(&at_equal_length);
    let preferences: Vec<f64> = of_model().map(|verdict| verdict.preference).collect();
    let count = |is: fn(f64) -> bool| preferences.iter().filter(|one| is(**one)).count();
    WinRate {
        win_rate: Estimate::of(&preferences),
        length_controlled: Estimate { mean, se: (preferences.len() > 1).then_some(se) },
        verdicts: preferences.len(),
        wins: count(|preference| preference > 0.5),
        losses: count(|preference| preference < 0.5),
        draws: count(|preference| preference == 0.5),
        length_coefficient: fit.coefficients[0],
    }
}

/// The standard deviation of a sample.
fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
}
