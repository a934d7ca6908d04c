//! Right answers among samples: pass@1, the majority's answer, and how answers failed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ask::Answered;
use super::estimate::Estimate;
use super::extract::{self, after_reasoning};
use super::gsm8k;
use super::math;
use super::questions::{Choice, Problem};

/// Result of questions that were answered several times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PassRate {
    /// Mean over questions of the fraction of samples that are right by the strict rule.
    pub pass_at_1: Estimate,
    /// The same by the flexible rule, which finds answers outside of a box or mark.
    pub flexible: Estimate,
    /// Fraction of questions whose most frequent answer is right: "cons@k". Of equally frequent
    /// answers, the first counts.
    pub majority: Estimate,
    /// `pass_at_1` by subject, if the questions have one.
    pub subjects: BTreeMap<String, Estimate>,
    /// Number of questions.
    pub questions: usize,
    /// Number of answers per question.
    pub samples: usize,
    /// Number of answers in which the strict rule finds none.
    pub without_answer: usize,
    /// Number of answers that were cut short.
    pub cut: usize,
    /// Mean number of tokens of an answer.
    pub tokens: f64,
}

/// How a protocol finds an answer in a text and compares it.
struct Rules<'a> {
    /// The answer in the demanded form.
    strict: &'a dyn Fn(&str) -> Option<String>,
    /// The answer in any form.
    flexible: &'a dyn Fn(&str) -> Option<String>,
    /// Whether two answers are equal; the right one comes second.
    equal: &'a dyn Fn(&str, &str) -> bool,
}

/// AIME and MATH: an answer in a box, in any equal form.
pub fn of_problems(problems: &[Problem], answers: &[Vec<Answered>]) -> PassRate {
    let rules = Rules {
        strict: &|text| extract::boxed(text).map(String::from),
        flexible: &|text| extract::flexible(text).map(String::from),
        equal: &|given, right| math::equal(given, right),
    };
    let right = |problem: &Problem| (problem.answer.clone(), problem.subject.clone());
    grade(problems.iter().map(right), answers, &rules)
}

/// GSM8K: an answer behind `####`, or the last number.
pub fn of_gsm8k(problems: &[Problem], answers: &[Vec<Answered>]) -> PassRate {
    let rules = Rules {
        strict: &|text| gsm8k::strict(text).map(String::from),
        flexible: &|text| gsm8k::flexible(text).map(String::from),
        equal: &|given, right| gsm8k::matches(Some(given), right),
    };
    let right = |problem: &Problem| (problem.answer.clone(), problem.subject.clone());
    grade(problems.iter().map(right), answers, &rules)
}

/// MMLU as generated answers: a letter in a box, or anywhere.
pub fn of_choices(choices: &[Choice], answers: &[Vec<Answered>]) -> PassRate {
    let most = choices.iter().map(|choice| choice.choices.len()).max().unwrap_or_default();
    let letter =
        |text: &str| extract::letter(text, most).map(|index| Choice::letter(index).to_string());
    let rules = Rules {
        strict: &|text| extract::boxed(text).and_then(letter),
        flexible: &letter,
        equal: &|given, right| given == right,
    };
    let right =
        |choice: &Choice| (Choice::letter(choice.answer).to_string(), choice.subject.clone());
    grade(choices.iter().map(right), answers, &rules)
}

