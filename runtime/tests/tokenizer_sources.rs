//! Tokenizers from what people have beside a tokenizer.json: `tiktoken.model`, `tokenizer.model`, GGUF files of any age,
//! and the files that say what ends a turn. `tests/golden/tokenizer/make_tokenizers.py` makes the goldens.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vaquita_runtime::gguf::Metadata;
use vaquita_runtime::tokenizer::Tokenizer;

fn golden_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tokenizer").join(name)
}

fn golden(name: &str) -> Value {
    serde_json::from_slice(&fs::read(golden_file(&format!("{name}.json"))).unwrap()).unwrap()
}

/// A folder with these files of the goldens and these contents.
fn folder(files: &[&str], contents: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        fs::copy(golden_file(file), folder.path().join(file)).unwrap();
    }
    for (name, content) in contents {
        fs::write(folder.path().join(name), content.to_string()).unwrap();
    }
    folder
}

fn assert_cases(tokenizer: &Tokenizer, cases: &Value, whose: &str) {
    for case in cases.as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        for (key, special) in [("ids", true), ("plain", false)] {
            let expected: Vec<u32> = serde_json::from_value(case[key].clone()).unwrap();
            assert_eq!(tokenizer.encode(text, special).unwrap(), expected, "{whose}: {text:?}");
        }
    }
}

/// `added_tokens_decoder` with control tokens.
fn decoder(named: &Value) -> Value {
    let token = |(name, id): (&String, &Value)| {
        let token = json!({"content": name, "special": true, "lstrip": false, "rstrip": false,
            "normalized": false, "single_word": false});
        (id.to_string(), token)
    };
    Value::Object(named.as_object().unwrap().iter().map(token).collect())
}

#[test]
fn a_folder_with_tiktoken_model_gives_tiktokens_ids() {
    let golden = golden("kimi-k2");
    let config = json!({"added_tokens_decoder": decoder(&golden["named"]), "bos_token": "[BOS]",
        "eos_token": "[EOS]", "tokenizer_class": "TikTokenTokenizer"});
    let folder = folder(&["tiktoken.model"], &[("tokenizer_config.json", config)]);
    assert!(Tokenizer::is_in(folder.path()));
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_cases(&tokenizer, &golden["cases"], "the folder");
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(600), Some(601)));
    assert_eq!((tokenizer.add_bos(), tokenizer.vocab_size()), (false, 856));
    assert!(tokenizer.ends_turn(601) && tokenizer.ends_turn(602) && !tokenizer.ends_turn(600));

    let mut file = Metadata::new();
    tokenizer.write_metadata(&mut file);
    assert_eq!(file.str("tokenizer.ggml.pre").unwrap(), Some("kimi-k2"));
    assert_cases(&Tokenizer::from_metadata(&file).unwrap(), &golden["cases"], "the file");
    file.remove("tokenizer.huggingface.json");
    assert_cases(&Tokenizer::from_metadata(&file).unwrap(), &golden["cases"], "ggml's keys");
    // As llama.cpp's converter writes Kimi: without merges.
    file.remove("tokenizer.ggml.merges");
    assert_cases(&Tokenizer::from_metadata(&file).unwrap(), &golden["cases"], "no merges");
}

#[test]
fn a_folder_with_sentencepieces_model_gives_transformers_ids() {
    let folder = folder(&["tokenizer.model"], &[]);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_cases(&tokenizer, &golden("llama-spm")["cases"], "the folder");
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(1), Some(2), true));
    let more = json!({"<|im_end|>": 700});
    fs::write(folder.path().join("added_tokens.json"), more.to_string()).unwrap();
    let config = json!({"add_bos_token": false});
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("a<|im_end|>", false).unwrap().last(), Some(&700));
    assert!(!tokenizer.add_bos() && tokenizer.ends_turn(700));
}

#[test]
fn files_that_are_none_are_refused_with_their_names() {
    let cut = |file: &str, at: usize| {
        let folder = folder(&[file], &[]);
        let path = folder.path().join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..at.min(bytes.len())]).unwrap();
        Tokenizer::from_folder(folder.path()).map(|_| ()).map_err(|error| error.to_string())
    };
    for at in (0..9000).step_by(211) {
        for file in ["tokenizer.model", "tiktoken.model"] {
            if let Err(error) = cut(file, at) {
                assert!(error.contains(file), "{error}");
            }
        }
    }
    assert!(cut("tokenizer.model", 0).unwrap_err().contains("no tokens"));
    let folder = folder(&[], &[("config.json", json!({}))]);
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("has no tokenizer") && error.contains("tiktoken.model"), "{error}");
    fs::write(folder.path().join("tiktoken.model"), "IQ== 0\nnot base64\n").unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("line 2 of tiktoken.model"), "{error}");
}

