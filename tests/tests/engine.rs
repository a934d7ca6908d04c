//! The engine: every answer has the bits that it has alone, whatever is known of its prompt;
//! refusals, cancels, deadlines and the end are as documented. Random schedules are in
//! `schedules.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use vaquita_lcg::Lcg;
use vaquita_runtime::engine::{
    CacheSource, Engine, EngineError, EngineModel, EngineOptions, Finished, Notice, Priority,
    PromptCacheOptions, Refused, Request, SlotError, StartError,
};
use vaquita_runtime::session::generate::{Generation, GenerationOptions, StopReason};
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::save::SaveError;
use vaquita_tests::engine::{Asked, CONTEXT, Subject, ask, assert_same, parts};

/// Latents, keys and values beside convolutions and beside states, and the trained model.
fn subjects() -> impl Iterator<Item = Subject> {
    let golden = ["deepseek-v3", "lfm2-moe", "qwen3-next"].into_iter().map(Subject::golden);
    golden.chain(std::iter::once_with(Subject::reference))
}

/// What becomes of a request, alone in the engine.
fn answer(engine: &Engine, client: &str, request: &Request) -> Box<Finished> {
    let request = Request { client: client.into(), ..request.clone() };
    ask(engine, &request).unwrap().finished()
}

fn kept(folder: &Path) -> EngineOptions {
    let folder = Some(folder.join("prompts"));
    let prompts = PromptCacheOptions { memory: 0, folder, ..PromptCacheOptions::default() };
    EngineOptions { prompts, ..EngineOptions::default() }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("prompts")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some()).collect();
    files.sort();
    files
}

/// llama.cpp's suite leaves out `test_cache_vs_nocache_prompt`.
#[test]
fn cached_equals_uncached_at_temperature_1() {
    let subjects = subjects();
    for subject in subjects {
        let folder = tempfile::tempdir().unwrap();
        let drawn = subject.cases.iter().filter(|case| case.0.options.sampling.temperature == 1.0);
        let (request, alone) = drawn.max_by_key(|case| case.0.prompt.len()).unwrap();
        let known = request.prompt.len() - 1;
        {
            let in_memory = subject.engine(1, 16, EngineOptions::default());
            let on_disk = subject.engine(1, 16, kept(folder.path()));
            for engine in [&in_memory, &on_disk] {
                let first = answer(engine, "a", request);
                assert_eq!((first.cache.tokens, first.cache.source), (0, CacheSource::Nothing));
                assert_same(&first.generation, alone);
            }
            let second = answer(&in_memory, "a", request);
            assert_eq!((second.cache.tokens, second.cache.source), (known, CacheSource::Memory));
            assert_eq!((second.cache.miss, second.generation.cached_tokens), (None, known));
            assert_same(&second.generation, alone);
            assert_eq!(in_memory.status().counters.cached_tokens, known as u64);
        } // everything is written
        let engine = subject.engine(2, 16, kept(folder.path()));
        let other = answer(&engine, "b", request);
        assert_eq!((other.cache.tokens, other.cache.source), (0, CacheSource::Nothing));
        let third = answer(&engine, "a", request);
        assert_eq!((third.cache.tokens, third.cache.source), (known, CacheSource::Disk));
        assert_eq!(engine.status().counters.cached_tokens_from_disk, known as u64);
        assert_same(&third.generation, alone);
    }
}

