//! A calibration made in parts is the calibration made at once, however it was shared, killed and resumed.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaquita_calibration::EvalError;
use vaquita_calibration::read_documents;
use vaquita_calibration::statistics::{
    Calibration, CalibrationError, CalibrationFile, Calibrator, Coverage, ForwardOptions, Origin,
    calibrate, merge,
};
use vaquita_quantize::{Part, Stop, sources};
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::SessionOptions;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::threads::Pool;
use vaquita_runtime::tokenizer::Tokenizer;

const DOCUMENTS: usize = 15;

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference")
}

fn texts() -> Vec<String> {
    let mut texts = read_documents(&reference().join("calibration.jsonl")).unwrap();
    texts.truncate(DOCUMENTS);
    texts
}

fn calibrator(folder: &Path) -> Calibrator {
    let weights = sources::open(folder).unwrap().weights;
    let prompter = Prompter::new(Arc::new(Tokenizer::from_folder(folder).unwrap())).unwrap();
    let options = SessionOptions { cache: CacheType::F32, ..SessionOptions::default() };
    Calibrator { weights, prompter, options, pool: Arc::new(Pool::new(2)) }
}

/// Makes the whole file, or a part of it.
fn make_watched(
    part: Option<Part>,
    texts: &[String],
    out: &Path,
    stop: &Stop,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<Coverage, EvalError> {
    make_of(&reference(), part, texts, out, stop, on_progress)
}

/// The same of another model.
fn make_of(
    model: &Path,
    part: Option<Part>,
    texts: &[String],
    out: &Path,
    stop: &Stop,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<Coverage, EvalError> {
    let origin = Origin::new("crc32:01234567", texts);
    let options =
        ForwardOptions { states_in_memory: 1 << 16, ..ForwardOptions::beside(out, Some(64)) };
    let job = Calibration { origin: &origin, texts, part, out, stop };
    calibrate(calibrator(model), &job, options, on_progress)
}

fn make(part: Option<(usize, usize)>, out: &Path) -> Coverage {
    let part = part.map(|(number, count)| Part::new(number, count).unwrap());
    make_watched(part, &texts(), out, &Stop::default(), &mut |_, _| {}).unwrap()
}

fn parts(count: usize, folder: &Path) -> Vec<PathBuf> {
    let made = (1..=count).map(|number| {
        let out = folder.join(format!("{count}-{number}.part"));
        make(Some((number, count)), &out);
        out
    });
    made.collect()
}

#[test]
fn any_number_of_parts_in_any_order_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, out] = ["whole.calibration", "a.calibration"].map(|name| folder.path().join(name));
    let coverage = make(None, &whole);
    let whole = fs::read(whole).unwrap();
    // More parts than documents: some have none.
    for count in [1, 2, 3, 7, DOCUMENTS + 3] {
        let mut parts = parts(count, folder.path());
        parts.reverse();
        assert_eq!(merge(&parts, &out, &mut |_, _| {}).unwrap(), coverage);
        assert!(fs::read(&out).unwrap() == whole, "{count} parts");
        parts.iter().for_each(|part| fs::remove_file(part).unwrap());
    }
    CalibrationFile::open(&out).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
}

/// Overwrites the output head of a checkpoint with its embedding.
fn tie_head(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let [head, embedding] = ["lm_head.weight", "model.embed_tokens.weight"].map(|name| {
        let at = |end: usize| data + header[name]["data_offsets"][end].as_u64().unwrap() as usize;
        at(0)..at(1)
    });
    bytes.copy_within(embedding, head.start);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_model_with_a_tied_output_head_has_parts_too() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("tied");
    fs::create_dir(&model).unwrap();
    for name in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(reference().join(name), model.join(name)).unwrap();
    }
    let config = fs::read_to_string(reference().join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["tie_word_embeddings"] = true.into();
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    tie_head(&model.join("model.safetensors"));

    let [whole, a, b, out] = ["whole", "a", "b", "out"].map(|name| folder.path().join(name));
    let stop = Stop::default();
    for (part, path) in [(None, &whole), (Part::new(1, 2), &a), (Part::new(2, 2), &b)] {
        make_of(&model, part, &texts()[..4], path, &stop, &mut |_, _| {}).unwrap();
    }
    merge(&[a, b], &out, &mut |_, _| {}).unwrap();
    assert!(fs::read(&out).unwrap() == fs::read(&whole).unwrap());
}

