//! Tokenizers from hostile files: every one is an error that says what is wrong, or harmless.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use vaquita_runtime::gguf::{Metadata, Value as Entry};
use vaquita_runtime::tokenizer::{Tokenizer, TokenizerError, limits};

/// The characters that stand for the bytes 0 to 255.
fn byte_chars() -> Vec<String> {
    let printable = |b: &u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut char = |b: u32| {
        let code = if printable(&b) {
            b
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).unwrap().to_string()
    };
    (0..256).map(&mut char).collect()
}

/// A tokenizer.json of bytes, `ab`, and one control token.
fn small() -> Value {
    let mut vocab: serde_json::Map<String, Value> =
        byte_chars().into_iter().zip(0..).map(|(c, id)| (c, json!(id))).collect();
    vocab.insert("ab".into(), json!(256));
    json!({
        "added_tokens": [added("<s>", 257)],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
        "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]},
    })
}

fn added(content: &str, id: u32) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true})
}

fn load(json: &Value) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_json(json.to_string().as_bytes())
}

/// What is said about a tokenizer.json after a change.
fn complaint(change: impl FnOnce(&mut Value)) -> String {
    let mut json = small();
    change(&mut json);
    load(&json).expect_err("it must be refused").to_string()
}

fn split_by(regex: &str) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
    ]})
}

#[test]
fn the_small_tokenizer_is_fine_before_anything_is_changed() {
    let t = load(&small()).unwrap();
    assert_eq!(t.encode("abc<s>", true).unwrap(), [256, u32::from(b'c'), 257]);
    assert_eq!(t.vocab_size(), 258);
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    for json in ["", "{", "[]", "null", "{}", "{\"model\":{}}", "{\"model\":{\"vocab\":[]}}"] {
        assert!(matches!(Tokenizer::from_json(json.as_bytes()), Err(TokenizerError::Json(_))));
    }
    let deep = "[".repeat(100_000);
    assert!(Tokenizer::from_json(deep.as_bytes()).is_err());
}

#[test]
fn ids_out_of_range_are_refused() {
    let text = complaint(|t| t["model"]["vocab"]["ab"] = json!(limits::TOKENS));
    assert!(text.contains("1048576") && text.contains("below 1048576"), "{text}");
    let text = complaint(|t| t["added_tokens"][0]["id"] = json!(u32::MAX));
    assert!(text.contains("below 1048576"), "{text}");
    for id in [json!(-1), json!(1u64 << 40), json!(1.5), json!("1")] {
        complaint(|t| t["model"]["vocab"]["ab"] = id);
    }
}

#[test]
fn more_tokens_than_the_ceiling_are_refused() {
    let text = complaint(|t| {
        let vocab = t["model"]["vocab"].as_object_mut().unwrap();
        vocab.extend((0..limits::TOKENS).map(|i| (format!("t{i}"), json!(i))));
    });
    assert!(text.contains("at most 1048576"), "{text}");
}

#[test]
fn tokens_and_ids_are_unique() {
    let text = complaint(|t| t["model"]["vocab"]["ab"] = json!(7));
    assert!(text.contains("each id once"), "{text}");
    let text = complaint(|t| t["added_tokens"] = json!([added("<s>", 257), added("<s>", 258)]));
    assert!(text.contains("a second time"), "{text}");
    let text = complaint(|t| t["added_tokens"] = json!([added("<s>", 257), added("<t>", 257)]));
    assert!(text.contains("a second time"), "{text}");
    let text = complaint(|t| t["added_tokens"] = json!([added("ab", 300)]));
    assert!(text.contains("id 256, which the model has"), "{text}");
    // serde_json's map would keep one of two equal keys.
    let twice = small().to_string().replace("\"ab\":256", "\"ab\":256,\"ab\":258");
    assert!(Tokenizer::from_json(twice.as_bytes()).is_err());
}

