//! One judge says whether a model runs: what it accepts opens and answers, and what it refuses is
//! refused for the same reason wherever it is opened.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use vaquita_quantize::sources;
use vaquita_runtime::app::{AppModel, Fit, ModelOptions, judge_file};
use vaquita_runtime::gguf::{Gguf, Metadata};
use vaquita_runtime::session::generate::GenerationOptions;
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_tests::reference;
use vaquita_tests::variants::{Checkpoint, GgufFile, Tensor, numbers};

/// A small model with the tokenizer of the reference model: 2048 tokens, of which it has `rows`.
fn with_tokenizer(rows: usize, path: &Path) -> GgufFile {
    let mut checkpoint = Checkpoint::golden("r1-distill-llama").set("vocab_size", rows);
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let values = numbers(rows * 64, name.len());
        checkpoint.tensors.insert(name.into(), Tensor { shape: vec![rows, 64], values });
    }
    checkpoint.write_gguf(path);
    let mut file = GgufFile::read(path);
    Tokenizer::from_folder(&reference()).unwrap().write_metadata(&mut file.metadata);
    file.write(path);
    file
}

/// The judgement, which must be that of opening and of answering a question.
fn judged(path: &Path, question: &str) -> Result<Fit, String> {
    let judged = judge_file(path).map_err(|error| error.to_string());
    let source = sources::open(path).map_err(|error| error.to_string());
    let by_source = source.and_then(|s| s.judge(path).map_err(|error| error.to_string()));
    assert_eq!(by_source.as_ref().err(), judged.as_ref().err());
    let options = ModelOptions { threads: 1, ..ModelOptions::default() };
    match AppModel::open(path, &options) {
        Err(error) => assert_eq!(Some(&error.to_string()), judged.as_ref().err()),
        Ok(model) => {
            assert!(judged.is_ok(), "{:?}", judged.err());
            let mut conversation = model.conversation().unwrap();
            let most = GenerationOptions { max_tokens: Some(4), ..GenerationOptions::default() };
            let answer =
                conversation.answer(Some(question), &most, &mut |_| ControlFlow::Continue(()));
            return judged.and_then(|fit| answer.map(|_| fit).map_err(|error| error.to_string()));
        }
    }
    judged
}

#[test]
fn tokens_and_rows_may_differ_in_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for rows in [2048, 2100] {
        with_tokenizer(rows, &path);
        assert!(judged(&path, "2+2?").unwrap().no_chat.is_none());
    }
    // Fewer rows than tokens: a text of known ones runs, one with others says which.
    with_tokenizer(320, &path);
    judged(&path, "2+2?").unwrap();
    let error = judged(&path, "which whale").unwrap_err();
    assert!(error.contains("the model knows only 320"), "{error}");
    // More rows than tokens: a row that no token has is chosen, and there is no text of it.
    let mut file = with_tokenizer(2100, &path);
    for (name, _, values) in &mut file.tensors {
        if name == "output.weight" {
            let (known, padding) = values.split_at_mut(2048 * 64);
            known.fill(0.0);
            padding.iter_mut().zip(numbers(52 * 64, 3)).for_each(|(row, x)| *row = x);
        }
    }
    file.write(&path);
    judged(&path, "2+2?").unwrap();
}

/// A change of a file.
type Change = dyn Fn(&mut GgufFile);

/// Leaves llama.cpp's keys of the tokenizer alone.
fn own_keys(file: &mut GgufFile) {
    file.metadata.remove("tokenizer.huggingface.json");
}

#[test]
fn what_is_refused_is_refused_for_one_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let sound = with_tokenizer(2048, &path);
    let refused = |change: &Change| {
        let mut file =
            GgufFile { metadata: sound.metadata.clone(), tensors: sound.tensors.clone() };
        change(&mut file);
        file.write(&path);
        judged(&path, "2+2?").unwrap_err()
    };
    let cases: [(&Change, &str); 8] = [
        (
            &|file| {
                own_keys(file);
                file.metadata.insert("tokenizer.ggml.pre", "unheard-of");
            },
            "tokenizer.ggml.pre is \"unheard-of\"",
        ),
        (
            &|file| {
                let kept: Vec<_> =
                    file.metadata.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
                file.metadata = Metadata::new();
                for (key, value) in
                    kept.into_iter().filter(|(key, _)| !key.starts_with("tokenizer."))
                {
                    file.metadata.insert(key, value);
                }
            },
            "holds no tokenizer",
        ),
        (
            &|file| {
                own_keys(file);
                let tokens = file.metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap();
                let mut tokens = tokens.to_vec();
                tokens[70] = tokens[71].clone();
                file.metadata.insert("tokenizer.ggml.tokens", tokens);
            },
            "",
        ),
        (
            &|file| file.metadata.insert("tokenizer.chat_template", "{% if %}"),
            "the chat template failed",
        ),
        (&|file| file.tensors.retain(|(name, ..)| name != "blk.1.attn_q.weight"), "attn_q.weight"),
        (&|file| file.tensors[2].0.push('x'), "no use for"),
        (
            &|file| {
                let norm =
                    file.tensors.iter_mut().find(|(name, ..)| name.ends_with("attn_norm.weight"));
                norm.unwrap().2[5] = f32::NAN;
            },
            "attn_norm.weight gives a number that is NaN",
        ),
        (&|file| file.metadata.insert("general.architecture", "mamba9"), "mamba9"),
    ];
    for (change, expected) in cases {
        let error = refused(change);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn strings_that_are_not_utf_8_do_not_stop_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut file = with_tokenizer(2048, &path);
    file.metadata.remove("tokenizer.huggingface.json");
    file.metadata.insert("general.name", "a name \u{1}\u{2}\u{3}");
    let mut tokens = file.metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap().to_vec();
    // In the place of two tokens that no merge makes, as control tokens are.
    tokens[13] = "<\u{1}\u{2}\u{3}>".into();
    tokens[14] = "<\u{1}\u{2}\u{3}\u{3}>".into();
    file.metadata.insert("tokenizer.ggml.tokens", tokens);
    file.write(&path);
    let mut bytes = fs::read(&path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - 3).filter(|at| bytes[*at..at + 3] == [1, 2, 3]).collect();
    let header = Gguf::open(&path).unwrap().tensors()[0].offset as usize;
    let places: Vec<usize> = places.into_iter().filter(|at| *at < header).collect();
    assert_eq!(places.len(), 3);
    for at in places {
        bytes[at..at + 3].copy_from_slice(b"\xff\xfe\xfd");
    }
    fs::write(&path, bytes).unwrap();
    judged(&path, "2+2?").unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let name = gguf.metadata().str("general.name").unwrap().unwrap();
    assert_eq!(name, "a name \u{fffd}\u{fffd}\u{fffd}");
}

#[test]
fn a_model_without_a_template_that_works_runs_but_does_not_chat() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut file = with_tokenizer(2048, &path);
    file.metadata.insert("tokenizer.chat_template", "{{ raise_exception('no users here') }}");
    file.write(&path);
    let fit = judge_file(&path).unwrap();
    assert!(fit.no_chat.unwrap().to_string().contains("no users here"));
}
