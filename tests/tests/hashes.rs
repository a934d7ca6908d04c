//! Hashes of quantized models' logits, which are the same on every machine. x86-64 runs this
//! natively, ARM under emulation (.ci/aarch64).

use std::sync::Arc;

use vaquita_calibration::Subject;
use vaquita_calibration::tasks::{Question, answer};
use vaquita_quantize::Target;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::isa::Tier;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_tests::{golden, goldens, quantized, reference};

/// Hashes of V2-Lite, V2, V3 and Moonlight, each in e2, e3, e4, e8 and f16.
#[rustfmt::skip]
const LOGITS: [u32; 20] = [
    0xe9a5_7c8e, 0x45cc_4b63, 0xb1cb_c77b, 0x5247_1826, 0x84ad_f055,
    0x8a86_1ef0, 0xf4b0_5ce0, 0x8332_a024, 0xc774_f990, 0x5db4_fdb8,
    0xf44f_d8b8, 0x9fc3_cfca, 0x6bf6_67b0, 0xb45a_aa52, 0x64ef_227a,
    0x28b1_2015, 0xa442_88eb, 0x5661_8f16, 0x238d_7f55, 0x5475_ca2e,
];
/// Hash of the reference model with mixed experts.
const REFERENCE: u32 = 0x7e4c_2a76;

/// CRC-32 of the logits' bytes on this machine's best instruction set.
fn hash(model: &Arc<vaquita_runtime::model::Model>, tokens: &[u32]) -> u32 {
    let options = SessionOptions { tier: Tier::best(), ..SessionOptions::default() };
    let mut session = Session::new(model.clone(), Arc::new(Pool::new(2)), options);
    let logits = session.feed_all(tokens).unwrap();
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    crc32fast::hash(&bytes)
}

#[test]
fn quantized_models_have_the_logits_they_have_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    let mut found = Vec::new();
    for name in ["deepseek-v2-lite", "deepseek-v2", "deepseek-v3", "moonlight"] {
        let tokens = &goldens(&golden(name).join("golden.safetensors"))[0].tokens;
        for ty in [BlockType::E2, BlockType::E3, BlockType::E4, BlockType::E8, BlockType::F16] {
            let model = quantized(&golden(name), &out, ty, None);
            found.push((name, ty, hash(&model, tokens)));
        }
    }
    let numbers: Vec<u32> = found.iter().map(|(.., hash)| *hash).collect();
    assert_eq!(numbers, LOGITS, "{} says {found:x?}", Tier::best().name());
}

#[test]
fn the_reference_model_answers_as_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let target = Some(Target::BitsPerWeight(4.8));
    let model = quantized(&reference(), &folder.path().join("model.gguf"), BlockType::E4, target);
    let tokens = &goldens(&reference().join("golden.safetensors"))[0].tokens;
    assert_eq!(hash(&model, &tokens[..tokens.len().min(24)]), REFERENCE, "{}", Tier::best().name());

    let tokenizer = Tokenizer::from_folder(&reference()).unwrap();
    let prompter = Prompter::new(Arc::new(tokenizer)).unwrap();
    let subject = Subject { model, prompter, options: SessionOptions::default() };
    let questions = Question::read(&reference().join("eval.jsonl")).unwrap();
    let question = questions.iter().find(|one| one.task == "mul").unwrap();
    let text = answer(&subject, &question.question).unwrap();
    assert!(question.is_right(&text), "{text}");
}
