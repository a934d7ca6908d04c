//! The reference model compared with transformers (texts, grades, perplexity), and limits on the
//! loss from quantization.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use vaquita_calibration::divergence::{Divergence, divergence};
use vaquita_calibration::perplexity::perplexity;
use vaquita_calibration::tasks::{Question, answer, grade};
use vaquita_calibration::{Subject, read_documents};
use vaquita_quantize::Target;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::SessionOptions;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_tests::{open_folder, quantized, reference};

/// Results of transformers: `figures.json`.
const ACCURACY: f64 = 0.9225;
const PERPLEXITY: f64 = 1.2892844676971436;
const TOKENS: usize = 18770;

static FULL: LazyLock<Subject> =
    LazyLock::new(|| subject(open_folder(&reference()), CacheType::F32));

fn subject(model: Arc<Model>, cache: CacheType) -> Subject {
    let tokenizer = Tokenizer::from_folder(&reference()).unwrap();
    let prompter = Prompter::new(Arc::new(tokenizer)).unwrap();
    let options = SessionOptions { cache, ..SessionOptions::default() };
    Subject { model, prompter, options }
}

fn questions() -> Vec<Question> {
    Question::read(&reference().join("eval.jsonl")).unwrap()
}

fn documents() -> Vec<String> {
    read_documents(&reference().join("heldout.jsonl")).unwrap()
}

fn quantized_subject(out: &Path, ty: BlockType, target: Option<Target>) -> Subject {
    subject(quantized(&reference(), out, ty, target), CacheType::F16)
}

#[test]
fn stored_texts_are_said_again() {
    let stored = questions().into_iter().filter_map(|one| Some((one.question, one.greedy?)));
    let same: Vec<bool> =
        stored.map(|(question, text)| answer(&FULL, &question).unwrap() == text).collect();
    let count = same.iter().filter(|same| **same).count();
    assert_eq!(same.len(), 60);
    assert!(count >= 57, "{count} of 60");
}

/// Tasks in which the model errs, and some in which it does not, with what transformers got right:
/// a part of `figures.json` keeps the suite short.
const TASKS: [(&str, [usize; 2]); 6] = [
    ("add", [35, 37]),
    ("choice", [13, 30]),
    ("code", [8, 8]),
    ("max", [15, 16]),
    ("reverse", [5, 5]),
    ("unit", [18, 19]),
];

#[test]
fn grades_are_those_of_transformers() {
    let mut questions = questions();
    questions.retain(|question| TASKS.iter().any(|(task, _)| *task == question.task));
    let grades = grade(&FULL, &questions, &|_, _| {}).unwrap();
    for (task, [right, all]) in TASKS {
        let [found, asked] = grades.tasks[task];
        assert_eq!(asked, all, "{task}");
        assert!(found.abs_diff(right) <= 1, "{task}: {found} instead of {right}");
    }
}

#[test]
fn perplexity_is_that_of_transformers() {
    let result = perplexity(&FULL, &documents(), &|_, _| {}).unwrap();
    assert_eq!(result.tokens, TOKENS);
    assert!((result.perplexity / PERPLEXITY - 1.0).abs() < 0.005, "{result:?}");
}

fn diverge(ty: BlockType, target: Option<Target>) -> Divergence {
    let folder = tempfile::tempdir().unwrap();
    let subject = quantized_subject(&folder.path().join("model.gguf"), ty, target);
    // A part of the documents keeps the suite short.
    divergence(&subject, &FULL, &documents()[..40], &|_, _| {}).unwrap()
}

#[test]
fn more_bits_diverge_less() {
    let e8 = diverge(BlockType::E8, None);
    assert!(e8.mean_kld <= 1e-3, "{e8:?}");
    let e4 = diverge(BlockType::E4, None);
    let mixed = diverge(BlockType::E4, Some(Target::BitsPerWeight(4.6)));
    assert!(e8.mean_kld < e4.mean_kld && e4.mean_kld < mixed.mean_kld, "{e8:?} {e4:?} {mixed:?}");
    assert!(mixed.same_top > 0.95, "{mixed:?}");
}

#[test]
fn a_cache_in_eight_bits_costs_little() {
    let folder = tempfile::tempdir().unwrap();
    let model = quantized(&reference(), &folder.path().join("model.gguf"), BlockType::E4, None);
    let [half, eight] = [CacheType::F16, CacheType::Q8].map(|ty| subject(model.clone(), ty));
    let result = divergence(&eight, &half, &documents()[..40], &|_, _| {}).unwrap();
    assert!(result.mean_kld > 0.0, "it rounds");
    assert!(result.mean_kld <= 3e-5 && result.same_top > 0.995, "{result:?}");
}

#[test]
fn four_bits_answer_nearly_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let subject = quantized_subject(&folder.path().join("model.gguf"), BlockType::E4, None);
    let grades = grade(&subject, &questions(), &|_, _| {}).unwrap();
    assert!(grades.accuracy >= ACCURACY - 0.03, "{grades:?}");
}
