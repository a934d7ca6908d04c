//! Tokenizers: held to the ids of the `tokenizers` Python package, from `tokenizer.json` and from ggml's keys;
//! and what hostile ones may do. tests/golden/tokenizer/make_tokenizers.py makes the vectors.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value as Json;
use vaquita_runtime::gguf::Metadata;
use vaquita_runtime::tokenizer::{Tokenizer, TokenizerError};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn reference() -> Tokenizer {
    Tokenizer::from_folder(&root().join("calibration/reference")).unwrap()
}

fn golden(name: &str) -> Json {
    let path = root().join(format!("tests/golden/tokenizer/{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Texts and the ids they must have.
fn cases(golden: &Json) -> Vec<(String, Vec<u32>)> {
    serde_json::from_value(golden["cases"].clone()).unwrap()
}

/// ggml's keys of a small tokenizer.
fn ggml(golden: &Json) -> Metadata {
    let strings =
        |key: &str| -> Vec<String> { serde_json::from_value(golden[key].clone()).unwrap() };
    let types: Vec<i32> = serde_json::from_value(golden["token_type"].clone()).unwrap();
    let mut metadata = Metadata::new();
    metadata.insert("tokenizer.ggml.model", "gpt2");
    metadata.insert("tokenizer.ggml.pre", golden["pre"].as_str().unwrap());
    metadata.insert("tokenizer.ggml.tokens", strings("tokens"));
    metadata.insert("tokenizer.ggml.token_type", types);
    metadata.insert("tokenizer.ggml.merges", strings("merges"));
    metadata.insert("tokenizer.ggml.bos_token_id", 0u32);
    metadata
}

#[test]
fn the_reference_tokenizer_cuts_nasty_text_as_python_does() {
    let tokenizer = reference();
    let cases = cases(&golden("reference"));
    assert!(cases.len() > 15);
    for (text, ids) in cases {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids), text);
    }
}

#[test]
fn every_pre_tokenizer_cuts_as_python_does_from_ggmls_keys_alone() {
    for name in ["deepseek-v3", "deepseek-coder", "qwen2", "llama-bpe", "gpt-4o", "gpt-2"] {
        let golden = golden(name);
        let tokenizer = Tokenizer::from_metadata(&ggml(&golden)).unwrap();
        for (text, ids) in cases(&golden) {
            assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids), text, "{name}");
        }
        assert_eq!(tokenizer.add_bos(), name == "llama-bpe", "{name}");
    }
}

#[test]
fn deepseek_llm_cuts_letters_punctuation_numbers_and_chinese_apart() {
    let mut metadata = ggml(&golden("gpt-2"));
    metadata.insert("tokenizer.ggml.pre", "deepseek-llm");
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    for (text, _) in cases(&golden("gpt-2")) {
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
    }
    // No token spans a letter and a digit, or two lines.
    for id in tokenizer.encode("ab12cd\n\nef 法国12").unwrap() {
        let piece = String::from_utf8_lossy(tokenizer.piece(id).unwrap()).into_owned();
        let (letters, digits) =
            (piece.contains(char::is_alphabetic), piece.contains(|c: char| c.is_ascii_digit()));
        assert!(!(letters && digits || piece.contains("\n\n")), "{piece:?}");
    }
}

#[test]
fn metadata_brings_a_tokenizer_back_with_and_without_its_json() {
    let tokenizer = reference();
    let mut metadata = Metadata::new();
    tokenizer.write_metadata(&mut metadata);
    assert_eq!(metadata.str("tokenizer.ggml.pre").unwrap(), Some("deepseek-v3"));
    let whole = Tokenizer::from_metadata(&metadata).unwrap();
    metadata.remove("tokenizer.huggingface.json").unwrap();
    let keys = Tokenizer::from_metadata(&metadata).unwrap();
    for read in [whole, keys] {
        for (text, ids) in cases(&golden("reference")) {
            assert_eq!(read.encode(&text).unwrap(), ids, "{text:?}");
        }
        assert_eq!((read.bos(), read.eos(), read.add_bos()), (Some(0), Some(1), true));
        assert_eq!(read.vocab_size(), tokenizer.vocab_size());
        assert_eq!(read.chat_template(), tokenizer.chat_template());
        for id in 0..2048 {
            assert_eq!(read.piece(id), tokenizer.piece(id));
            assert_eq!(read.is_special(id), tokenizer.is_special(id), "{id}");
        }
    }
}

