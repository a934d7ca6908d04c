//! What an app says to a conversation: cancels that are not lost, passes that conversations share,
//! prompts that are kept, variables of the template, prompts that do not fit, and files of another
//! model.

use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;

use vaquita_runtime::app::{AppModel, ErrorKind, ModelOptions};
use vaquita_runtime::engine::PromptCacheOptions;
use vaquita_runtime::gguf::Gguf;
use vaquita_runtime::session::draft::DraftMode;
use vaquita_runtime::session::generate::{Event, GenerationOptions, StopReason};
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_tests::engine::assert_same;
use vaquita_tests::{golden, reference_file};

fn options() -> GenerationOptions {
    GenerationOptions { max_tokens: Some(3), ..GenerationOptions::default() }
}

#[test]
fn a_cancel_in_the_moment_in_which_an_answer_begins_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    reference_file(&path);
    let model = AppModel::open(&path, &ModelOptions::default()).unwrap();
    let mut conversation = model.conversation().unwrap();
    let canceller = conversation.canceller();
    let mut answer =
        || conversation.answer(Some("2+2?"), &options(), &mut |_| ControlFlow::Continue(()));

    canceller.cancel();
    let stop = answer().unwrap().generation.stop;
    assert_eq!(stop, StopReason::Length, "nothing was being generated");
    let generating = canceller.enter();
    canceller.cancel();
    let generation = answer().unwrap().generation;
    assert_eq!((generation.stop, generation.tokens.len()), (StopReason::Cancelled, 0));
    drop(generating);
    assert_eq!(answer().unwrap().generation.stop, StopReason::Length, "that was the other answer");
}

#[test]
fn conversations_share_passes_and_keep_their_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    reference_file(&path);
    let options = GenerationOptions {
        sampling: SamplingOptions::greedy(),
        max_tokens: Some(120),
        logprobs: Some(2),
        ..GenerationOptions::default()
    };
    let questions = ["723 * 8 = ?", "What is the capital of France?", "12 + 30 = ?"];
    let answer = |model: &Arc<AppModel>, question: &str| {
        let mut conversation = model.conversation().unwrap();
        let turn = conversation
            .answer(Some(question), &options, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        turn.generation
    };
    for drafts in [DraftMode::Off, DraftMode::Mtp(2)] {
        let open = |threads| {
            let options = ModelOptions { threads, drafts, ..ModelOptions::default() };
            AppModel::open(&path, &options).unwrap()
        };
        let alone = open(1);
        let expected = questions.map(|question| answer(&alone, question));
        let counts = alone.passes().counts();
        assert_eq!(counts.passes, counts.sequences, "nobody else was there");
        let model = open(2);
        let together = std::thread::scope(|scope| {
            let answers = questions.map(|question| scope.spawn(|| answer(&model, question)));
            answers.map(|answer| answer.join().unwrap())
        });
        for (found, expected) in together.iter().zip(&expected) {
            assert_same(found, expected);
        }
        let counts = model.passes().counts();
        assert!(counts.sequences > counts.passes, "{counts:?}");
    }
}

#[test]
fn a_callback_that_blocks_stops_no_other_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    reference_file(&path);
    let model = AppModel::open(&path, &ModelOptions::default()).unwrap();
    let (began, begins) = std::sync::mpsc::channel();
    let (release, held) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let model = &model;
        let blocked = scope.spawn(move || {
            let mut conversation = model.conversation().unwrap();
            let mut at = 0;
            let turn = conversation.answer(Some("1+1?"), &options(), &mut |event| {
                at += usize::from(matches!(event, Event::Token(_)));
                if at == 1 {
                    at += 1;
                    began.send(()).unwrap();
                    held.recv().unwrap();
                }
                ControlFlow::Continue(())
            });
            turn.unwrap().generation.stop
        });
        begins.recv().unwrap();
        let mut other = model.conversation().unwrap();
        let turn = other.answer(Some("2+2?"), &options(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(turn.unwrap().generation.stop, StopReason::Length);
        release.send(()).unwrap();
        assert_eq!(blocked.join().unwrap(), StopReason::Length);
    });
}

