use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use vaquita_quantize::sources;
use vaquita_runtime::bytes::Bytes;
use vaquita_runtime::model::Model;
use vaquita_runtime::session::SessionOptions;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::tokenizer::Tokenizer;

use super::*;
use crate::divergence::{divergence, divergence_from_file};
use crate::{EvalError, Subject, read_documents};

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/reference"))
}

fn subject() -> Subject {
    let source = sources::open(folder()).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_folder(folder()).unwrap());
    Subject {
        model: Arc::new(Model::load(source.weights).unwrap()),
        prompter: Prompter::new(tokenizer).unwrap(),
        options: SessionOptions::default(),
    }
}

fn texts() -> Vec<String> {
    let mut texts = read_documents(&folder().join("heldout.jsonl")).unwrap();
    texts.truncate(2);
    texts
}

fn written() -> (Subject, Vec<u8>) {
    let (subject, folder) = (subject(), tempfile::tempdir().unwrap());
    let path = folder.path().join("texts.ref");
    write(&subject, "a whale", &texts(), &path, &|_, _| {}).unwrap();
    (subject, std::fs::read(path).unwrap())
}

fn parse(bytes: Vec<u8>) -> Result<ReferenceFile, ReferenceError> {
    ReferenceFile::parse(Path::new("texts.ref"), Bytes::from(bytes))
}

/// Reads everything in a file.
fn read(bytes: Vec<u8>) -> Result<usize, EvalError> {
    let failed = |source| EvalError::Reference { path: "texts.ref".into(), source };
    let file = parse(bytes).map_err(failed)?;
    let mut rows = 0;
    for at in 0..file.documents() {
        for row in file.document(at)?.rows() {
            row?;
            rows += 1;
        }
    }
    Ok(rows)
}

#[test]
fn comparing_with_the_file_is_comparing_with_the_model() {
    let (subject, bytes) = written();
    let file = parse(bytes).unwrap();
    assert_eq!(file.name(), "a whale");
    let same = divergence_from_file(&subject, &file, usize::MAX, &|_, _| {}).unwrap();
    assert!(same.mean_kld < 2e-7, "{same:?}");
    assert_eq!(same.same_top, 1.0);
    assert!((same.ppl_ratio - 1.0).abs() < 1e-6, "{same:?}");

    // A model with a less precise cache differs a little.
    let mut other = subject.clone();
    other.options.cache = vaquita_runtime::model::cache::CacheType::F32;
    let from_file = divergence_from_file(&other, &file, usize::MAX, &|_, _| {}).unwrap();
    let direct = divergence(&other, &subject, &texts(), &|_, _| {}).unwrap();
    assert!((from_file.mean_kld - direct.mean_kld).abs() < 2e-7, "{from_file:?} {direct:?}");
    assert!((from_file.perplexity - direct.perplexity).abs() < 1e-9);
    assert_eq!(from_file.tokens, direct.tokens);
    let one = divergence_from_file(&other, &file, 1, &|_, _| {}).unwrap();
    assert!(one.tokens < direct.tokens);
}

#[test]
fn a_model_with_another_vocabulary_is_refused() {
    let (_, bytes) = written();
    let file = parse(bytes).unwrap();
    let message = file.check(2048, 7).unwrap_err().to_string();
    assert!(message.contains("compare models of one family"), "{message}");
}

#[test]
fn other_files_versions_and_lengths_are_refused() {
    let (_, bytes) = written();
    let refused = |bytes: Vec<u8>| read(bytes).unwrap_err().to_string();
    assert!(refused(b"GGUF".to_vec()).contains("not a reference file"));
    let mut newer = bytes.clone();
    newer[8] = 9;
    assert!(refused(newer).contains("version 9"));
    for len in [8, 20, 39, 45, 60, bytes.len() - 1] {
        assert!(refused(bytes[..len].to_vec()).contains("damaged"), "{len}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(refused(longer).contains("the header says"));
}

#[test]
fn rows_that_are_no_probabilities_are_refused_even_with_a_good_checksum() {
    let (subject, bytes) = written();
    let row = row_bytes(2048).unwrap();
    for (place, what) in [(8, "log-probability"), (4, "loss"), (0, "likeliest")] {
        let mut bytes = bytes.clone();
        let file = parse(bytes.clone()).unwrap();
        let (first, count) = (file.document(0).unwrap(), file.documents());
        let rows = (first.tokens.len() - 1) * row;
        let tokens: usize = (0..count).map(|at| file.document(at).unwrap().tokens.len()).sum();
        let table_at = HEADER_BYTES + file.name().len();
        let rows_at = table_at + count * 8 + tokens * 4;
        bytes[rows_at + place..][..4].copy_from_slice(&[0xff; 4]);
        let checksum = crc32fast::hash(&bytes[rows_at..][..rows]);
        bytes[table_at + 4..][..4].copy_from_slice(&checksum.to_le_bytes());
        bytes[CHECKSUM_AT..HEADER_BYTES].fill(0);
        let checksum = crc32fast::hash(&bytes[..rows_at]);
        bytes[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        let file = parse(bytes).unwrap();
        let error = divergence_from_file(&subject, &file, 9, &|_, _| {}).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn any_changed_byte_is_noticed() {
    let (_, bytes) = written();
    assert!(read(bytes.clone()).unwrap() > 10);
    proptest!(ProptestConfig::with_cases(40), |(at in 0..bytes.len(), bit in 0..8u8)| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << bit;
        prop_assert!(read(bytes).is_err());
    });
}