#[test]
fn added_tokens_have_the_ids_that_the_file_says_even_with_gaps() {
    let mut json = small();
    json["added_tokens"] = json!([added("<t>", 1000), added("<s>", 500)]);
    let t = load(&json).unwrap();
    assert_eq!(t.encode("<s><t>", true).unwrap(), [500, 1000]);
    assert_eq!((t.vocab_size(), t.piece(700)), (1001, None));
    // The gaps are filled in ggml's list of tokens.
    let mut metadata = Metadata::new();
    t.write_metadata(&mut metadata);
    assert_eq!(metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap().len(), 1001);
    assert_eq!(metadata.u32s("tokenizer.ggml.token_type").unwrap().unwrap()[700], 5);
}

#[test]
fn merges_are_two_tokens_of_the_vocabulary() {
    for merge in [
        json!("ab"),
        json!(" a"),
        json!("a "),
        json!("a b c"),
        json!(["a"]),
        json!(["", "b"]),
        json!(["a", "b", "c"]),
        json!(["a", "c"]),
        json!(["zz", "b"]),
        json!(7),
    ] {
        complaint(|t| t["model"]["merges"] = json!([merge]));
    }
    let mut old = small();
    old["model"]["merges"] = json!(["a b"]);
    assert_eq!(load(&old).unwrap().encode("ab", true).unwrap(), [256]);
}

#[test]
fn models_and_steps_that_are_not_known_are_named() {
    let text = complaint(|t| t["model"]["type"] = json!("Unigram"));
    assert!(text.contains("model.type is \"Unigram\"; allowed: BPE"), "{text}");
    let text = complaint(|t| t["pre_tokenizer"] = json!({"type": "UnicodeScripts"}));
    assert!(text.contains("UnicodeScripts") && text.contains("Metaspace"), "{text}");
    let text =
        complaint(|t| t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": ""}));
    assert!(text.contains("Precompiled") && text.contains("NFC"), "{text}");
    // The crate would slice tokens by the prefix's length, and panic.
    complaint(|t| t["model"]["continuing_subword_prefix"] = json!("####"));
    complaint(|t| t["model"]["end_of_word_suffix"] = json!("</w>"));
    complaint(|t| t["model"]["dropout"] = json!(0.5));
    complaint(|t| t["model"]["unk_token"] = json!("<unk>"));
    complaint(|t| t["pre_tokenizer"] = json!(null));
}

#[test]
fn normalizers_cannot_blow_a_text_up() {
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    complaint(|t| t["normalizer"] = replace("a", "aaaaa"));
    complaint(|t| t["normalizer"] = replace("", "a"));
    complaint(|t| t["normalizer"] = json!({"type": "Prepend", "prepend": "x".repeat(17)}));
    complaint(|t| {
        t["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": "a"}, "content": ""})
    });
    let many = vec![replace("a", "aaaa"); limits::NORMALIZERS + 1];
    complaint(|t| t["normalizer"] = json!({"type": "Sequence", "normalizers": many}));
    let deep =
        (0..8).fold(json!({"type": "NFC"}), |n, _| json!({"type": "Sequence", "normalizers": [n]}));
    complaint(|t| t["normalizer"] = deep);
}

#[test]
fn sequences_of_pre_tokenizers_are_bounded() {
    let many =
        vec![json!({"type": "Digits", "individual_digits": true}); limits::PRE_TOKENIZERS + 1];
    complaint(|t| t["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": many}));
    let digits = json!({"type": "Digits", "individual_digits": true});
    let deep = (0..8).fold(digits, |p, _| json!({"type": "Sequence", "pretokenizers": [p]}));
    complaint(|t| t["pre_tokenizer"] = deep);
}

#[test]
fn regexes_that_tokenizers_do_not_need_are_refused() {
    let long = "a".repeat(limits::REGEX_BYTES + 1);
    let nested = format!("{}a{}", "(?:".repeat(900), ")".repeat(900));
    let huge = r"(?:\p{L}{1000}){1000}";
    for regex in [
        r"(a)\1",
        r"(?<=a)b",
        r"(?<name>a)",
        r"a\Kb",
        r"\Ga",
        r"(?(1)a|b)",
        "(",
        "[z-a]",
        r"\p{Nonsense}",
        &long,
        &nested,
        huge,
    ] {
        let text = complaint(|t| t["pre_tokenizer"] = split_by(regex));
        assert!(text.contains("of the pre-tokenizer cannot be used"), "{text}");
        assert!(text.len() < 1500, "{} bytes of message", text.len());
    }
}

