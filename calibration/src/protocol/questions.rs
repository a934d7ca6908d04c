//! Question files, one JSON object per line, with the fields of the published datasets.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::extract::boxed;
use crate::{EvalError, read_jsonl};

/// Most choices of a question: there are as many letters.
const MOST_CHOICES: usize = 26;

/// A question with one right answer: AIME, MATH, GSM8K.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "ProblemJson")]
pub struct Problem {
    /// The question.
    pub question: String,
    /// The right answer; in GSM8K after its calculation.
    pub answer: String,
    /// Kind of question, such as MATH's `type`.
    pub subject: Option<String>,
}

#[derive(Deserialize)]
struct ProblemJson {
    #[serde(alias = "problem", alias = "Problem")]
    question: String,
    #[serde(alias = "Answer")]
    answer: Option<Text>,
    #[serde(alias = "Solution")]
    solution: Option<String>,
    #[serde(alias = "type")]
    subject: Option<String>,
}

/// A text, or a number that is one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Number(serde_json::Number),
}

impl TryFrom<ProblemJson> for Problem {
    type Error = &'static str;

    fn try_from(json: ProblemJson) -> Result<Self, Self::Error> {
        let answer = match (json.answer, json.solution) {
            (Some(Text::Text(answer)), _) => answer,
            (Some(Text::Number(answer)), _) => answer.to_string(),
            (None, Some(solution)) => {
                let inner = boxed(&solution).map(String::from);
                inner.ok_or("there is no `answer`, and `solution` has no \\boxed{...}")?
            }
            (None, None) => return Err("missing field `answer`"),
        };
        Ok(Self { question: json.question, answer, subject: json.subject })
    }
}

/// A question with choices: MMLU.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "ChoiceJson")]
pub struct Choice {
    /// The question.
    pub question: String,
    /// The choices.
    pub choices: Vec<String>,
    /// Index of the right choice.
    pub answer: usize,
    /// Subject.
    pub subject: Option<String>,
}

#[derive(Deserialize)]
struct ChoiceJson {
    question: String,
    choices: Vec<String>,
    answer: Index,
    subject: Option<String>,
}

/// The index of a choice, or its letter.
#[derive(Deserialize)]
#[serde(untagged)]
enum Index {
    Number(usize),
    Letter(String),
}

impl TryFrom<ChoiceJson> for Choice {
    type Error = &'static str;

    fn try_from(json: ChoiceJson) -> Result<Self, Self::Error> {
        let ChoiceJson { question, choices, answer, subject } = json;
        let wrong = "`answer` is neither the index nor the letter of one of 2 to 26 `choices`";
        let answer = match answer {
            Index::Number(index) => index,
            Index::Letter(text) => match text.trim().as_bytes() {
                [letter @ b'A'..=b'Z'] => usize::from(letter - b'A'),
                _ => text.trim().parse().map_err(|_| wrong)?,
            },
        };
        if answer >= choices.len() || !(2..=MOST_CHOICES).contains(&choices.len()) {
            return Err(wrong);
        }
        Ok(Self { question, choices, answer, subject })
    }
}

impl Choice {
    /// Letter of a choice.
    pub fn letter(index: usize) -> char {
        char::from(b'A' + u8::try_from(index.min(MOST_CHOICES - 1)).unwrap_or_default())
    }

    /// The choices with their letters, one per line.
    pub fn list(&self) -> String {
        let lines = self.choices.iter().enumerate();
        let lines = lines.map(|(i, choice)| format!("{}. {choice}", Self::letter(i)));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// An instruction: AlpacaEval.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Instruction {
    /// The instruction.
    pub instruction: String,
    /// Where it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
}

/// Fields of a kind of question.
pub trait Question: serde::de::DeserializeOwned {
    /// The fields, for errors.
    const FIELDS: &'static str;

    /// Reads a file.
    fn read(path: &Path) -> Result<Vec<Self>, EvalError> {
        let questions: Vec<Self> = read_jsonl(path, Self::FIELDS)?;
        match questions.is_empty() {
            true => Err(EvalError::Nothing { what: "a question" }),
            false => Ok(questions),
        }
    }
}

impl Question for Problem {
    const FIELDS: &'static str = "`problem` or `question`, and `answer` or `solution`";
}

impl Question for Choice {
    const FIELDS: &'static str = "`question`, `choices` and `answer`";
}

impl Question for Instruction {
    const FIELDS: &'static str = "`instruction`";
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn problem(json: Value) -> Result<Problem, String> {
        from_value(json).map_err(|error: serde_json::Error| error.to_string())
    }

    #[test]
    fn problems_have_the_fields_of_their_datasets() {
        let aime = problem(json!({"id": 1, "Problem": "?", "Answer": 25})).unwrap();
        assert_eq!((aime.question.as_str(), aime.answer.as_str()), ("?", "25"));
        let math = json!({"problem": "?", "solution": "So \\boxed{\\frac12}.", "type": "Algebra"});
        let math = problem(math).unwrap();
        assert_eq!((math.answer.as_str(), math.subject.as_deref()), ("\\frac12", Some("Algebra")));
        let error = problem(json!({"problem": "?", "solution": "none"})).unwrap_err();
        assert!(error.contains("no \\boxed"), "{error}");
        assert!(problem(json!({"question": "?"})).unwrap_err().contains("`answer`"));
    }

    #[test]
    fn choices_are_named_by_index_or_letter() {
        let with = |answer: Value| {
            from_value::<Choice>(json!({"question": "?", "choices": ["a", "b"], "answer": answer}))
        };
        assert_eq!(with(json!(1)).unwrap().answer, 1);
        assert_eq!(with(json!("B")).unwrap().answer, 1);
        assert_eq!(with(json!("B")).unwrap().list(), "A. a\nB. b");
        assert!(with(json!(2)).is_err() && with(json!("C")).is_err() && with(json!(-1)).is_err());
    }
}
