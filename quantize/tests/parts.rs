//! A file made in parts is the file made at once.

use std::fs;
use std::path::{Path, PathBuf};

use vaquita_quantize::sources::{self, Source};
use vaquita_quantize::{Job, JoinError, Part, Plan, Progress, join, quantize, quantize_part};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::gguf::Metadata;

fn source() -> Source {
    sources::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../calibration/reference")).unwrap()
}

fn tokenizer() -> Metadata {
    let mut tokenizer = Metadata::new();
    tokenizer.insert("tokenizer.ggml.tokens", vec!["a".to_string(), "b".to_string()]);
    tokenizer.insert("tokenizer.ggml.scores", vec![0.5f32, -1.0]);
    tokenizer
}

/// Makes the whole file, or a part of it.
fn make(source: &Source, ty: BlockType, part: Option<(usize, usize)>, out: &Path) -> u64 {
    make_watched(source, ty, part, out, &mut |_| {})
}

fn make_watched(
    source: &Source,
    ty: BlockType,
    part: Option<(usize, usize)>,
    out: &Path,
    progress: &mut dyn FnMut(Progress),
) -> u64 {
    let Source { weights, identity, .. } = source;
    let (tokenizer, plan) = (tokenizer(), Plan::uniform(weights.config(), ty));
    let weights = weights.as_ref();
    let job = Job { weights, identity, tokenizer: &tokenizer, importance: None, plan: &plan, out };
    let report = match part {
        Some((number, count)) => quantize_part(&job, Part::new(number, count).unwrap(), progress),
        None => quantize(&job, progress),
    };
    report.unwrap().parameters
}

/// All parts of a file of e2, and their weights.
fn parts(source: &Source, count: usize, folder: &Path) -> (Vec<PathBuf>, Vec<u64>) {
    let made = (1..=count).map(|number| {
        let out = folder.join(format!("{count}-{number}.part"));
        let weights = make(source, BlockType::E2, Some((number, count)), &out);
        (out, weights)
    });
    made.unzip()
}

fn join_silently(parts: &[PathBuf], out: &Path) -> Result<u64, JoinError> {
    join(parts, out, &mut |_| {})
}