#[test]
fn a_conversation_is_read_from_where_it_differs_and_only_new_rows_are_written() {
    let subject = Subject::golden("deepseek-v3");
    let folder = tempfile::tempdir().unwrap();
    let greedy = GenerationOptions {
        sampling: SamplingOptions::greedy(),
        max_tokens: Some(2),
        ..GenerationOptions::default()
    };
    let prompt: Vec<u32> = (0..120).map(|i| (i * 7 % 50) as u32).collect();
    let ask = |tokens: &[u32]| {
        let engine = subject.engine(1, 64, kept(folder.path()));
        let request =
            Request { prompt: tokens.to_vec(), options: greedy.clone(), ..Request::default() };
        answer(&engine, "a", &request)
    };
    assert_eq!(ask(&prompt[..100]).cache.miss.as_deref(), Some("nothing of this client is kept"));
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let first: u64 = files(folder.path()).iter().map(size).sum();
    let longer = ask(&prompt);
    assert_eq!(longer.cache.source, CacheSource::Disk);
    assert_eq!(longer.cache.tokens, 100);
    assert_eq!(longer.cache.miss.as_deref(), Some("goes on after token 100"));
    let second = files(folder.path()).iter().map(size).sum::<u64>() - first;
    assert!(second < first / 3, "{second} bytes for 20 tokens after {first} for 100");
    let mut edited = prompt.clone();
    edited[70] += 1;
    assert_eq!(ask(&edited).cache.tokens, 70);
    assert_eq!(ask(&edited).cache.tokens, 119, "also what was read after the edit");

    let engine = subject.engine(1, 64, EngineOptions::default());
    let ask = |tokens: &[u32]| {
        let request =
            Request { prompt: tokens.to_vec(), options: greedy.clone(), ..Request::default() };
        answer(&engine, "a", &request).cache.miss
    };
    ask(&prompt);
    assert_eq!(ask(&edited).as_deref(), Some("differs at token 70"));
    let uncached = |tokens: &[u32]| {
        let (prompt, options) = (tokens.to_vec(), greedy.clone());
        let request = Request { prompt, options, uncached: true, ..Request::default() };
        answer(&engine, "a", &request).cache
    };
    let other: Vec<u32> = prompt.iter().rev().copied().collect();
    assert_eq!((uncached(&other).tokens, uncached(&prompt).tokens), (0, 0));
    assert_eq!(ask(&other).as_deref(), Some("differs at token 0"), "it was not kept");
}

#[test]
fn damaged_files_are_a_miss_and_never_another_answer() {
    let subject = Subject::golden("deepseek-v3");
    let folder = tempfile::tempdir().unwrap();
    let (request, alone) = &subject.cases[4];
    let ask = || answer(&subject.engine(1, 64, kept(folder.path())), "a", request);
    ask();
    let good: Vec<(PathBuf, Vec<u8>)> = files(folder.path())
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    assert!(!good.is_empty());
    let largest = good.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let len = largest.1.len();
    let mut misses = 0;
    let heads = (0..96).step_by(5);
    for at in heads.chain((96..len).step_by(len / 25)) {
        for change in 0..2 {
            for path in files(folder.path()) {
                fs::remove_file(path).unwrap();
            }
            good.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
            let mut bytes = largest.1.clone();
            match change {
                0 => bytes[at] ^= 1 << (at % 8),
                _ => bytes.truncate(at),
            }
            fs::write(&largest.0, &bytes).unwrap();
            let found = ask();
            assert_same(&found.generation, alone);
            misses += usize::from(found.cache.source == CacheSource::Nothing);
        }
    }
    assert!(misses > 40, "{misses} misses: most changes concern the prompt");
}

#[test]
fn the_folder_is_private_bounded_and_belongs_to_models_with_a_file() {
    let subject = Subject::golden("deepseek-v3");
    let folder = tempfile::tempdir().unwrap();
    let mut options = kept(folder.path());
    {
        let engine = subject.engine(1, 64, options.clone());
        subject
            .cases
            .iter()
            .for_each(|(request, _)| drop(answer(&engine, "a secret key", request)));
    }
    let names: Vec<String> =
        files(folder.path()).iter().map(|path| path.display().to_string()).collect();
    assert!(names.len() > 3 && names.iter().all(|name| !name.contains("secret")));
    let total = |folder: &Path| files(folder).iter().map(|p| fs::metadata(p).unwrap().len()).sum();
    let all: u64 = total(folder.path());
    options.prompts.disk = all / 2;
    drop(subject.engine(1, 64, options.clone()));
    assert!((1..=all / 2).contains(&total(folder.path())));
    options.prompts.max_age = Duration::ZERO;
    drop(subject.engine(1, 64, options.clone()));
    assert_eq!(total(folder.path()), 0);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join("prompts");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("secret"))), (0o700, 0o600));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let parts = parts(&subject.model, &subject.tokenizer, 1, 64);
        let error = Engine::start(parts, options.clone()).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }
    let parts =
        EngineModel { fingerprint: None, ..parts(&subject.model, &subject.tokenizer, 1, 64) };
    assert!(matches!(Engine::start(parts, options), Err(StartError::NoFingerprint)));
}