#[test]
fn a_prompt_that_was_kept_in_a_folder_is_known_to_a_later_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    reference_file(&path);
    let cache = Some(folder.path().join("prompts"));
    let kept = PromptCacheOptions { folder: cache, ..PromptCacheOptions::default() };
    let question = "What is the sum of 12 and 30, and of 13 and 31, and of 14 and 32?".repeat(2);
    let ask = |keeps: bool| {
        let model = AppModel::open(&path, &ModelOptions::default()).unwrap();
        if keeps {
            model.keep_prompts(&kept).unwrap();
        }
        let mut conversation = model.conversation().unwrap();
        let options = GenerationOptions { logprobs: Some(2), ..options() };
        let turn =
            conversation.answer(Some(&question), &options, &mut |_| ControlFlow::Continue(()));
        turn.unwrap().generation
    };
    let expected = ask(false);
    let (first, second) = (ask(true), ask(true));
    assert_same(&first, &expected);
    assert_same(&second, &expected);
    assert_eq!(first.cached_tokens, 0);
    assert_eq!(second.cached_tokens, second.prompt_tokens - 1, "the last token is read again");
}

#[test]
fn variables_reach_the_template_and_stay_with_the_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let (path, saved) = (folder.path().join("model.gguf"), folder.path().join("saved"));
    reference_file(&path);
    let model = AppModel::open(&path, &ModelOptions::default()).unwrap();
    let mut conversation = model.conversation().unwrap();
    let say = |conversation: &mut vaquita_runtime::app::Conversation| {
        let turn =
            conversation.answer(Some("1+1?"), &options(), &mut |_| ControlFlow::Continue(()));
        turn.unwrap().generation.prompt_tokens
    };
    conversation.set_template_variables(r#"{"enable_thinking": false}"#).unwrap();
    say(&mut conversation);
    conversation.save(&saved).unwrap();
    let mut again = model.conversation().unwrap();
    again.restore(&saved).unwrap();
    assert_eq!(say(&mut conversation), say(&mut again));
    for wrong in ["[1]", "{", "1"] {
        let error = conversation.set_template_variables(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
        assert!(error.to_string().contains("enable_thinking"), "{error}");
    }
    conversation.set_template_variables("").unwrap();
}

#[test]
fn a_prompt_that_cannot_fit_is_refused_as_a_full_context() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    reference_file(&path);
    let small = ModelOptions { context: 32, ..ModelOptions::default() };
    let model = AppModel::open(&path, &small).unwrap();
    let mut conversation = model.conversation().unwrap();
    let long = "words ".repeat(1 << 20);
    let error = conversation
        .answer(Some(&long), &options(), &mut |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContextFull);
    assert!(error.to_string().contains("context of 32 tokens"), "{error}");
    assert!(conversation.messages().is_empty(), "the conversation is as it was");
}

#[test]
fn a_model_is_known_by_every_one_of_its_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["deepseek-v3-00001-of-00002.gguf", "deepseek-v3-00002-of-00002.gguf"];
    let paths = names.map(|name| folder.path().join(name));
    for (name, path) in names.iter().zip(&paths) {
        fs::copy(golden("gguf").join(name), path).unwrap();
    }
    let fingerprint = || Gguf::open(&paths[0]).unwrap().identity().unwrap().fingerprint().unwrap();
    let (before, gguf) = (fingerprint(), Gguf::open(&paths[0]).unwrap());
    assert_eq!(fingerprint(), before);
    let tensors: Vec<_> = gguf.tensors().iter().map(|t| (t.part, t.offset, t.len)).collect();
    drop(gguf);
    for (part, offset, len) in tensors {
        let good = fs::read(&paths[part]).unwrap();
        for at in [offset, offset + len - 1] {
            let mut bytes = good.clone();
            bytes[at as usize] ^= 1;
            fs::write(&paths[part], &bytes).unwrap();
            assert_ne!(fingerprint(), before, "byte {at} of part {part}");
        }
        fs::write(&paths[part], &good).unwrap();
    }
    assert_eq!(fingerprint(), before);
}
