//! Tokenizers: the ids are those of the Python `tokenizers` package, and nothing is lost on the way back.
//! Goldens are made by `tests/golden/tokenizer/make_tokenizers.py`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Value, json};
use vaquita_runtime::gguf::Metadata;
use vaquita_runtime::tokenizer::Tokenizer;

const TRAINED: [&str; 17] = [
    "deepseek-v3",
    "deepseek-llm",
    "deepseek-coder",
    "qwen2",
    "deepseek-r1-qwen",
    "llama-bpe",
    "chatglm-bpe",
    "gpt-4o",
    "gpt-2",
    "olmo",
    "default",
    "smollm",
    "command-r",
    "qwen35",
    "tekken",
    "bailingmoe",
    "seed-coder",
];
const HUGGINGFACE: &str = "tokenizer.huggingface.json";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn reference_folder() -> PathBuf {
    root().join("calibration/reference")
}

static REFERENCE: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_folder(&reference_folder()).unwrap());

fn golden(name: &str) -> Value {
    let path = root().join("tests/golden/tokenizer").join(format!("{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn trained(name: &str) -> (Tokenizer, Vec<Value>) {
    let golden = golden(name);
    let json = serde_json::to_vec(&golden["tokenizer"]).unwrap();
    (Tokenizer::from_json(&json).unwrap(), golden["cases"].as_array().unwrap().clone())
}

/// Metadata of a tokenizer, without the tokenizer.json.
fn ggml_keys(tokenizer: &Tokenizer) -> Metadata {
    let mut metadata = Metadata::new();
    tokenizer.write_metadata(&mut metadata);
    assert!(metadata.remove(HUGGINGFACE).is_some());
    metadata
}

fn assert_matches_python(tokenizer: &Tokenizer, cases: &[Value], name: &str) {
    for case in cases {
        let text = case["text"].as_str().unwrap();
        for (key, special) in [("ids", true), ("plain", false)] {
            let expected: Vec<u32> = serde_json::from_value(case[key].clone()).unwrap();
            let found = tokenizer.encode(text, special).unwrap();
            assert_eq!(found, expected, "{name}, {key} of {text:?}");
        }
    }
}

#[test]
fn the_reference_tokenizer_gives_pythons_ids() {
    let golden = golden("reference");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 50);
    assert_matches_python(&REFERENCE, cases, "reference");
}

#[test]
fn every_trained_tokenizer_gives_pythons_ids() {
    for name in TRAINED {
        let (tokenizer, cases) = trained(name);
        assert_matches_python(&tokenizer, &cases, name);
    }
}

#[test]
fn tokens_at_random_decode_as_in_python_invalid_utf_8_included() {
    for name in TRAINED {
        let (tokenizer, _) = trained(name);
        let samples = golden(name)["decoded"].as_array().unwrap().clone();
        assert!(samples.iter().any(|sample| sample["text"].as_str().unwrap().contains('\u{fffd}')));
        for sample in samples {
            let ids: Vec<u32> = serde_json::from_value(sample["ids"].clone()).unwrap();
            assert_eq!(tokenizer.decode(&ids), sample["text"].as_str().unwrap(), "{name} {ids:?}");
        }
    }
}

/// Of Llama 2 and Mixtral 8x7B, and of Mistral since its third version.
const SENTENCE_PIECE: [&str; 2] = ["llama-spm", "mistral-spm"];

#[test]
fn sentence_piece_tokenizers_give_pythons_ids_and_lose_nothing() {
    for name in SENTENCE_PIECE {
        let (tokenizer, cases) = trained(name);
        assert_matches_python(&tokenizer, &cases, name);
        let mut metadata = Metadata::new();
        tokenizer.write_metadata(&mut metadata);
        assert_matches_python(&Tokenizer::from_metadata(&metadata).unwrap(), &cases, name);
        for case in cases.iter().filter(|case| !case["text"].as_str().unwrap().contains('<')) {
            let text = case["text"].as_str().unwrap();
            let decoded = tokenizer.decode(&tokenizer.encode(text, true).unwrap());
            let expected = [format!(" {text}"), text.into()];
            assert!(expected.contains(&decoded), "{name}: {text:?} became {decoded:?}");
        }
    }
}

#[test]
fn scores_alone_give_pythons_ids() {
    let (tokenizer, cases) = trained("llama-spm");
    let keys = &golden("llama-spm")["ggml"];
    let mut published = Metadata::new();
    published.insert("tokenizer.ggml.model", "llama");
    let list = |key: &str| keys[key].as_array().unwrap().iter();
    let tokens: Vec<String> =
        list("tokens").map(|token| token.as_str().unwrap().to_string()).collect();
    let scores: Vec<f32> = list("scores").map(|score| score.as_f64().unwrap() as f32).collect();
    let kinds: Vec<i32> = list("token_type").map(|kind| kind.as_i64().unwrap() as i32).collect();
    published.insert("tokenizer.ggml.tokens", tokens);
    published.insert("tokenizer.ggml.scores", scores);
    published.insert("tokenizer.ggml.token_type", kinds);
    published.insert("tokenizer.ggml.bos_token_id", 1u32);
    for (metadata, whose) in [(published, "a published file"), (ggml_keys(&tokenizer), "ours")] {
        let from_keys = Tokenizer::from_metadata(&metadata).unwrap();
        assert_matches_python(&from_keys, &cases, whose);
        assert_eq!(from_keys.vocab_size(), tokenizer.vocab_size());
        assert_eq!(from_keys.add_bos(), whose != "ours", "as Llama's do, where nothing says so");
    }
}

#[test]
fn the_pre_tokenizer_is_recognised_from_tokenizer_json() {
    for name in TRAINED {
        let metadata = ggml_keys(&trained(name).0);
        assert_eq!(metadata.str("tokenizer.ggml.pre").unwrap(), Some(name));
    }
    let metadata = ggml_keys(&REFERENCE);
    assert_eq!(metadata.str("tokenizer.ggml.pre").unwrap(), Some("deepseek-v3"));
}

#[test]
fn ggml_keys_alone_give_pythons_ids() {
    for name in TRAINED {
        let (tokenizer, cases) = trained(name);
        let from_keys = Tokenizer::from_metadata(&ggml_keys(&tokenizer)).unwrap();
        assert_matches_python(&from_keys, &cases, name);
        assert_eq!(from_keys.vocab_size(), tokenizer.vocab_size());
    }
}

#[test]
fn metadata_with_the_tokenizer_json_encodes_the_same() {
    for name in TRAINED {
        let (tokenizer, cases) = trained(name);
        let mut metadata = Metadata::new();
        tokenizer.write_metadata(&mut metadata);
        let again = Tokenizer::from_metadata(&metadata).unwrap();
        assert_matches_python(&again, &cases, name);
        let mut second = Metadata::new();
        again.write_metadata(&mut second);
        assert_eq!(metadata, second, "{name}: what is read is written again");
    }
}

#[test]
fn the_folder_says_bos_eos_and_the_chat_template() {
    let t = &*REFERENCE;
    assert_eq!(t.vocab_size(), 2048);
    assert_eq!((t.bos(), t.eos(), t.add_bos()), (Some(0), Some(1), true));
    assert!(t.chat_template().unwrap().contains("<｜Assistant｜>"));

    let mut metadata = Metadata::new();
    t.write_metadata(&mut metadata);
    for huggingface in [true, false] {
        if !huggingface {
            metadata.remove(HUGGINGFACE);
        }
        let again = Tokenizer::from_metadata(&metadata).unwrap();
        assert_eq!((again.bos(), again.eos(), again.add_bos()), (Some(0), Some(1), true));
        assert_eq!(again.chat_template(), t.chat_template());
        for id in 0..2048 {
            assert_eq!(again.piece(id), t.piece(id));
            assert_eq!(again.is_special(id), t.is_special(id));
        }
    }
}

/// A folder with the smallest trained tokenizer and this configuration.
fn folder(config: Value, template: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let json = serde_json::to_vec(&golden("gpt-2")["tokenizer"]).unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    if let Some(template) = template {
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    }
    folder
}

#[test]
fn tokens_of_the_configuration_are_strings_or_objects() {
    let config = json!({
        "bos_token": {"content": "<|bos|>", "lstrip": false}, "eos_token": "<|eos|>",
        "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}],
    });
    let dir = folder(config.clone(), None);
    let t = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!((t.bos(), t.eos()), (t.token_to_id("<|bos|>"), t.token_to_id("<|eos|>")));
    assert!(t.bos().is_some() && t.eos().is_some());
    assert!(!t.add_bos(), "nothing says so");
    assert_eq!(t.chat_template(), Some("D"));

    let dir = folder(config, Some("FILE"));
    assert_eq!(Tokenizer::from_folder(dir.path()).unwrap().chat_template(), Some("FILE"));
}

#[test]
fn a_turn_ends_by_tokens_of_known_names() {
    let mut json = golden("gpt-2")["tokenizer"].clone();
    let added = json["added_tokens"].as_array_mut().unwrap();
    for (id, name, special) in [(900, "<|call|>", true), (901, "<|eot_id|>", false)] {
        added.push(json!({"id": id, "content": name, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": special}));
    }
    let t = Tokenizer::from_json(&serde_json::to_vec(&json).unwrap()).unwrap();
    assert!(t.ends_turn(900) && t.ends_turn(901));
    assert!(t.ends_turn(t.token_to_id("<|user|>").unwrap()), "it is not the assistant's turn");
    assert!(!t.ends_turn(t.token_to_id("<|bos|>").unwrap()) && !t.ends_turn(5000));
}

#[test]
fn a_post_processor_that_begins_with_bos_asks_for_it() {
    let dir = folder(json!({"bos_token": "<|bos|>"}), None);
    let path = dir.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["post_processor"] = json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel"},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}]},
    ]});
    std::fs::write(&path, json.to_string()).unwrap();
    let t = Tokenizer::from_folder(dir.path()).unwrap();
    assert!(t.add_bos());
    let ids = t.encode("a", true).unwrap();
    assert_ne!(ids[0], t.bos().unwrap(), "encode itself never adds it");
}

#[test]
fn a_wrong_folder_names_the_file() {
    let missing = Tokenizer::from_folder(Path::new("/nowhere")).unwrap_err().to_string();
    assert!(missing.contains("/nowhere has no tokenizer: copy tokenizer.json"), "{missing}");

    let dir = folder(json!({"bos_token": "<|nobody|>"}), None);
    let wrong = Tokenizer::from_folder(dir.path()).unwrap_err().to_string();
    assert!(wrong.contains("tokenizer_config.json"), "{wrong}");
    assert!(wrong.contains("bos_token is \"<|nobody|>\""), "{wrong}");
}

#[test]
fn what_a_user_types_is_no_control_token() {
    let t = &*REFERENCE;
    let (text, user) = ("<｜User｜>", t.token_to_id("<｜User｜>").unwrap());
    assert_eq!(t.encode(text, true).unwrap(), [user]);
    let plain = t.encode(text, false).unwrap();
    assert!(plain.iter().all(|id| !t.is_special(*id)));
    assert_eq!(t.decode(&plain), text);
    // Not a control token, and recognised either way.
    let think = t.token_to_id("<think>").unwrap();
    assert!(!t.is_special(think));
    assert_eq!(t.encode("<think>", false).unwrap(), [think]);
}

#[test]
fn a_piece_is_the_bytes_of_its_token() {
    let t = &*REFERENCE;
    let space = t.token_to_id("Ġa").unwrap();
    assert_eq!(t.piece(space).unwrap(), b" a");
    let half = t.token_to_id("ð").unwrap();
    assert_eq!(t.piece(half).unwrap(), [0xf0]);
    assert_eq!(t.decode(&[half]), "\u{fffd}");
    assert_eq!(t.piece(0).unwrap(), "<｜begin▁of▁sentence｜>".as_bytes());
    assert_eq!((t.piece(2048), t.piece(u32::MAX)), (None, None));
    assert_eq!(t.decode(&[u32::MAX]), "");
}

/// Text of all kinds: any characters, and what pre-tokenizers treat apart.
fn any_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        any::<String>(),
        "[ \t\r\n]{0,8}",
        "[0-9]{1,8}",
        "[a-zA-Z' ]{0,20}",
        "[一-龥ぁ-ヿ가-힣]{0,6}",
        "(<｜User｜>|<think>|<｜|｜>|</think>)",
        "\\p{M}{0,3}",
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_text_is_lost(text in any_text(), special: bool) {
        let ids = REFERENCE.encode(&text, special).unwrap();
        prop_assert!(ids.iter().all(|id| (*id as usize) < REFERENCE.vocab_size()));
        prop_assert_eq!(REFERENCE.decode(&ids), text);
    }

    #[test]
    fn pieces_add_up_to_the_text(text in any_text()) {
        let ids = REFERENCE.encode(&text, true).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| REFERENCE.piece(*id).unwrap()).collect();
        prop_assert_eq!(bytes, text.into_bytes());
    }

    #[test]
    fn ggml_keys_and_tokenizer_json_agree_on_any_text(text in any_text(), special: bool) {
        static KEYS: LazyLock<Tokenizer> =
            LazyLock::new(|| Tokenizer::from_metadata(&ggml_keys(&REFERENCE)).unwrap());
        prop_assert_eq!(KEYS.encode(&text, special).unwrap(), REFERENCE.encode(&text, special).unwrap());
    }

    #[test]
    fn any_ids_decode(ids in prop::collection::vec(prop_oneof![0..2100u32, any::<u32>()], 0..64)) {
        REFERENCE.decode(&ids);
    }
}