/// Regexes on which backtracking takes exponential time, with texts that show it.
const CATASTROPHES: [(&str, &str); 4] = [
    (r"(?:a+)+(?!a|$)c", "a"),
    (r"(?:a|a)*(?=b)c", "a"),
    (r"(?:(?:a*)*)*(?=x)", "a"),
    (r"(?:\p{L}+\s*)+(?!\p{L})9", "a "),
];

#[test]
fn a_catastrophic_regex_is_an_error_and_no_hang() {
    for (regex, text) in CATASTROPHES {
        let mut json = small();
        json["pre_tokenizer"] = split_by(regex);
        let t = load(&json).unwrap();
        let started = Instant::now();
        let result = t.encode(&text.repeat(5000), true);
        assert!(started.elapsed() < Duration::from_secs(20), "{regex}");
        // The crate alone would stop there in silence, and go on with wrong pieces.
        match result {
            Err(TokenizerError::Split { pattern, .. }) => assert_eq!(pattern, regex),
            other => panic!("{regex}: {:?}", other.map(|ids| ids.len())),
        }
        // What it can do, it does.
        assert_eq!(t.encode("xyz", true).unwrap().len(), 3);
    }
}

#[test]
fn an_unknown_regex_sees_a_bounded_text() {
    let mut json = small();
    json["pre_tokenizer"] = split_by(r"\S+(?!\S)|\s");
    let t = load(&json).unwrap();
    let long = "ab ".repeat(limits::REGEX_TEXT_BYTES / 3 + 1);
    assert!(matches!(t.encode(&long, true), Err(TokenizerError::Split { .. })));
    assert!(t.encode(&long[..3000], true).is_ok());
}

#[test]
fn white_space_without_end_is_no_trouble_for_known_regexes() {
    let mut json = small();
    json["pre_tokenizer"]["use_regex"] = json!(true);
    let t = load(&json).unwrap();
    for text in
        [" ".repeat(200_000), " \n".repeat(100_000), "a".repeat(200_000), "'".repeat(200_000)]
    {
        assert_eq!(t.decode(&t.encode(&text, true).unwrap()), text);
    }
}

#[test]
fn added_tokens_that_the_crate_would_panic_on_are_refused() {
    let mut strips = added("x", 257);
    strips["rstrip"] = json!(true);
    let mut blank = added(" ", 258);
    blank["lstrip"] = json!(true);
    complaint(|t| t["added_tokens"] = json!([strips, blank]));
    complaint(|t| t["added_tokens"] = json!([added("", 257)]));
    complaint(|t| t["added_tokens"] = json!([added(&"x".repeat(limits::TOKEN_BYTES + 1), 257)]));
}

#[test]
fn a_byte_without_a_token_is_an_error_and_not_left_out() {
    let mut json = small();
    json["model"]["vocab"].as_object_mut().unwrap().shift_remove("z");
    let t = load(&json).unwrap();
    assert_eq!(t.encode("abc", true).unwrap().len(), 2);
    assert!(matches!(t.encode("xyz", true), Err(TokenizerError::Byte { byte: b'z' })));
}