#[test]
fn special_tokens_are_known() {
    let tokenizer = reference();
    let think = tokenizer.token_to_id("<think>").unwrap();
    assert!(!tokenizer.is_special(think));
    assert!(tokenizer.is_special(tokenizer.token_to_id("<｜User｜>").unwrap()));
    assert_eq!(tokenizer.piece(think), Some("<think>".as_bytes()));
    assert_eq!(tokenizer.piece(9999), None);
    assert_eq!(tokenizer.vocab_size(), 2048);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_text_comes_back(text in "(\\PC|\\s|<think>|[0-9 ]){0,60}") {
        let tokenizer = reference();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
    }
}

fn refused(metadata: &Metadata) -> String {
    match Tokenizer::from_metadata(metadata) {
        Ok(_) => panic!("it is taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn keys_that_do_not_fit_each_other_are_refused() {
    let good = ggml(&golden("gpt-2"));
    let with = |change: &dyn Fn(&mut Metadata)| {
        let mut metadata = good.clone();
        change(&mut metadata);
        refused(&metadata)
    };
    let message = with(&|m| m.insert("tokenizer.ggml.pre", "abacus"));
    assert!(message.contains("abacus") && message.contains("deepseek-v3"), "{message}");
    let message = with(&|m| m.insert("tokenizer.ggml.model", "llama"));
    assert!(message.contains("is llama; allowed: gpt2"), "{message}");
    let message = with(&|m| m.insert("tokenizer.ggml.token_type", vec![1i32]));
    assert!(message.contains("token_type is 1"), "{message}");
    let message = with(&|m| m.insert("tokenizer.ggml.merges", vec!["ab".to_string()]));
    assert!(message.contains("two tokens with a space between"), "{message}");
    let message = with(&|m| m.insert("tokenizer.ggml.merges", vec!["nope never".to_string()]));
    assert!(message.starts_with("tokenizer: "), "{message}");
    let message = with(&|m| m.insert("tokenizer.ggml.eos_token_id", 600u32));
    assert!(message.contains("eos_token_id is 600"), "{message}");
    let message = with(&|m| m.insert("tokenizer.ggml.tokens", vec!["a".to_string(), "a".into()]));
    assert!(message.contains("token"), "{message}");
    let message = with(&|m| {
        m.remove("tokenizer.ggml.tokens");
    });
    assert!(message.contains("tokenizer.ggml.tokens is missing"), "{message}");
}

fn reference_json() -> Json {
    let path = root().join("calibration/reference/tokenizer.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn from_value(json: &Json) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_json(&serde_json::to_vec(json).unwrap())
}

#[test]
fn a_tokenizer_json_of_another_kind_is_refused() {
    let mut json = reference_json();
    json["model"]["type"] = "Unigram".into();
    assert!(matches!(from_value(&json), Err(TokenizerError::Value { .. })));
    let mut json = reference_json();
    json["added_tokens"][0]["id"] = (1u64 << 40).into();
    let message = from_value(&json).err().unwrap().to_string();
    assert!(message.contains("allowed: 0 to 1048575"), "{message}");
    let mut json = reference_json();
    json["decoder"] = Json::Null;
    json["pre_tokenizer"] = Json::Null;
    assert!(from_value(&json).is_err());
    assert!(matches!(Tokenizer::from_json(b"{"), Err(TokenizerError::Json(_))));
}

#[test]
fn an_expression_that_explodes_is_given_up_on_and_loses_nothing() {
    let mut json = reference_json();
    json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(?=(a+)+$)(a|aa)+b".into();
    let tokenizer = from_value(&json).unwrap();
    let text = "a".repeat(60) + "c";
    assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
    json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(unclosed".into();
    assert!(from_value(&json).is_err());
}

#[test]
fn bytes_that_are_flipped_never_panic() {
    let path = root().join("calibration/reference/tokenizer.json");
    let good = std::fs::read(path).unwrap();
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for _ in 0..150 {
        let mut bad = good.clone();
        for _ in 0..1 + random(3) {
            // Most of the file is vocabulary; its head is where structure is.
            let at = if random(2) == 0 { random(6000) } else { random(bad.len()) };
            bad[at] = b"\"{}[],:0x-\\"[random(11)];
        }
        if let Ok(tokenizer) = Tokenizer::from_json(&bad) {
            let _ = tokenizer.encode("Ali has 22 cups.\n<think>").map(|ids| tokenizer.decode(&ids));
        }
    }
}