#[test]
fn parts_in_any_order_become_the_undivided_file() {
    let folder = tempfile::tempdir().unwrap();
    let source = source();
    let [whole, out] = ["whole.gguf", "model.gguf"].map(|name| folder.path().join(name));
    let total = make(&source, BlockType::E2, None, &whole);
    let whole = fs::read(whole).unwrap();
    // What a killed run of this output left is replaced.
    fs::write(folder.path().join(".model.gguf.new"), "left by a kill").unwrap();
    for count in [2, 3, 7] {
        let (mut parts, weights) = parts(&source, count, folder.path());
        assert_eq!(weights.iter().sum::<u64>(), total);
        let most = weights.iter().max().unwrap();
        assert!(most * count as u64 * 4 <= total * 5, "balanced: {weights:?}");
        parts.reverse();
        let bytes = join_silently(&parts, &out).unwrap();
        assert_eq!(bytes, whole.len() as u64);
        assert!(fs::read(&out).unwrap() == whole, "{count} parts");
        let error = GgufWeights::open(&parts[0], Verify::First).map(drop).unwrap_err();
        assert!(error.to_string().contains("`join` the parts"), "{error}");
        parts.iter().for_each(|part| fs::remove_file(part).unwrap());
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn a_part_that_was_cut_off_goes_on_and_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let source = source();
    let [undisturbed, out] = ["a.part", "b.part"].map(|name| folder.path().join(name));
    let weights = make(&source, BlockType::E2, Some((2, 2)), &undisturbed);
    for stop in [weights / 3, weights / 2] {
        let run = || {
            make_watched(&source, BlockType::E2, Some((2, 2)), &out, &mut |progress| {
                if progress.done > stop {
                    std::panic::resume_unwind(Box::new(()));
                }
            })
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        assert!(!out.exists());
    }
    make(&source, BlockType::E2, Some((2, 2)), &out);
    assert!(fs::read(&undisturbed).unwrap() == fs::read(&out).unwrap());
}

#[test]
fn parts_that_do_not_make_a_file_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = source();
    let (three, _) = parts(&source, 3, folder.path());
    let out = folder.path().join("model.gguf");
    let refused = |parts: &[&PathBuf]| {
        let parts: Vec<PathBuf> = parts.iter().map(|part| (*part).clone()).collect();
        let error = join_silently(&parts, &out).unwrap_err();
        assert!(!out.exists());
        error.to_string()
    };
    let [a, b, c] = &three[..] else { panic!("three parts") };

    let message = refused(&[a]);
    assert!(message.contains("of 3 parts these are missing: 2, 3"), "{message}");

    let copy = folder.path().join("copy.part");
    fs::copy(b, &copy).unwrap();
    let message = refused(&[a, b, &copy, c]);
    assert!(message.contains("copy.part") && message.contains("both part 2"), "{message}");

    let other = folder.path().join("other.part");
    make(&source, BlockType::E3, Some((2, 3)), &other);
    let message = refused(&[a, &other, c]);
    assert!(message.contains("other.part is a part of another file"), "{message}");
    make(&source, BlockType::E2, Some((2, 4)), &other);
    let message = refused(&[a, &other, c]);
    assert!(message.contains("other.part is a part of another file"), "{message}");

    let bytes = fs::read(b).unwrap();
    let mut damaged = bytes.clone();
    let at = bytes.len() - 10_000;
    damaged[at] ^= 1;
    fs::write(&copy, &damaged).unwrap();
    let message = refused(&[a, &copy, c]);
    assert!(message.contains("copy.part is damaged: blk."), "{message}");
    assert!(message.contains("does not match its checksum"), "{message}");

    // A tensor's name that was changed is not the job's.
    let mut damaged = bytes.clone();
    let at = bytes.windows(11).position(|window| window == b"ffn_expert.").unwrap();
    damaged[at] = b'g';
    fs::write(&copy, &damaged).unwrap();
    let message = refused(&[a, &copy, c]);
    assert!(message.contains("header is not that of the job"), "{message}");

    fs::write(&copy, &bytes[..bytes.len() / 2]).unwrap();
    let message = refused(&[a, &copy, c]);
    assert!(message.contains("copy.part"), "{message}");

    make(&source, BlockType::E2, None, &copy);
    let message = refused(&[a, &copy, c]);
    assert!(message.contains("copy.part is not a part"), "{message}");

    let error = join_silently(&three, c).unwrap_err().to_string();
    assert!(error.contains("is one of the parts"), "{error}");
}

/// The reference model with other weights in the middle of its file, whose sizes and ends are the same.
fn altered(folder: &Path) -> Source {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calibration/reference");
    let copy = folder.join("reference");
    fs::create_dir(&copy).unwrap();
    fs::copy(reference.join("config.json"), copy.join("config.json")).unwrap();
    let mut weights = fs::read(reference.join("model.safetensors")).unwrap();
    let middle = weights.len() / 2;
    weights[middle..middle + 64].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(copy.join("model.safetensors"), weights).unwrap();
    sources::open(&copy).unwrap()
}

#[test]
fn parts_of_two_checkpoints_do_not_join_and_are_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (source(), altered(folder.path()));
    let [a, b, out, whole] =
        ["a.part", "b.part", "model.gguf", "whole.gguf"].map(|name| folder.path().join(name));
    make(&first, BlockType::E2, Some((1, 2)), &a);
    make(&second, BlockType::E2, Some((2, 2)), &b);
    let error = join_silently(&[a, b], &out).unwrap_err().to_string();
    assert!(error.contains("b.part is a part of another file"), "{error}");

    // Changed between a kill and the next run.
    let total = make(&second, BlockType::E2, None, &whole);
    let run = || {
        make_watched(&first, BlockType::E2, None, &out, &mut |progress| {
            if progress.done > total / 2 {
                std::panic::resume_unwind(Box::new(()));
            }
        })
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    make(&second, BlockType::E2, None, &out);
    assert!(fs::read(&out).unwrap() == fs::read(&whole).unwrap());
}

#[test]
fn there_may_be_more_parts_than_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let source = source();
    let [last, whole] = ["last.part", "whole.gguf"].map(|name| folder.path().join(name));
    let weights = make(&source, BlockType::E2, Some((4000, 4000)), &last);
    assert!(weights < make(&source, BlockType::E2, None, &whole) / 10);
    assert!(Part::parse("1/4000").is_some());
    for text in ["0/4", "5/4", "4", "1/5000", "a/b", "1/0", ""] {
        assert!(Part::parse(text).is_none(), "{text}");
    }
}