#[test]
fn sentencepiece_with_byte_fallback_keeps_every_byte() {
    let mut vocab: serde_json::Map<String, Value> =
        (0..256).map(|b| (format!("<0x{b:02X}>"), json!(b))).collect();
    for (token, id) in [("▁", 256), ("a", 257), ("▁a", 258)] {
        vocab.insert(token.into(), json!(id));
    }
    let json = json!({
        "added_tokens": [added("<s>", 259)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": null,
        "model": {"type": "BPE", "vocab": vocab, "merges": [["▁", "a"]], "byte_fallback": true},
    });
    let t = load(&json).unwrap();
    assert_eq!(t.encode(" aé<s>", true).unwrap(), [258, 0xc3, 0xa9, 259]);
    assert_eq!(t.decode(&[258, 0xc3, 0xa9, 259]), " aé<s>");

    let mut metadata = Metadata::new();
    t.write_metadata(&mut metadata);
    assert_eq!(metadata.str("tokenizer.ggml.model").unwrap(), Some("llama"));
    let again = Tokenizer::from_metadata(&metadata).unwrap();
    assert_eq!(again.encode(" aé<s>", true).unwrap(), [258, 0xc3, 0xa9, 259]);
    // ggml's keys alone hold no merges: they follow from the scores.
    metadata.remove("tokenizer.huggingface.json");
    let again = Tokenizer::from_metadata(&metadata).unwrap();
    assert_eq!(again.encode(" aé<s>", true).unwrap(), [258, 0xc3, 0xa9, 259]);

    let complaint = |key: &str, value: Vec<f32>| {
        let mut metadata = metadata.clone();
        metadata.insert(key, value);
        Tokenizer::from_metadata(&metadata).unwrap_err().to_string()
    };
    let text = complaint("tokenizer.ggml.scores", vec![0.0; 7]);
    assert!(text.contains("260 elements"), "{text}");
    let mut tokens = metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap().to_vec();
    tokens[258] = "a".repeat(300);
    metadata.insert("tokenizer.ggml.tokens", tokens);
    let text = Tokenizer::from_metadata(&metadata).unwrap_err().to_string();
    assert!(text.contains("merges follow from scores"), "{text}");
}

#[test]
fn scores_from_which_more_merges_follow_than_a_tokenizer_json_may_have_are_written_alone() {
    // All texts of up to 17 letters of two kinds: each is formed in as many ways as it has cuts.
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    let words = (1..=17).flat_map(|len| (0..1u32 << len).map(move |bits| (len, bits)));
    let letter = |set: u32| if set == 1 { 'b' } else { 'a' };
    let words = words.map(|(len, bits)| (0..len).map(|i| letter(bits >> i & 1)).collect());
    let tokens: Vec<String> = bytes.chain(words).collect();
    let mut metadata = Metadata::new();
    metadata.insert("tokenizer.ggml.model", "llama");
    metadata.insert(
        "tokenizer.ggml.scores",
        (0..tokens.len()).map(|id| -(id as f32)).collect::<Vec<_>>(),
    );
    metadata.insert("tokenizer.ggml.tokens", tokens);
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    let mut written = Metadata::new();
    tokenizer.write_metadata(&mut written);
    assert!(written.get("tokenizer.huggingface.json").is_none());
    assert_eq!(written.get("tokenizer.ggml.scores"), metadata.get("tokenizer.ggml.scores"));
    let again = Tokenizer::from_metadata(&written).unwrap();
    for text in ["abbabaabbbabaabababbbabab", "aaaaaaaaaaaaaaaaaaaaaaaa", "ab c"] {
        assert_eq!(again.encode(text, true).unwrap(), tokenizer.encode(text, true).unwrap());
    }
}

/// Metadata of the small tokenizer, ggml's keys only.
fn keys() -> Metadata {
    let mut metadata = Metadata::new();
    load(&small()).unwrap().write_metadata(&mut metadata);
    metadata.remove("tokenizer.huggingface.json");
    metadata.insert("tokenizer.ggml.pre", "gpt-2");
    Tokenizer::from_metadata(&metadata).unwrap();
    metadata
}

fn keys_complaint(change: impl FnOnce(&mut Metadata)) -> String {
    let mut metadata = keys();
    change(&mut metadata);
    Tokenizer::from_metadata(&metadata).expect_err("it must be refused").to_string()
}

#[test]
fn an_unknown_pre_tokenizer_is_answered_with_the_known() {
    let text = keys_complaint(|m| m.insert("tokenizer.ggml.pre", "kimi-k9"));
    assert!(
        text.contains("\"kimi-k9\"") && text.contains("deepseek-v3") && text.contains("kimi-k2"),
        "{text}"
    );
}

#[test]
fn missing_and_mistyped_keys_are_named() {
    for key in ["model", "pre", "tokens", "merges"] {
        let key = format!("tokenizer.ggml.{key}");
        // Files of before May 2024 have no `pre`: they are read with llama.cpp's default.
        if key != "tokenizer.ggml.pre" {
            let text = keys_complaint(|m| drop(m.remove(&key)));
            // Without a model's name there is no tokenizer.
            let expected = if key.ends_with("model") { "holds no tokenizer" } else { &key };
            assert!(text.contains(expected), "{text}");
        }
        let text = keys_complaint(|m| m.insert(key.clone(), 7u32));
        assert!(text.contains(&key), "{text}");
    }
}

#[test]
fn an_id_of_minus_one_says_that_there_is_no_such_token() {
    for none in [Entry::I32(-1), Entry::I64(-1), Entry::U32(u32::MAX)] {
        let mut metadata = keys();
        metadata.insert("tokenizer.ggml.bos_token_id", none.clone());
        metadata.insert("tokenizer.ggml.eos_token_id", none.clone());
        metadata.insert("tokenizer.ggml.add_bos_token", true);
        let tokenizer = Tokenizer::from_metadata(&metadata).expect("it is read");
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (None, None, false));
    }
}