/// The same tokenizer with a token that keeps it from cutting texts.
fn uncut(name: &str) -> Tokenizer {
    let mut json = golden(name)["tokenizer"].clone();
    let added = json["added_tokens"].as_array_mut().unwrap();
    added.push(json!({"id": 5000, "content": "\u{1} \u{1}", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": false}));
    Tokenizer::from_json(&serde_json::to_vec(&json).unwrap()).unwrap()
}

#[test]
fn long_texts_have_the_tokens_of_the_whole() {
    let mut dice = proptest::test_runner::TestRunner::deterministic();
    let mut text = String::new();
    while text.len() < 140 << 10 {
        let part = any_text().new_tree(&mut dice).unwrap().current();
        text.push_str(&part);
        text.push_str(["a b c", " Word\nline two", "中文 字 字\n字", "x  y"][text.len() % 4]);
    }
    for (name, special) in TRAINED.into_iter().zip([true, false].into_iter().cycle()) {
        let (cut, whole) = (trained(name).0, uncut(name));
        let (cut, whole) = (cut.encode(&text, special), whole.encode(&text, special));
        assert_eq!(cut.unwrap(), whole.unwrap(), "{name}");
    }
}

#[test]
fn texts_that_cannot_fit_are_refused_before_they_take_memory() {
    let long = "some words ".repeat(3 << 20);
    let start = std::time::Instant::now();
    for (tokenizer, most) in [(&*REFERENCE, 100), (&uncut("gpt-2"), 1_000_000)] {
        let error = tokenizer.encode_within(&long, true, most).unwrap_err().to_string();
        assert!(error.contains(&format!("more than {most} tokens")), "{error}");
    }
    assert!(start.elapsed().as_secs() < 20);
    let fits = REFERENCE.encode("some words", true).unwrap();
    assert_eq!(REFERENCE.encode_within("some words", true, fits.len()).unwrap(), fits);
    assert!(REFERENCE.encode_within("some words", true, fits.len() - 1).is_err());
    let beginning = REFERENCE.encode_beginning(&long, true, 10).unwrap();
    assert!(beginning.len() >= 10 && beginning.len() < 100_000);
}