/// No client learns from the work of others what they asked: by the counters, since times vary.
#[test]
fn a_prompt_of_another_client_is_as_new_as_any() {
    let subject = Subject::golden("deepseek-v3");
    let (request, _) = &subject.cases[4];
    let engine = subject.engine(1, 16, EngineOptions::default());
    answer(&engine, "victim", request);
    let counters = |engine: &Engine| {
        let counters = engine.status().counters;
        (counters.passes, counters.prompt_tokens, counters.cached_tokens)
    };
    let work = |client: &str, request: &Request| {
        let before = counters(&engine);
        answer(&engine, client, request);
        let after = counters(&engine);
        (after.0 - before.0, after.1 - before.1, after.2 - before.2)
    };
    let mut fresh = request.clone();
    fresh.prompt[0] = (fresh.prompt[0] + 1) % 50;
    fresh.options.max_tokens = Some(1);
    let probe = Request { options: fresh.options.clone(), ..request.clone() };
    for client in 0..100 {
        let probed = work(&format!("probe {client}"), &probe);
        assert_eq!(probed, work(&format!("fresh {client}"), &fresh));
        assert_eq!(probed.2, 0);
    }
    assert!(work("victim", &probe).2 > 0, "its own is known");
}

#[test]
fn memory_for_prompts_is_bounded_and_shared_fairly() {
    let subject = Subject::golden("deepseek-v3");
    let (request, _) = &subject.cases[4];
    let prompts = PromptCacheOptions { memory: 1 << 20, ..PromptCacheOptions::default() };
    let engine = subject.engine(1, 64, EngineOptions { prompts, ..EngineOptions::default() });
    answer(&engine, "small", request);
    let vocab = subject.model.config().vocab_size as u32;
    for i in 0..60 {
        let mut other = request.clone();
        other.prompt[0] = i % vocab;
        other.options.max_tokens = Some(1);
        answer(&engine, "large", &other);
        let bytes = engine.status().prompt_bytes;
        assert!(bytes > 0 && bytes <= 1 << 20, "{bytes}");
    }
    assert!(answer(&engine, "small", request).cache.tokens > 0, "it lost nothing to the other");
}

/// The steps of llama.cpp's `test_slot_save_restore` and `test_slot_erase`.
#[test]
fn a_slot_is_saved_restored_and_erased() {
    for subject in [Subject::golden("deepseek-v3"), Subject::reference()] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("slot1.bin");
        let engine = || subject.engine(1, 64, EngineOptions::default());
        let one = engine();
        let (request, alone) = &subject.cases[4];
        let ask = |engine: &Engine, slot: Option<usize>| {
            let finished = answer(engine, "a", &Request { slot, ..request.clone() });
            assert_same(&finished.generation, alone);
            finished.cache.tokens
        };
        assert!(matches!(one.save_slot("a", Some(1), &file, b""), Err(SlotError::Empty)));
        assert_eq!(ask(&one, Some(1)), 0);
        assert_eq!(ask(&one, Some(0)), 0, "a slot knows nothing of the others");
        assert_eq!(ask(&one, None), 0, "nor is it known outside of it");
        let known = ask(&one, Some(1));
        assert!(known > 0);
        let saved = one.save_slot("a", Some(1), &file, b"mine").unwrap();
        assert!(saved >= request.prompt.len());

        let two = engine();
        assert_eq!(two.restore_slot("a", Some(3), &file).unwrap(), saved);
        assert_eq!(ask(&two, Some(2)), 0);
        assert_eq!(ask(&two, Some(3)), known, "as if it had been read there");
        assert!(two.erase_slot("a", Some(3)).unwrap() > 0);
        assert_eq!(two.erase_slot("a", Some(3)).unwrap(), 0);
        assert_eq!(ask(&two, Some(3)), 0);
        assert!(matches!(two.save_slot("b", Some(3), &file, b""), Err(SlotError::Empty)));
    }
}