#[test]
fn ggml_keys_out_of_range_are_refused() {
    let text = keys_complaint(|m| m.insert("tokenizer.ggml.bos_token_id", 258u32));
    assert!(text.contains("258; allowed: below 258"), "{text}");
    keys_complaint(|m| m.insert("tokenizer.ggml.eos_token_id", -2i32));
    keys_complaint(|m| m.insert("tokenizer.ggml.token_type", vec![1i32; 257]));
    keys_complaint(|m| m.insert("tokenizer.ggml.token_type", vec![9i32; 258]));
    keys_complaint(|m| m.insert("tokenizer.ggml.token_type", vec![-3i32; 258]));
    keys_complaint(|m| m.insert("tokenizer.ggml.tokens", vec!["a".to_string(); 258]));
    keys_complaint(|m| m.insert("tokenizer.ggml.merges", vec!["ab".to_string()]));
    keys_complaint(|m| m.insert("tokenizer.ggml.merges", vec!["a c".to_string()]));
    keys_complaint(|m| m.insert("tokenizer.huggingface.json", "{}"));
    keys_complaint(|m| m.insert("tokenizer.chat_template", "x".repeat(2 << 20)));
}

proptest! {
    #[test]
    fn no_regex_makes_it_panic(regex in r"[ab\\(){}\[\]?*+|.^$!=:<sSwdpLN0-9,-]{0,24}", text in "[ab01 \n]{0,40}") {
        let mut json = small();
        json["pre_tokenizer"] = split_by(&regex);
        if let Ok(t) = load(&json)
            && let Ok(ids) = t.encode(&text, true)
        {
            prop_assert_eq!(t.decode(&ids), text);
        }
    }

    #[test]
    fn no_damaged_file_makes_it_panic(at in any::<prop::sample::Index>(), byte: u8, text in "[ab<s> ]{0,20}") {
        let mut json = small().to_string().into_bytes();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(t) = Tokenizer::from_json(&json) {
            let _ = t.encode(&text, true);
            t.write_metadata(&mut Metadata::new());
        }
    }
}

prop_compose! {
    fn any_added()(content in "[ab<> \n]{1,3}", flags: [bool; 5]) -> Value {
        json!({"content": content, "single_word": flags[0], "lstrip": flags[1], "rstrip": flags[2],
            "normalized": flags[3], "special": flags[4]})
    }
}

proptest! {
    #[test]
    fn no_added_tokens_make_it_panic(
        mut tokens in prop::collection::vec(any_added(), 1..6),
        normalizer in prop::sample::select(vec![
            json!(null),
            json!({"type": "NFKC"}),
            json!({"type": "Prepend", "prepend": "▁"}),
            json!({"type": "Replace", "pattern": {"String": "a"}, "content": ""}),
            json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
        ]),
        text in "[ab<> \né]{0,30}",
        special: bool,
    ) {
        for (token, id) in tokens.iter_mut().zip(300..) {
            token["id"] = json!(id);
        }
        let mut json = small();
        json["added_tokens"] = json!(tokens);
        json["normalizer"] = normalizer;
        if let Ok(t) = load(&json) {
            t.encode(&text, special).unwrap();
        }
    }
}
