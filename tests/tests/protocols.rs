//! Evaluation by published protocols: small question files in each format, and the reference model.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde_json::{Map, json};
use vaquita_calibration::Subject;
use vaquita_calibration::protocol::ask::{Answered, Asking, ask};
use vaquita_calibration::protocol::journal::Journal;
use vaquita_calibration::protocol::multiple_choice::{accuracy, score};
use vaquita_calibration::protocol::pass_rate::{of_choices, of_gsm8k, of_problems};
use vaquita_calibration::protocol::prompts::{self, fill};
use vaquita_calibration::protocol::questions::{Choice, Instruction, Problem, Question};
use vaquita_calibration::tasks;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_tests::{golden, open_folder, reference};

static SUBJECT: LazyLock<Subject> = LazyLock::new(|| {
    let tokenizer = Tokenizer::from_folder(&reference()).unwrap();
    let prompter = Prompter::new(Arc::new(tokenizer)).unwrap();
    let options = SessionOptions { cache: CacheType::F32, ..SessionOptions::default() };
    Subject { model: open_folder(&reference()), prompter, options }
});

fn file(name: &str) -> PathBuf {
    golden("protocol").join(format!("{name}.jsonl"))
}

fn problems(name: &str) -> Vec<Problem> {
    Problem::read(&file(name)).unwrap()
}

fn asking(samples: usize, temperature: f32) -> Asking {
    Asking {
        chat: true,
        variables: Map::new(),
        samples,
        sampling: SamplingOptions { temperature, seed: 3, ..SamplingOptions::default() },
        max_tokens: Some(256),
        stop: Vec::new(),
    }
}

/// Answers to prompts without instructions, which the reference model does not know.
fn answers(prompts: &[String], asking: &Asking, kept: Option<&Path>) -> Vec<Vec<Answered>> {
    let journal = match kept {
        Some(path) => Journal::open(path, &json!({"seed": 3})).unwrap(),
        None => Journal::none(),
    };
    ask(&SUBJECT, prompts, asking, &journal, &|_, _| {}).unwrap()
}

fn bare(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| fill("{question}", problem)).collect()
}

/// How many questions of `eval.jsonl` with these texts the model answers right.
fn right_answers(texts: &[String]) -> usize {
    let all = tasks::Question::read(&reference().join("eval.jsonl")).unwrap();
    let known: Vec<_> = all.into_iter().filter(|one| texts.contains(&one.question)).collect();
    let grades = tasks::grade(&SUBJECT, &known, &|_, _| {}).unwrap();
    grades.tasks.values().map(|[right, _]| right).sum()
}

#[test]
fn answers_in_other_forms_are_as_right_as_in_their_own() {
    for name in ["aime", "math"] {
        let problems = problems(name);
        let texts = bare(&problems);
        let rate = of_problems(&problems, &answers(&texts, &asking(1, 0.0), None));
        let right = right_answers(&texts) as f64 / problems.len() as f64;
        assert!(right > 0.8, "{right}");
        assert_eq!(rate.flexible.mean, right, "{rate:?}");
        // The reference model writes no boxes.
        assert_eq!((rate.pass_at_1.mean, rate.without_answer), (0.0, problems.len()));
    }
}

#[test]
fn calculations_of_gsm8k_are_graded_by_their_last_number() {
    let problems = problems("gsm8k");
    let texts = bare(&problems);
    let rate = of_gsm8k(&problems, &answers(&texts, &asking(1, 0.0), None));
    assert_eq!(rate.flexible.mean, right_answers(&texts) as f64 / problems.len() as f64);
}

#[test]
fn generated_letters_are_graded() {
    let choices = Choice::read(&file("mmlu")).unwrap();
    let texts: Vec<String> =
        choices.iter().map(|choice| fill("{question}\n{choices}", choice)).collect();
    let rate = of_choices(&choices, &answers(&texts, &asking(1, 0.0), None));
    assert_eq!(rate.flexible.mean, right_answers(&texts) as f64 / choices.len() as f64);
    assert!(rate.subjects.contains_key("animal"));
}

#[test]
fn samples_are_reproducible_and_a_run_goes_on() {
    let texts = bare(&problems("aime"));
    let few = asking(2, 1.3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers.jsonl");
    let all = answers(&texts, &few, None);
    let differ = all.iter().filter(|samples| samples[0].reasoning != samples[1].reasoning).count();
    assert!(differ > 0, "samples are draws of their own");
    answers(&texts[..5], &few, Some(&path));
    // Whatever is in the file is taken from it.
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1 + 5 * 2);
    let marked = text.replacen("\"tokens\":", "\"tokens\":1000", 1);
    std::fs::write(&path, marked).unwrap();
    let again = answers(&texts, &few, Some(&path));
    let same = |(a, b): (&Vec<Answered>, &Vec<Answered>)| a == b;
    assert_eq!(all.iter().zip(&again).filter(|pair| !same(*pair)).count(), 1);
    // More samples begin with those before.
    let more = answers(&texts[..2], &asking(3, 1.3), None);
    assert_eq!(more[1][..2], all[1]);
}

#[test]
fn likelihoods_are_those_of_each_continuation_alone() {
    let choices = Choice::read(&file("mmlu")).unwrap();
    let texts: Vec<String> = choices
        .iter()
        .map(|choice| prompts::introduction(choice) + &fill(prompts::MMLU, choice))
        .collect();
    let scores = score(&SUBJECT, &texts, &choices, &Journal::none(), &|_, _| {}).unwrap();
    for (text, scores) in texts.iter().zip(&scores).take(4) {
        let alone = |letter: &str| {
            let context = SUBJECT.prompter.raw(text).unwrap().tokens.len();
            let tokens = SUBJECT.prompter.raw(&format!("{text} {letter}")).unwrap().tokens;
            let pool = Arc::new(Pool::new(1));
            let mut session = Session::new(SUBJECT.model.clone(), pool, SUBJECT.options.clone());
            let logits = session.feed_all(&tokens).unwrap();
            let rows: Vec<&[f32]> = logits.chunks_exact(logits.len() / tokens.len()).collect();
            let of = |at: usize| {
                let row: Vec<f64> = rows[at - 1].iter().map(|logit| f64::from(*logit)).collect();
                let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = row.iter().map(|logit| (logit - most).exp()).sum();
                row[tokens[at] as usize] - most - sum.ln()
            };
            (context..tokens.len()).map(of).sum::<f64>()
        };
        for (found, letter) in scores.loglikelihoods.iter().zip(["A", "B", "C", "D"]) {
            assert!((found - alone(letter)).abs() < 1e-12, "{found} {}", alone(letter));
        }
    }
    let result = accuracy(&choices, &scores);
    assert_eq!(result.questions, choices.len());
    assert!(result.accuracy.se.unwrap() > 0.0);
}

#[test]
fn instructions_are_read() {
    let instructions = Instruction::read(&file("alpaca")).unwrap();
    assert_eq!(instructions.len(), 6);
    assert_eq!(instructions[0].dataset.as_deref(), Some("own"));
}