#[test]
fn a_slot_of_another_model_a_damaged_one_and_one_without_room_are_refused() {
    let subject = Subject::golden("deepseek-v3");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slot");
    let engine = subject.engine(1, 64, EngineOptions::default());
    let (request, _) = &subject.cases[4];
    answer(&engine, "a", request);
    engine.save_slot("a", None, &file, b"").unwrap();
    let other =
        EngineModel { fingerprint: Some(8), ..parts(&subject.model, &subject.tokenizer, 1, 64) };
    let other = Engine::start(other, EngineOptions::default()).unwrap();
    let refused = |engine: &Engine| engine.restore_slot("a", None, &file).unwrap_err();
    assert!(matches!(refused(&other), SlotError::File(SaveError::OtherModel { .. })));
    let prompts = PromptCacheOptions { memory: 1 << 10, ..PromptCacheOptions::default() };
    let small = subject.engine(1, 64, EngineOptions { prompts, ..EngineOptions::default() });
    assert!(matches!(refused(&small), SlotError::NoRoom { .. }));
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert!(matches!(refused(&engine), SlotError::File(SaveError::Damaged { .. })));
    assert!(answer(&engine, "a", request).cache.tokens > 0, "what was kept stays");
    // All that a client sent without a slot is one, also on disk.
    let engine = subject.engine(1, 64, kept(folder.path()));
    answer(&engine, "a", request);
    answer(&engine, "b", request);
    engine.erase_slot("a", None).unwrap();
    assert_eq!(answer(&engine, "a", request).cache.tokens, 0);
    assert!(answer(&engine, "b", request).cache.tokens > 0);
}

