//! Graded questions: the model answers greedily, and the answer is right or wrong.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use vaquita_runtime::session::chat::Message;
use vaquita_runtime::session::generate::{GenerationOptions, generate};
use vaquita_runtime::session::sampler::SamplingOptions;

use crate::{EvalError, OnProgress, Subject, read_jsonl};

/// Maximum number of tokens of an answer, including reasoning.
const MAX_TOKENS: usize = 256;

/// A question with a known answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Question {
    /// Kind of question.
    pub task: String,
    /// Text of the question.
    pub question: String,
    /// The right answer.
    pub answer: String,
    /// The full-precision model's output, including reasoning, if it was recorded.
    #[serde(default)]
    pub greedy: Option<String>,
}

impl Question {
    /// Reads questions, one per line.
    pub fn read(path: &Path) -> Result<Vec<Self>, EvalError> {
        let questions: Vec<Self> = read_jsonl(path, "`task`, `question` and `answer`")?;
        match questions.is_empty() {
            true => Err(EvalError::Nothing { what: "a question" }),
            false => Ok(questions),
        }
    }

    /// Whether `text`, reasoning and answer, is right. Stories have no single right answer: they
    /// must begin like the stories of this set.
    pub fn is_right(&self, text: &str) -> bool {
        let answer = text.rsplit("</think>").next().unwrap_or_default().trim();
        match self.task.as_str() {
            "story" => answer.chars().count() > 40 && answer.starts_with("One day a"),
            _ => answer == self.answer,
        }
    }
}

/// Results of grading.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grades {
    /// Fraction of all questions that were answered correctly.
    pub accuracy: f64,
    /// Numbers of right answers and of questions, by task.
    pub tasks: BTreeMap<String, [usize; 2]>,
}

/// The model's output for a question: reasoning, its end, and the answer.
pub fn answer(subject: &Subject, question: &str) -> Result<String, EvalError> {
    let prompt = subject.prompter.chat(&[Message::new("user", question)], None)?;
    let options = GenerationOptions {
        sampling: SamplingOptions::greedy(),
        max_tokens: Some(MAX_TOKENS),
        reasoning_open: prompt.reasoning_open,
        ..GenerationOptions::default()
    };
    let tokenizer = subject.prompter.tokenizer();
    let mut session = subject.session();
    let generation = generate(&mut session, tokenizer, &prompt.tokens, &options, &mut |_| {
        ControlFlow::Continue(())
    })?;
    Ok(tokenizer.decode(&generation.tokens))
}

/// Asks all questions.
pub fn grade(
    subject: &Subject,
    questions: &[Question],
    on_progress: OnProgress,
) -> Result<Grades, EvalError> {
    let done = AtomicUsize::new(0);
    let right: Vec<bool> = questions
        .par_iter()
        .map(|question| {
            let text = answer(subject, &question.question)?;
            on_progress(done.fetch_add(1, Ordering::Relaxed) + 1, questions.len());
            Ok(question.is_right(&text))
        })
        .collect::<Result<_, EvalError>>()?;
    Ok(tally(questions, &right))
}

fn tally(questions: &[Question], right: &[bool]) -> Grades {
    let mut tasks: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for (question, right) in questions.iter().zip(right) {
        let [good, asked] = tasks.entry(question.task.clone()).or_default();
        *good += usize::from(*right);
        *asked += 1;
    }
    let good = right.iter().filter(|right| **right).count();
    Grades { accuracy: good as f64 / questions.len().max(1) as f64, tasks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(task: &str, answer: &str) -> Question {
        Question { task: task.into(), question: "?".into(), answer: answer.into(), greedy: None }
    }

    #[test]
    fn what_follows_the_last_thought_counts() {
        let sum = question("add", "42");
        assert!(sum.is_right("40+2 </think> 41?\n</think>\n\n 42 "));
        assert!(!sum.is_right("42 </think>"));
        assert!(sum.is_right("42"));
    }

    #[test]
    fn stories_need_length_and_a_beginning() {
        let story = question("story", "");
        assert!(story.is_right("</think>One day a vaquita swam far out into the gulf to look."));
        assert!(!story.is_right("</think>One day a vaquita."));
        assert!(!story.is_right("</think>Once upon a time a vaquita swam far out into the gulf."));
    }

    #[test]
    fn grades_are_counted_by_task() {
        let questions = [question("a", "1"), question("b", "1"), question("a", "1")];
        let grades = tally(&questions, &[true, true, false]);
        assert!((grades.accuracy - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(grades.tasks["a"], [1, 2]);
        assert_eq!(grades.tasks["b"], [1, 1]);
    }
}