/// Grades the answers to questions of which the right answer and the subject are known.
fn grade(
    questions: impl Iterator<Item = (String, Option<String>)>,
    answers: &[Vec<Answered>],
    rules: &Rules,
) -> PassRate {
    let (mut strict, mut flexible, mut majority) = (Vec::new(), Vec::new(), Vec::new());
    let mut subjects: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut without_answer = 0;
    for ((right, subject), samples) in questions.zip(answers) {
        let texts: Vec<&str> = samples.iter().map(|one| after_reasoning(&one.answer)).collect();
        let found: Vec<Option<String>> = texts.iter().map(|text| (rules.strict)(text)).collect();
        let is_right = |given: &Option<String>| {
            given.as_ref().is_some_and(|given| (rules.equal)(given, &right))
        };
        let rate = share(found.iter().map(is_right));
        strict.push(rate);
        flexible.push(share(texts.iter().map(|text| is_right(&(rules.flexible)(text)))));
        let common = most_frequent(&found, rules.equal).cloned();
        majority.push(share([is_right(&common)].into_iter()));
        if let Some(subject) = subject {
            subjects.entry(subject).or_default().push(rate);
        }
        without_answer += found.iter().filter(|found| found.is_none()).count();
    }
    let all = || answers.iter().flatten();
    let tokens: usize = all().map(|one| one.tokens).sum();
    PassRate {
        pass_at_1: Estimate::of(&strict),
        flexible: Estimate::of(&flexible),
        majority: Estimate::of(&majority),
        subjects: subjects.into_iter().map(|(name, of)| (name, Estimate::of(&of))).collect(),
        questions: strict.len(),
        samples: answers.first().map_or(0, Vec::len),
        without_answer,
        cut: all().filter(|one| one.cut).count(),
        tokens: tokens as f64 / all().count().max(1) as f64,
    }
}

fn share(of: impl ExactSizeIterator<Item = bool>) -> f64 {
    let len = of.len().max(1) as f64;
    of.filter(|is| *is).count() as f64 / len
}

/// The first of the most frequent answers.
fn most_frequent<'a>(
    found: &'a [Option<String>],
    equal: &dyn Fn(&str, &str) -> bool,
) -> Option<&'a String> {
    let mut groups: Vec<(&String, usize)> = Vec::new();
    for answer in found.iter().flatten() {
        match groups.iter_mut().find(|(first, _)| equal(answer, first)) {
            Some((_, count)) => *count += 1,
            None => groups.push((answer, 1)),
        }
    }
    let most = groups.iter().map(|(_, count)| *count).max()?;
    groups.into_iter().find(|(_, count)| *count == most).map(|(answer, _)| answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(texts: &[&str]) -> Vec<Answered> {
        let answered = |text: &&str| Answered {
            answer: text.to_string(),
            reasoning: String::new(),
            tokens: 10,
            cut: text.is_empty(),
        };
        texts.iter().map(answered).collect()
    }

    fn problem(answer: &str) -> Problem {
        Problem { question: "?".into(), answer: answer.into(), subject: Some("s".into()) }
    }

    #[test]
    fn samples_are_averaged_per_question() {
        let problems = [problem("\\frac{1}{2}"), problem("3")];
        let first = ["so \\boxed{0.5}", "\\boxed{1}", "\\boxed{\\frac12}", "It is 0.5"];
        let second = ["\\boxed{4}", "", "\\boxed{4}", "</think>\\boxed{3}"];
        let found = of_problems(&problems, &[answers(&first), answers(&second)]);
        assert_eq!(found.pass_at_1.mean, (0.5 + 0.25) / 2.0);
        assert_eq!(found.flexible.mean, (0.75 + 0.25) / 2.0);
        assert_eq!(found.majority.mean, 0.5);
        assert_eq!((found.questions, found.samples, found.without_answer, found.cut), (2, 4, 2, 1));
        assert_eq!(found.subjects["s"], found.pass_at_1);
        assert_eq!(found.tokens, 10.0);
    }

    #[test]
    fn marks_of_gsm8k_are_strict_and_last_numbers_flexible() {
        let problems = [problem("6 * 7 = 42\n#### 42")];
        let found = of_gsm8k(&problems, &[answers(&["#### 42 or 43", "42.", "#### 42"])]);
        assert_eq!(found.pass_at_1.mean, 2.0 / 3.0);
        assert_eq!(found.flexible.mean, 2.0 / 3.0);
    }

    #[test]
    fn letters_are_found_with_and_without_a_box() {
        let choices = vec!["a".into(), "b".into()];
        let choice = Choice { question: "?".into(), choices, answer: 1, subject: None };
        let found = of_choices(&[choice], &[answers(&["\\boxed{B}", "B", "A"])]);
        assert_eq!((found.pass_at_1.mean, found.flexible.mean), (1.0 / 3.0, 2.0 / 3.0));
        assert_eq!(found.without_answer, 2);
    }
}