#[test]
fn scores_that_are_not_numbers_are_refused_since_they_have_no_order() {
    let folder = folder(&["tokenizer.model"], &[]);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let path = folder.path().join("tokenizer.model");
    let mut file = fs::read(&path).unwrap();
    // Pieces at the start: a message (10), with its length, of a text (10) and a score (21).
    let (mut at, mut pieces) = (0, 0);
    while file[at] == 10 {
        let (len, text) = (usize::from(file[at + 1]), usize::from(file[at + 3]));
        let score = at + 4 + text;
        if file[score] == 21 && pieces % 3 == 0 {
            file[score + 1..score + 5].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        (at, pieces) = (at + 2 + len, pieces + 1);
    }
    assert!(pieces > 300, "{pieces}");
    fs::write(&path, &file).unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("the score of id") && error.contains("NaN"), "{error}");

    let mut keys = Metadata::new();
    tokenizer.write_metadata(&mut keys);
    keys.remove("tokenizer.huggingface.json");
    let mut scores = keys.f32s("tokenizer.ggml.scores").unwrap().unwrap().to_vec();
    scores.iter_mut().step_by(2).for_each(|score| *score = f32::NAN);
    keys.insert("tokenizer.ggml.scores", scores);
    let error = Tokenizer::from_metadata(&keys).unwrap_err().to_string();
    assert!(error.contains("the score of id"), "{error}");
}

fn gpt2_folder(contents: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = folder(&[], contents);
    let json = golden("gpt-2")["tokenizer"].to_string();
    fs::write(folder.path().join("tokenizer.json"), json).unwrap();
    folder
}

#[test]
fn ends_come_from_generation_config_and_stay_in_the_file() {
    for (ids, expected) in
        [(json!([7, 9]), [7, 9].as_slice()), (json!(9), &[9]), (json!(null), &[])]
    {
        let generation = json!({"eos_token_id": ids});
        let folder = gpt2_folder(&[("generation_config.json", generation)]);
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        let mut file = Metadata::new();
        tokenizer.write_metadata(&mut file);
        for (tokenizer, whose) in
            [(Tokenizer::from_metadata(&file).unwrap(), "file"), (tokenizer, "folder")]
        {
            let ends = (0..600).filter(|id| [7, 9].contains(id) && tokenizer.ends_turn(*id));
            assert_eq!(ends.collect::<Vec<_>>(), expected, "{whose}");
        }
    }
    let folder = gpt2_folder(&[("generation_config.json", json!({"eos_token_id": [1, "x"]}))]);
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("generation_config.json") && error.contains("eos_token_id"), "{error}");
}

#[test]
fn special_tokens_map_says_what_the_configuration_leaves_out() {
    let map = json!({"bos_token": "<|bos|>", "eos_token": {"content": "<|user|>"}});
    let config = json!({"eos_token": "<|eos|>"});
    let folder =
        gpt2_folder(&[("special_tokens_map.json", map), ("tokenizer_config.json", config)]);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.bos(), tokenizer.token_to_id("<|bos|>"));
    assert_eq!(tokenizer.eos(), tokenizer.token_to_id("<|eos|>"));
}

/// Keys of a file with gpt-2's tokens and these more, each with its type.
fn keys(more: &[(&str, i32)]) -> Metadata {
    let json = golden("gpt-2")["tokenizer"].to_string();
    let mut file = Metadata::new();
    Tokenizer::from_json(json.as_bytes()).unwrap().write_metadata(&mut file);
    file.remove("tokenizer.huggingface.json");
    let mut tokens = file.strings("tokenizer.ggml.tokens").unwrap().unwrap().to_vec();
    let types = file.u32s("tokenizer.ggml.token_type").unwrap().unwrap();
    let mut types: Vec<i32> = types.into_iter().map(|ty| ty as i32).collect();
    for (token, ty) in more {
        tokens.push(token.to_string());
        types.push(*ty);
    }
    file.insert("tokenizer.ggml.tokens", tokens);
    file.insert("tokenizer.ggml.token_type", types);
    file
}

#[test]
fn turns_end_by_all_families_names_whatever_their_type() {
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    const USER_DEFINED: i32 = 4;
    for name in [
        "<｜end▁of▁sentence｜>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<|EOT|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<end_of_turn>",
        "<|return|>",
        "<|call|>",
        "</s>",
        "<|user|>",
        "<|observation|>",
        "[EOS]",
        "<｜User｜>",
    ] {
        for ty in [CONTROL, USER_DEFINED] {
            // `<|user|>` is there already
            let more = if name == "<|user|>" { vec![] } else { vec![(name, ty)] };
            let tokenizer = Tokenizer::from_metadata(&keys(&more)).unwrap();
            let id = tokenizer.token_to_id(name).unwrap();
            assert!(tokenizer.ends_turn(id), "{name} of type {ty}");
        }
    }
    let tokenizer =
        Tokenizer::from_metadata(&keys(&[("<|im_end|>", NORMAL), ("</s>", NORMAL)])).unwrap();
    let ends = |name: &str| tokenizer.ends_turn(tokenizer.token_to_id(name).unwrap());
    assert!(ends("<|im_end|>"), "no text has it by chance");
    assert!(!ends("</s>"), "in HTML");
    let harmony = keys(&[("<|end|>", CONTROL), ("<|return|>", CONTROL)]);
    let tokenizer = Tokenizer::from_metadata(&harmony).unwrap();
    assert!(!tokenizer.ends_turn(tokenizer.token_to_id("<|end|>").unwrap()), "a message's end");
}

