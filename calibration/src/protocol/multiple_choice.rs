//! Multiple choice by likelihood: the model's choice is the continuation of the prompt that it
//! finds most likely.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::estimate::Estimate;
use super::journal::Journal;
use super::questions::Choice;
use crate::softmax::log_softmax;
use crate::{EvalError, OnProgress, Subject};

/// Log-likelihoods of the choices of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Sum over the tokens of each choice.
    pub loglikelihoods: Vec<f64>,
}

/// Result of multiple choice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Fraction of questions of which the most likely choice is right.
    pub accuracy: Estimate,
    /// `accuracy` by subject, if the questions have one.
    pub subjects: BTreeMap<String, Estimate>,
    /// Number of questions.
    pub questions: usize,
}

/// Scores the letters of the choices of each question after its prompt.
pub fn score(
    subject: &Subject,
    prompts: &[String],
    choices: &[Choice],
    journal: &Journal<Scores>,
    on_progress: OnProgress,
) -> Result<Vec<Scores>, EvalError> {
    let done = AtomicUsize::new(0);
    let score = |(question, (prompt, choice)): (usize, (&String, &Choice))| {
        let scores = match journal.known(question, 0) {
            Some(known) => known.clone(),
            None => {
                let targets: Vec<String> =
                    (0..choice.choices.len()).map(|i| format!(" {}", Choice::letter(i))).collect();
                let scores = Scores { loglikelihoods: continuations(subject, prompt, &targets)? };
                journal.keep(question, 0, &scores)?;
                scores
            }
        };
        on_progress(done.fetch_add(1, Ordering::Relaxed) + 1, prompts.len());
        Ok(scores)
    };
    prompts.par_iter().zip(choices).enumerate().map(score).collect()
}

/// Log-likelihoods of continuations of a text. As in lm-evaluation-harness, blanks at the end of
/// the text belong to the continuation, and the tokens of a continuation are those of both together
/// without as many as the text has alone.
fn continuations(
    subject: &Subject,
    text: &str,
    continuations: &[String],
) -> Result<Vec<f64>, EvalError> {
    let mut session = subject.session();
    let context = text.trim_end();
    let blanks = &text[context.len()..];
    let given = subject.prompter.raw(context)?.tokens.len();
    let mut score = |continuation: &String| {
        let tokens = subject.prompter.raw(&format!("{context}{blanks}{continuation}"))?.tokens;
        let from = given.min(tokens.len().saturating_sub(1));
        if from == 0 {
            return Err(EvalError::Nothing { what: "a text before the choices" });
        }
        // The last token before the continuation is read again for its logits.
        let kept = session.keep_common_prefix(&tokens[..from - 1]);
        if kept < from - 1 {
            session.feed(&tokens[kept..from - 1])?;
        }
        let logits = session.feed_all(&tokens[from - 1..tokens.len() - 1])?;
        let targets = &tokens[from..];
        let rows = logits.chunks_exact(logits.len() / targets.len());
        let scores = rows.zip(targets).map(|(row, target)| log_softmax(row)[*target as usize]);
        Ok(scores.sum())
    };
    continuations.iter().map(&mut score).collect()
}

/// The accuracy of scores. Of equally likely choices, the first counts.
pub fn accuracy(choices: &[Choice], scores: &[Scores]) -> Accuracy {
    let mut subjects: BTreeMap<&String, Vec<bool>> = BTreeMap::new();
    let mut right = Vec::new();
    for (choice, scores) in choices.iter().zip(scores) {
        let found = &scores.loglikelihoods;
        let best = (0..found.len()).reduce(|best, i| if found[i] > found[best] { i } else { best });
        right.push(best == Some(choice.answer));
        if let Some(subject) = &choice.subject {
            subjects.entry(subject).or_default().push(best == Some(choice.answer));
        }
    }
    let of = |(name, right): (&String, Vec<bool>)| (name.clone(), Estimate::share(right));
    Accuracy {
        questions: right.len(),
        accuracy: Estimate::share(right),
        subjects: subjects.into_iter().map(of).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_likely_choice_counts() {
        let choice = |answer, subject: &str| Choice {
            question: "?".into(),
            choices: vec!["a".into(), "b".into()],
            answer,
            subject: Some(subject.into()),
        };
        let choices = [choice(0, "x"), choice(1, "x"), choice(1, "y")];
        let scores = |a, b| Scores { loglikelihoods: vec![a, b] };
        let found =
            accuracy(&choices, &[scores(-1.0, -2.0), scores(-1.0, -1.0), scores(-3.0, -2.0)]);
        assert_eq!(found.accuracy.mean, 2.0 / 3.0);
        assert_eq!((found.subjects["x"].mean, found.subjects["y"].mean), (0.5, 1.0));
    }
}
