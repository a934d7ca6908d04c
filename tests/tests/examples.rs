//! The examples of the libraries, on the reference model.

use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::{AppModel, ModelOptions};
use vaquita_tests::reference;

#[path = "../../runtime/examples/budget.rs"]
mod budget;
#[path = "../../runtime/examples/chat.rs"]
mod chat;
#[path = "../../runtime/examples/energy.rs"]
mod energy;
#[path = "../../quantize/examples/quantize.rs"]
mod quantize;

const QUESTION: &str = "What is the capital of France?";

#[test]
fn a_checkpoint_is_quantized_and_answers_in_a_chat_within_a_budget_and_with_its_energy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    let report = quantize::file(&reference(), BlockType::E4, &file).unwrap();
    assert_eq!(report.file_bytes, std::fs::metadata(&file).unwrap().len());

    let mut said = Vec::new();
    chat::chat(&file, format!("{QUESTION}\n{QUESTION}\n").as_bytes(), &mut said).unwrap();
    let said = String::from_utf8(said).unwrap();
    assert!(said.lines().count() >= 2 && said.trim().len() > 2, "{said:?}");

    let turn = budget::answer(&file, "16GiB", QUESTION).unwrap();
    assert!(turn.generation.prompt_tokens > 0 && turn.streaming.is_none(), "all of it fits");
    assert!(budget::answer(&file, "1KiB", QUESTION).unwrap_err().to_string().contains("too few"));

    let model = AppModel::open(&file, &ModelOptions::default()).unwrap();
    let turn = energy::measure(&model, QUESTION).unwrap();
    assert!(!turn.generation.answer.is_empty());
    assert_eq!(turn.joules.is_some(), turn.prompt_joules.is_some(), "a meter covers both");
}
