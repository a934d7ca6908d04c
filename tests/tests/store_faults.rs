//! Reads that fail, stall or return wrong data: the result is an error or a wait, never a wrong
//! answer, and other sessions continue.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vaquita_runtime::checkpoint::Verify;
use vaquita_runtime::model::ExpertStore;
use vaquita_tests::store::{
    Fault, Faulty, Setting, quantize_to, resident, run, session, streamed, streamed_through,
};
use vaquita_tests::{bits, golden, goldens};

struct Fixture {
    _folder: tempfile::TempDir,
    file: PathBuf,
    tokens: Vec<u32>,
    expected: Vec<u32>,
}

const PROMPT: usize = 10;

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    quantize_to(&golden("deepseek-v3"), &file, None);
    let sequence = goldens(&golden("deepseek-v3").join("golden.safetensors")).swap_remove(0);
    let tokens: Vec<u32> = sequence.tokens.into_iter().take(16).collect();
    let expected = run(&resident(&file), &tokens, PROMPT);
    Fixture { _folder: folder, file, tokens, expected }
}

/// Offset at which experts begin in a file: reads from there on fail, those of other tensors do
/// not.
fn first_expert(file: &Path) -> u64 {
    let gguf = vaquita_runtime::gguf::Gguf::open(file).unwrap();
    let of_experts = gguf.tensors().iter().filter(|tensor| tensor.name.contains("ffn_expert"));
    of_experts.map(|tensor| tensor.offset).min().unwrap()
}

#[test]
fn a_read_error_in_the_middle_of_an_answer_ends_that_answer_and_it_can_be_tried_again() {
    let fixture = fixture();
    let failing = Arc::new(AtomicBool::new(false));
    let fails = failing.clone();
    let streamed = streamed_through(&fixture.file, Setting::default(), |files| {
        Faulty::new(files, move |_| match fails.load(Ordering::Relaxed) {
            true => Fault::Error(ErrorKind::Other),
            false => Fault::None,
        })
    });
    let (prompt, rest) = fixture.tokens.split_at(PROMPT);
    let mut session = session(&streamed.model, 7);
    let mut logits = session.feed_all(prompt).unwrap();
    failing.store(true, Ordering::Relaxed);
    let error = session.feed(&rest[..1]).unwrap_err().to_string();
    assert!(error.contains("expert") && error.contains("model.gguf"), "{error}");
    assert_eq!(session.tokens(), prompt);

    failing.store(false, Ordering::Relaxed);
    for &token in rest {
        logits.extend(session.feed(&[token]).unwrap());
    }
    assert!(bits(&logits) == fixture.expected);
}

#[test]
fn a_read_that_still_fails_for_an_answer_that_is_over_fails_nobody_else() {
    let fixture = fixture();
    let failing = Arc::new(AtomicBool::new(false));
    let (fails, first) = (failing.clone(), AtomicBool::new(true));
    let streamed = streamed_through(&fixture.file, Setting::default(), |files| {
        Faulty::new(files, move |_| match fails.load(Ordering::Relaxed) {
            true if first.swap(false, Ordering::Relaxed) => Fault::Error(ErrorKind::Other),
            true => Fault::SlowError(Duration::from_millis(300), ErrorKind::Other),
            false => Fault::None,
        })
    });
    let mut session = session(&streamed.model, 7);
    let (prompt, rest) = fixture.tokens.split_at(PROMPT);
    let mut logits = session.feed_all(prompt).unwrap();
    failing.store(true, Ordering::Relaxed);
    session.feed(&rest[..1]).unwrap_err();
    failing.store(false, Ordering::Relaxed);
    // The other lane is still busy with a read that began for the failed feed.
    for &token in rest {
        logits.extend(session.feed(&[token]).unwrap());
    }
    assert!(bits(&logits) == fixture.expected);
}