#[test]
fn a_file_from_before_pre_tokenizers_had_names_is_read_as_llama_cpp_reads_it() {
    let golden = golden("default");
    let mut file = Metadata::new();
    Tokenizer::from_json(golden["tokenizer"].to_string().as_bytes())
        .unwrap()
        .write_metadata(&mut file);
    file.remove("tokenizer.huggingface.json");
    assert!(Tokenizer::from_metadata(&file).unwrap().note().is_none());
    file.remove("tokenizer.ggml.pre");
    let tokenizer = Tokenizer::from_metadata(&file).unwrap();
    assert!(tokenizer.note().unwrap().contains("tokenizer.ggml.pre is missing"));
    assert_cases(&tokenizer, &golden["cases"], "default");
}

#[test]
fn names_of_one_split_are_one_tokenizer() {
    for (golden_name, names) in [
        ("deepseek-v3", ["deepseek-v3.1", "hunyuan-dense", "joyai-llm"].as_slice()),
        ("qwen2", &["megrez", "stablelm2"]),
        ("deepseek-r1-qwen", &["kormo", "hunyuan", "solar-open", "grok-2"]),
        (
            "llama-bpe",
            &["llama3", "llama-v3", "lfm2", "falcon3", "falcon-h1", "pixtral", "midm-2.0"],
        ),
        ("chatglm-bpe", &["glm4", "dbrx", "smaug-bpe"]),
        ("gpt-4o", &["llama4", "kanana2", "minimax-m2"]),
        ("gpt-2", &["phi-2", "jais", "trillion", "exaone4", "modern-bert", "a.x-4.0", "gigachat"]),
        ("olmo", &["mpt"]),
        ("smollm", &["starcoder", "refact", "codeshell"]),
        ("command-r", &["exaone"]),
        ("bailingmoe", &["bailingmoe2", "llada-moe"]),
    ] {
        let golden = golden(golden_name);
        let mut file = Metadata::new();
        let json = golden["tokenizer"].to_string();
        Tokenizer::from_json(json.as_bytes()).unwrap().write_metadata(&mut file);
        file.remove("tokenizer.huggingface.json");
        for name in names {
            file.insert("tokenizer.ggml.pre", *name);
            assert_cases(&Tokenizer::from_metadata(&file).unwrap(), &golden["cases"], name);
        }
    }
    let mut file = keys(&[]);
    file.insert("tokenizer.ggml.pre", "afmoe");
    let error = Tokenizer::from_metadata(&file).unwrap_err().to_string();
    assert!(error.contains("afmoe") && error.contains("kimi-k2"), "{error}");
}

#[test]
fn tokens_that_are_no_utf_8_leave_the_others_as_they_are() {
    // Two that differ in their bytes alone are alike once those are replaced.
    let tokenizer = Tokenizer::from_metadata(&keys(&[("x\u{fffd}", 1), ("x\u{fffd}", 1)])).unwrap();
    assert_cases(&tokenizer, &golden("gpt-2")["cases"], "gpt-2");
}

#[test]
fn a_file_of_gemma_4_has_sentencepieces_alphabet_with_merges() {
    let named = ["<pad>", "<eos>", "<bos>", "<unk>", "<turn|>"].map(String::from);
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = ["▁", "a", "b", "ab", "▁ab", "\n", "\n\n"].map(String::from);
    let tokens: Vec<String> = named.into_iter().chain(bytes).chain(pieces).collect();
    let kinds = (0..tokens.len() as i32).map(|id| match id {
        3 => 2,
        0..5 => 3,
        5..261 => 6,
        _ => 1,
    });
    let mut metadata = Metadata::new();
    metadata.insert("tokenizer.ggml.model", "gemma4");
    metadata.insert("tokenizer.ggml.token_type", kinds.collect::<Vec<i32>>());
    metadata.insert("tokenizer.ggml.tokens", tokens);
    let merges = ["a b", "▁ ab", "\n \n"].map(String::from).to_vec();
    metadata.insert("tokenizer.ggml.merges", merges);
    metadata.insert("tokenizer.ggml.bos_token_id", 2u32);
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    let text = "ab ab\n\n\n  é<turn|>";
    let ids = [264, 265, 267, 266, 261, 261, 5 + 0xC3, 5 + 0xA9, 4];
    assert_eq!(tokenizer.encode(text, true).unwrap(), ids);
    assert_eq!(tokenizer.decode(&ids), text);
    assert!(tokenizer.add_bos() && tokenizer.ends_turn(4));
}