#[test]
fn a_run_that_was_killed_in_any_layer_goes_on_in_it_and_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (texts, stop) = (texts(), Stop::default());
    for (name, part) in [("whole", None), ("part", Part::new(2, 2))] {
        let [undisturbed, out] =
            ["a", "b"].map(|end| folder.path().join(format!("{name}-{end}.calibration")));
        make_watched(part, &texts, &undisturbed, &stop, &mut |_, _| {}).unwrap();
        for layer in [0, 1, 3] {
            let run = || {
                make_watched(part, &texts, &out, &stop, &mut |done, total| {
                    // Progress is in tokens of all layers.
                    if done > total / 4 * layer {
                        std::panic::resume_unwind(Box::new(()));
                    }
                })
            };
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err() && !out.exists());
        }
        // What was there is not computed again.
        let mut first = None;
        let coverage = make_watched(part, &texts, &out, &stop, &mut |done, total| {
            first.get_or_insert(4 * done / total);
        });
        assert!(first >= Some(3), "{first:?}");
        assert_eq!(coverage.unwrap().layers.len(), 3);
        assert!(fs::read(&undisturbed).unwrap() == fs::read(&out).unwrap());
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "nothing else is left");
}

#[test]
fn a_run_that_is_asked_to_stop_ends_after_its_layer() {
    let folder = tempfile::tempdir().unwrap();
    let [undisturbed, out] = ["a.part", "b.part"].map(|name| folder.path().join(name));
    let (texts, part) = (texts(), Part::new(1, 2));
    make_watched(part, &texts, &undisturbed, &Stop::default(), &mut |_, _| {}).unwrap();
    let mut turns = 0;
    loop {
        let stop = Stop::default();
        turns += 1;
        match make_watched(part, &texts, &out, &stop, &mut |_, _| stop.request()) {
            Ok(_) => break,
            Err(EvalError::Calibration(CalibrationError::Stopped { path })) => {
                assert_eq!(path, out);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(turns, 5, "four layers, each in a turn, and the output head");
    assert!(fs::read(&undisturbed).unwrap() == fs::read(&out).unwrap());
}

#[test]
fn hidden_states_that_were_damaged_are_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let [undisturbed, out] = ["a.part", "b.part"].map(|name| folder.path().join(name));
    let (texts, part, stop) = (texts(), Part::new(1, 2), Stop::default());
    make_watched(part, &texts, &undisturbed, &stop, &mut |_, _| {}).unwrap();
    let stopped = make_watched(part, &texts, &out, &stop, &mut |done, total| {
        if done > total / 2 {
            stop.request();
        }
    });
    stopped.unwrap_err();
    let states = folder.path().join(".b.part.states-3");
    let mut bytes = fs::read(&states).unwrap();
    bytes[1000] ^= 1;
    fs::write(&states, bytes).unwrap();
    let mut first = None;
    let again = make_watched(part, &texts, &out, &Stop::default(), &mut |done, total| {
        first.get_or_insert(4 * done / total);
    });
    again.unwrap();
    assert!(first < Some(2), "begins anew: {first:?}");
    assert!(fs::read(&undisturbed).unwrap() == fs::read(&out).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn parts_that_do_not_make_a_calibration_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let three = parts(3, folder.path());
    let out = folder.path().join("a.calibration");
    let refused = |parts: &[&PathBuf]| {
        let parts: Vec<PathBuf> = parts.iter().map(|part| (*part).clone()).collect();
        let error = merge(&parts, &out, &mut |_, _| {}).unwrap_err();
        assert!(!out.exists());
        error.to_string()
    };
    let [a, b, c] = &three[..] else { panic!("three parts") };
    let message = refused(&[a]);
    assert!(message.contains("of 3 parts these are missing: 2, 3"), "{message}");
    let copy = folder.path().join("copy.part");
    fs::copy(b, &copy).unwrap();
    let message = refused(&[a, b, &copy, c]);
    assert!(message.contains("copy.part and") && message.contains("both part 2"), "{message}");

    let other = folder.path().join("other.part");
    let fewer = &texts()[..DOCUMENTS - 1];
    make_watched(Part::new(2, 3), fewer, &other, &Stop::default(), &mut |_, _| {}).unwrap();
    let message = refused(&[a, &other, c]);
    assert!(message.contains("other.part is a part of another calibration"), "{message}");

    let bytes = fs::read(b).unwrap();
    let damages = [(30, "header"), (bytes.len() / 2, "damaged"), (bytes.len() - 2, "checksum")];
    for (at, says) in damages {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&copy, &damaged).unwrap();
        let message = refused(&[a, &copy, c]);
        assert!(message.contains("copy.part") && message.contains(says), "{message}");
    }
    for len in [0, 10, 25, 500, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&copy, &bytes[..len]).unwrap();
        let message = refused(&[a, &copy, c]);
        assert!(message.contains("copy.part"), "{message}");
    }
    let error = merge(&three, c, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("is one of the parts"), "{error}");
    let error = merge(&[], &out, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("missing: 1"), "{error}");
}