#[test]
fn while_one_session_meets_errors_the_others_compute_what_they_should() {
    let fixture = fixture();
    let streamed = streamed_through(&fixture.file, Setting::default(), |files| {
        Faulty::new(files, |number| match number % 50 == 49 {
            true => Fault::Error(ErrorKind::TimedOut),
            false => Fault::None,
        })
    });
    let done = std::thread::scope(|scope| {
        let attempt = || {
            let mut session = session(&streamed.model, 7);
            let mut logits = session.feed_all(&fixture.tokens[..PROMPT]).ok()?;
            for &token in &fixture.tokens[PROMPT..] {
                logits.extend(session.feed(&[token]).ok()?);
            }
            assert!(bits(&logits) == fixture.expected, "an answer that came is right");
            Some(())
        };
        let threads: Vec<_> = (0..3)
            .map(|_| scope.spawn(move || (0..12).filter(|_| attempt().is_some()).count()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert!(done < 36, "some answers meet an error");
    let stats = streamed.store.stats().unwrap();
    assert!(stats.resident_bytes <= stats.limit_bytes, "{stats:?}");
}

#[test]
fn a_flipped_bit_is_found_by_the_checksum_and_never_computed_with() {
    let fixture = fixture();
    let streamed = streamed_through(&fixture.file, Setting::default(), |files| {
        Faulty::new(files, |number| if number == 3 { Fault::Flip } else { Fault::None })
    });
    let mut session = session(&streamed.model, 7);
    let error = session.feed_all(&fixture.tokens[..PROMPT]).unwrap_err().to_string();
    assert!(error.contains("damaged") && error.contains("checksum"), "{error}");
    assert!(run(&streamed.model, &fixture.tokens, PROMPT) == fixture.expected);
}

#[test]
fn with_verify_always_a_bit_that_flips_later_is_found_too() {
    let fixture = fixture();
    let late = Arc::new(AtomicBool::new(false));
    let flips = late.clone();
    let setting = Setting { verify: Verify::Always, ..Setting::default() };
    let streamed = streamed_through(&fixture.file, setting, |files| {
        Faulty::new(files, move |_| match flips.load(Ordering::Relaxed) {
            true => Fault::Flip,
            false => Fault::None,
        })
    });
    assert!(run(&streamed.model, &fixture.tokens, PROMPT) == fixture.expected);
    late.store(true, Ordering::Relaxed);
    let mut session = session(&streamed.model, 7);
    let error = session.feed_all(&fixture.tokens).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
}

#[test]
fn a_file_that_is_cut_off_underneath_is_an_error() {
    let fixture = fixture();
    let streamed = streamed(&fixture.file, Setting::default());
    let file = OpenOptions::new().write(true).open(&fixture.file).unwrap();
    file.set_len(first_expert(&fixture.file)).unwrap();
    let mut session = session(&streamed.model, 7);
    let error = session.feed_all(&fixture.tokens).unwrap_err().to_string();
    assert!(error.contains("model.gguf"), "{error}");
}

#[test]
fn a_file_that_is_overwritten_underneath_is_an_error_although_its_records_were_verified() {
    let fixture = fixture();
    let streamed = streamed(&fixture.file, Setting::default());
    assert!(run(&streamed.model, &fixture.tokens, PROMPT) == fixture.expected);
    let file = OpenOptions::new().write(true).open(&fixture.file).unwrap();
    let end = file.metadata().unwrap().len();
    let mut at = first_expert(&fixture.file);
    while at < end {
        file.write_all_at(&[0x55; 8], at + 700).unwrap();
        at += 4096;
    }
    let mut session = session(&streamed.model, 7);
    let error = session.feed_all(&fixture.tokens).unwrap_err().to_string();
    assert!(error.contains("was changed while it is in use"), "{error}");
}

#[test]
fn a_file_that_is_replaced_by_another_of_its_name_goes_on_being_read_as_it_was() {
    let fixture = fixture();
    let streamed = streamed(&fixture.file, Setting::default());
    let other = fixture.file.with_extension("other");
    fs::write(&other, b"something else").unwrap();
    fs::rename(&other, &fixture.file).unwrap();
    assert!(run(&streamed.model, &fixture.tokens, PROMPT) == fixture.expected);
}

#[test]
fn a_disk_that_stalls_is_waited_for() {
    let fixture = fixture();
    let stall = Duration::from_millis(400);
    let streamed = streamed_through(&fixture.file, Setting::default(), |files| {
        Faulty::new(files, move |number| match number == 5 {
            true => Fault::Stall(stall),
            false => Fault::None,
        })
    });
    let since = Instant::now();
    assert!(run(&streamed.model, &fixture.tokens, PROMPT) == fixture.expected);
    assert!(since.elapsed() >= stall);
    assert!(streamed.store.stats().unwrap().waiting > stall / 2);
}

#[test]
fn the_budget_changes_while_tokens_are_generated_and_the_answer_does_not() {
    let fixture = fixture();
    let streamed = streamed(&fixture.file, Setting::default());
    let (least, total) =
        (streamed.store.index().least_bytes(), streamed.store.index().total_bytes());
    let running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for step in 0.. {
                if !running.load(Ordering::Relaxed) {
                    return;
                }
                let bytes = least + (total - least) * (step * 37 % 100) / 100;
                streamed.store.set_budget(bytes).unwrap();
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        for _ in 0..20 {
            assert!(run(&streamed.model, &fixture.tokens, PROMPT) == fixture.expected);
        }
        running.store(false, Ordering::Relaxed);
    });
    streamed.store.set_budget(least).unwrap();
    assert!(streamed.store.stats().unwrap().resident_bytes as usize <= least);
    assert!(streamed.store.set_budget(least - 1).is_err());
}