/// The short form of `crowd.rs`.
#[test]
fn a_crowd_of_clients_is_answered_or_refused_and_counted() {
    let subject = Subject::golden("deepseek-v3");
    let options = EngineOptions { slots: 4, queue: 16, ..EngineOptions::default() };
    let engine = subject.engine(2, 32, options);
    let (ended, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for client in 0..100 {
            let (engine, subject, ended, refused) = (&engine, &subject, &ended, &refused);
            scope.spawn(move || {
                let mut random = Lcg(client);
                for _ in 0..6 {
                    let (request, alone) = &subject.cases[random.below(subject.cases.len())];
                    let client = format!("client {client}");
                    let Ok(one) = ask(engine, &Request { client, ..request.clone() }) else {
                        refused.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(random.bits() % 20));
                        continue;
                    };
                    if random.below(3) == 0 {
                        one.next_token();
                        one.ticket.cancel();
                    }
                    assert_same(&one.finished().generation, alone);
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let status = engine.status();
    assert_eq!((status.running, status.queued, status.cache_tokens_used), (0, 0, 0));
    let counters = status.counters;
    assert_eq!(counters.refused.all(), refused.into_inner());
    assert_eq!(counters.finished + counters.cancelled, ended.into_inner());
    assert_eq!((counters.failed, counters.late), (0, 0));
}

/// llama.cpp's suite leaves out `test_completion_parallel_slots`.
#[test]
fn parallel_slots_are_deterministic() {
    let subject = Subject::reference();
    let (request, alone) = &subject.cases[1];
    let engine = subject.engine(2, 32, EngineOptions::default());
    let all: Vec<_> = (0..4).map(|_| ask(&engine, request).unwrap()).collect();
    for one in all {
        assert_same(&one.finished().generation, alone);
    }
}

/// llama.cpp's suite leaves out `test_consistent_result_different_batch_size` at temperature 1.
#[test]
fn results_do_not_depend_on_the_batch_size_at_temperature_1() {
    let subject = Subject::reference();
    for chunk in [1, 3, 16, 64] {
        for slots in [1, 4] {
            let engine = subject.engine(2, chunk, EngineOptions { slots, ..Default::default() });
            let ask = |(at, (request, _)): (usize, &(Request, Generation))| {
                let client = format!("client {at}");
                ask(&engine, &Request { client, ..request.clone() }).unwrap()
            };
            let all: Vec<_> = subject.cases.iter().enumerate().map(ask).collect();
            for (one, (_, alone)) in all.into_iter().zip(&subject.cases) {
                assert_same(&one.finished().generation, alone);
            }
        }
    }
}

/// Submits a request that holds the engine's thread at its first token until the sender is dropped.
fn hold(engine: &Engine, request: &Request) -> (Sender<()>, Asked) {
    let (release, held) = channel::<()>();
    let (sender, notices) = channel();
    let mut first = true;
    let sink = Box::new(move |notice| {
        let token = matches!(notice, Notice::Token(_));
        let _ = sender.send(notice);
        if token && std::mem::take(&mut first) {
            let _ = held.recv(); // an error once the sender is dropped
        }
    });
    let ticket = engine.submit(request.clone(), sink).unwrap();
    let asked = Asked::new(ticket, notices);
    asked.next_token().expect("it begins");
    (release, asked)
}

#[test]
fn refusals_come_at_once_and_are_counted() {
    let subject = Subject::golden("deepseek-v3");
    let request = |client: &str| Request { client: client.into(), ..subject.cases[2].0.clone() };
    let options = EngineOptions { slots: 1, queue: 3, client_share: Some(2), ..Default::default() };
    let engine = subject.engine(1, 64, options);
    let (release, first) = hold(&engine, &request("a"));
    let mut waiting =
        vec![ask(&engine, &request("a")).unwrap(), ask(&engine, &request("a")).unwrap()];
    let share = ask(&engine, &request("a")).err().unwrap();
    assert!(matches!(share, Refused::ClientShare { retry_after } if !retry_after.is_zero()));
    waiting.push(ask(&engine, &request("b")).unwrap());
    let full = ask(&engine, &request("c")).err().unwrap();
    assert!(matches!(full, Refused::QueueFull { retry_after } if !retry_after.is_zero()));
    waiting.pop().unwrap().ticket.cancel();

    drop(release);
    first.finished();
    waiting.into_iter().for_each(|one| drop(one.finished()));
    let long = Request { prompt: vec![1; CONTEXT + 1], ..Request::default() };
    let limits = |error| match error {
        Refused::TooLong { needed, limit } => (needed, limit),
        other => panic!("{other}"),
    };
    assert_eq!(limits(ask(&engine, &long).err().unwrap()), (CONTEXT + 1, CONTEXT));
    let empty = ask(&engine, &Request::default()).err().unwrap();
    assert!(matches!(&empty, Refused::Invalid(_)), "{empty}");
    let mut hot = request("a");
    hot.options.sampling.temperature = -1.0;
    assert!(ask(&engine, &hot).err().unwrap().to_string().contains("temperature"));
    engine.drain(Duration::ZERO);
    assert!(matches!(ask(&engine, &request("a")).err().unwrap(), Refused::Draining));
    let refused = engine.status().counters.refused;
    let counted = [
        refused.client_share,
        refused.queue_full,
        refused.too_long,
        refused.invalid,
        refused.draining,
    ];
    assert_eq!((counted, refused.all()), ([1, 1, 1, 2, 1], 6));
}

#[test]
fn a_prompt_that_never_fits_the_cache_is_refused_and_an_answer_ends_where_it_is_full() {
    let subject = Subject::golden("deepseek-v3");
    let options = EngineOptions { cache_tokens: Some(50), ..Default::default() };
    let engine = subject.engine(1, 64, options);
    let long = Request { prompt: vec![1; 51], ..Request::default() };
    assert!(matches!(ask(&engine, &long), Err(Refused::TooLong { needed: 51, limit: 50 })));
    let mut request = Request { prompt: vec![1; 45], ..Request::default() };
    request.options.sampling = SamplingOptions::greedy();
    let generation = ask(&engine, &request).unwrap().finished().generation;
    assert_eq!((generation.stop, generation.tokens.len()), (StopReason::ContextFull, 6));
}

#[test]
fn a_cancel_ends_one_request_wherever_it_is() {
    let subject = Subject::golden("deepseek-v3");
    let (request, alone) = &subject.cases[4];
    let engine = subject.engine(1, 8, EngineOptions { slots: 2, ..Default::default() });
    let (release, neighbour) = hold(&engine, request);
    let reading = ask(&engine, request).unwrap();
    let waiting = ask(&engine, request).unwrap();
    waiting.ticket.cancel();
    reading.ticket.cancel();
    drop(release);
    for one in [waiting, reading] {
        let generation = one.finished().generation;
        assert_eq!((generation.stop, generation.tokens.len()), (StopReason::Cancelled, 0));
    }
    assert_same(&neighbour.finished().generation, alone);
    let decoding = ask(&engine, request).unwrap();
    decoding.next_token();
    decoding.ticket.clone().cancel();
    let ticket = decoding.ticket.clone();
    assert_same(&decoding.finished().generation, alone);
    ticket.cancel(); // nothing
    assert_eq!(engine.status().counters.failed, 0);
}

#[test]
fn deadlines_end_what_waits_and_what_runs() {
    let subject = Subject::golden("deepseek-v3");
    // Long enough to begin on a busy machine.
    let soon = || Some(Instant::now() + Duration::from_millis(1500));
    let engine = subject.engine(1, 8, EngineOptions { slots: 1, ..Default::default() });
    let running = Request { deadline: soon(), ..subject.cases[4].0.clone() };
    let (release, running) = hold(&engine, &running);
    let waiting = Request { deadline: soon(), ..subject.cases[4].0.clone() };
    let waiting = ask(&engine, &waiting).unwrap();
    std::thread::sleep(Duration::from_millis(1600)); // both deadlines pass
    drop(release);
    let running = running.finished();
    assert!(running.late && running.generation.stop == StopReason::Cancelled);
    assert_eq!(running.generation.tokens.len(), 1);
    assert!(matches!(waiting.result(), Err(EngineError::Deadline)));
    assert_eq!(engine.status().counters.late, 2);
}

#[test]
fn draining_lets_answers_end_and_dropping_ends_them() {
    let subject = Subject::golden("deepseek-v3");
    let (request, alone) = &subject.cases[4];
    let engine = subject.engine(1, 8, EngineOptions { slots: 1, ..Default::default() });
    let (release, running) = hold(&engine, request);
    let waiting = ask(&engine, request).unwrap();
    drop(release);
    engine.drain(Duration::from_secs(600));
    assert_same(&running.finished().generation, alone);
    assert_eq!(waiting.finished().generation.stop, StopReason::Cancelled);
    assert!(engine.status().draining);

    let engine = subject.engine(1, 8, EngineOptions::default());
    let endless = Request {
        options: GenerationOptions { max_tokens: None, ..request.options.clone() },
        ..request.clone()
    };
    let (release, running) = hold(&engine, &endless);
    drop(release);
    drop(engine);
    assert_eq!(running.finished().generation.stop, StopReason::Cancelled);
}

#[test]
fn a_sink_that_panics_ends_nothing_else() {
    let subject = Subject::golden("deepseek-v3");
    let (request, alone) = &subject.cases[2];
    let engine = subject.engine(1, 8, EngineOptions::default());
    engine.submit(request.clone(), Box::new(|_| panic!("a sink of a test"))).unwrap();
    let other = ask(&engine, request).unwrap();
    assert_same(&other.finished().generation, alone);
}

#[test]
fn lower_priorities_wait_for_higher_ones() {
    let subject = Subject::golden("deepseek-v3");
    let engine = subject.engine(1, 8, EngineOptions { slots: 1, ..Default::default() });
    let (order, ended) = channel();
    let ask = |priority, name: &'static str| {
        let order = order.clone();
        let sink = Box::new(move |notice| {
            if matches!(notice, Notice::Done(_)) {
                let _ = order.send(name);
            }
        });
        let request = Request { priority, ..subject.cases[2].0.clone() };
        engine.submit(request, sink).unwrap();
    };
    let background = Request { priority: Priority::Background, ..subject.cases[4].0.clone() };
    let (release, running) = hold(&engine, &background);
    ask(Priority::Background, "background");
    ask(Priority::Normal, "normal");
    ask(Priority::Foreground, "foreground");
    drop(release);
    // The one that runs is overtaken too: it shares no slot with higher priorities.
    let order: Vec<_> = ended.iter().take(3).collect();
    assert_eq!(order, ["foreground", "normal", "background"]);
    assert_same(&running.finished().generation, &subject.cases[4].1);
}
