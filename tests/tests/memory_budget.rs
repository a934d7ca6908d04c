//! A memory budget covers the whole process: plans, refusals, and changes while a model runs.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use vaquita_runtime::app::{LoadedModel, ModelOptions};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::engine::{Engine, EngineOptions, Notice, Request};
use vaquita_runtime::gguf::Gguf;
use vaquita_runtime::model::ExpertStore;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::opening::budget::{Footprint, MemoryBudget, Workload};
use vaquita_runtime::opening::pressure::PressureWatch;
use vaquita_runtime::opening::{OpenModelError, OpenOptions, Opened, TrimLevel, open, open_gguf};
use vaquita_runtime::session::generate::GenerationOptions;
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_tests::engine::parts;
use vaquita_tests::store::{quantize_to, resident, run, session};
use vaquita_tests::{bits, golden, goldens, quantized, reference, reference_file};

const WORKLOAD: Workload =
    Workload { context: 64, prefill_chunk: 16, cache: CacheType::F16, sessions: 1 };

fn open_within(file: &Path, bytes: u64) -> Result<Opened, OpenModelError> {
    let memory = Some(MemoryBudget::Bytes(bytes));
    // As if the process had occupied nothing before, so that results are reproducible.
    open_gguf(Gguf::open(file).unwrap(), &OpenOptions { memory, ..OpenOptions::new(WORKLOAD) }, 0)
}

fn fixture() -> (tempfile::TempDir, std::path::PathBuf, Vec<u32>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    quantize_to(&golden("deepseek-v3"), &file, None);
    let sequence = goldens(&golden("deepseek-v3").join("golden.safetensors")).swap_remove(0);
    (folder, file, sequence.tokens.into_iter().take(16).collect())
}

#[test]
fn a_budget_decides_between_mapping_streaming_and_refusing() {
    let (_folder, file, tokens) = fixture();
    let expected = run(&resident(&file), &tokens, 10);

    let roomy = open_within(&file, 1 << 40).unwrap();
    assert!(roomy.memory.store().is_none());
    assert!(run(&roomy.model, &tokens, 10) == expected);

    let footprint = roomy.memory.plan().unwrap().footprint;
    let tight = open_within(&file, footprint.floor()).unwrap();
    assert_eq!(tight.memory.plan().unwrap().experts, Some(footprint.cycle));
    assert!(tight.memory.store().is_some());
    assert!(run(&tight.model, &tokens, 10) == expected);
    let Err(error) = open_within(&file, footprint.floor() - 1) else {
        panic!("one byte is missing")
    };
    assert!(matches!(error, OpenModelError::TooSmall { .. }), "{error}");

    let Err(error) = open_within(&file, footprint.dense) else { panic!("dense weights alone fit") };
    let error = error.to_string();
    assert!(error.contains("model.gguf") && error.contains("needs at least"), "{error}");
    assert!(error.contains("cache for 64 tokens") && error.contains("raise the budget"), "{error}");
}

#[test]
fn chunks_of_prompts_grow_where_that_costs_the_experts_little() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    reference_file(&file);
    let tokens: Vec<u32> = (0..16).map(|i| i * 29 % 256).collect();
    let expected = run(&resident(&file), &tokens, 10);
    let open_up_to = |largest_chunk, budget| {
        let memory = Some(MemoryBudget::Bytes(budget));
        let workload = Workload { prefill_chunk: 1, ..WORKLOAD };
        let options = OpenOptions { memory, largest_chunk, ..OpenOptions::new(workload) };
        open_gguf(Gguf::open(&file).unwrap(), &options, 0).unwrap()
    };
    let plan_of = |largest, budget| open_up_to(largest, budget).memory.plan().unwrap();
    let least = plan_of(1, 1 << 40).footprint;
    let roomy = plan_of(64, 1 << 40);
    assert_eq!((least.prefill_chunk, roomy.footprint.prefill_chunk), (1, 64));
    assert!(roomy.footprint.scratch > least.scratch && roomy.experts.is_none());
    assert_eq!(plan_of(64, least.floor()).footprint.prefill_chunk, 1);

    // From the floor on, chunks of streamed models only grow, plans add up, and what was mapped stays
    // mapped.
    let mut streamed = 1;
    for step in 0..=64 {
        let budget = least.floor() + (least.experts - least.cycle) * step / 64;
        let (plan, small) = (plan_of(64, budget), plan_of(1, budget));
        let chunk = plan.footprint.prefill_chunk;
        assert!(chunk.is_power_of_two() && chunk <= 64);
        assert_eq!(plan.experts.is_none(), small.experts.is_none());
        if let (Some(left), Some(without)) = (plan.experts, small.experts) {
            assert_eq!(plan.footprint.fixed() + left, budget);
            assert!(left >= plan.footprint.cycle && left >= without - without / 16);
            assert!(chunk >= streamed);
            streamed = chunk;
        }
        if step % 16 == 0 {
            assert!(run(&open_up_to(64, budget).model, &tokens, chunk) == expected);
        }
    }
    assert!(streamed > 1, "they grow where experts are streamed, too");
}

#[test]
fn a_loaded_model_reads_prompts_in_the_chunks_of_its_plan() {
    let (_folder, file, _) = fixture();
    let chunk = |memory| {
        let options = ModelOptions { memory, context: 512, ..ModelOptions::default() };
        LoadedModel::open(&file, &options).unwrap().0.options.prefill_chunk
    };
    assert_eq!(chunk(None), 256);
    assert_eq!(chunk(Some(MemoryBudget::Bytes(1 << 40))), 512);
}

#[test]
fn without_a_budget_a_file_is_mapped() {
    let (_folder, file, _) = fixture();
    let opened = open(&file, &OpenOptions::new(WORKLOAD)).unwrap();
    assert!(opened.memory.plan().is_none() && opened.memory.store().is_none());
    opened.memory.trim(TrimLevel::Critical);
    opened.memory.set_memory_budget(1).unwrap();
}

#[test]
fn memory_is_given_back_on_demand_and_the_answer_stays_the_same() {
    let (_folder, file, tokens) = fixture();
    let expected = run(&resident(&file), &tokens, 10);
    let footprint = open_within(&file, 1 << 40).unwrap().memory.plan().unwrap().footprint;
    assert!(
        footprint.layer < footprint.cycle && footprint.cycle < footprint.experts,
        "{footprint:?}"
    );
    let half = (footprint.cycle + footprint.experts) / 2;
    let opened = open_within(&file, footprint.fixed() + footprint.experts - 1).unwrap();
    let store = opened.memory.store().expect("not everything fits");
    let resident_bytes = || store.stats().unwrap().resident_bytes;
    let fixed = footprint.fixed();
    let check = |limit: u64| {
        assert!(resident_bytes() <= limit);
        assert!(run(&opened.model, &tokens, 10) == expected);
        assert!(resident_bytes() <= limit);
        assert_eq!(opened.memory.plan().unwrap().experts, Some(limit));
    };
    opened.memory.set_memory_budget(fixed + half - 4096).unwrap();
    check(half - 4096);
    opened.memory.trim(TrimLevel::Background);
    check(footprint.cycle);
    opened.memory.trim(TrimLevel::Critical);
    check(footprint.layer);
    opened.memory.trim(TrimLevel::Background);
    check(footprint.layer);
    opened.memory.set_memory_budget(fixed + half).unwrap();
    check(half);
    let error = opened.memory.set_memory_budget(fixed).unwrap_err().to_string();
    assert!(error.contains("needs at least"), "{error}");
    check(half);
}

/// The reference model, streamed within the most memory that does not hold all its experts, with
/// chunks of prompts that have grown from one token; and what it needs with chunks of one.
fn grown() -> (tempfile::TempDir, Opened, Footprint) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    reference_file(&file);
    let open_up_to = |largest_chunk, budget| {
        let memory = Some(MemoryBudget::Bytes(budget));
        let workload = Workload { prefill_chunk: 1, ..WORKLOAD };
        let options = OpenOptions { memory, largest_chunk, ..OpenOptions::new(workload) };
        open_gguf(Gguf::open(&file).unwrap(), &options, 0).unwrap()
    };
    let least = open_up_to(1, 1 << 40).memory.plan().unwrap().footprint;
    let opened = open_up_to(64, least.fixed() + least.experts - 1);
    let plan = opened.memory.plan().unwrap();
    assert!((2..=32).contains(&plan.footprint.prefill_chunk), "{plan:?}");
    assert!(least.floor() < plan.footprint.floor());
    (folder, opened, least)
}

#[test]
fn a_smaller_budget_is_met_by_smaller_chunks_also_within_a_prompt() {
    let (folder, Opened { model, memory, .. }, least) = grown();
    let tokens: Vec<u32> = (0..48).map(|i| i * 29 % 256).collect();
    let expected = run(&resident(&folder.path().join("model.gguf")), &tokens, tokens.len());
    let (plan, floor) = (memory.plan().unwrap(), least.floor());
    let chunk = plan.footprint.prefill_chunk;

    let mut session = session(&model, chunk);
    let mut logits = session.feed_all(&tokens[..chunk]).unwrap();
    memory.set_memory_budget(floor).unwrap();
    assert_eq!(session.prefill_chunk(), 1);
    assert_eq!(memory.plan().unwrap().experts, Some(least.cycle));
    logits.extend(session.feed_all(&tokens[chunk..]).unwrap());
    assert!(bits(&logits) == expected);

    let error = memory.set_memory_budget(floor - 1).unwrap_err();
    assert_eq!(error.footprint.floor(), floor, "the least budget is that of the smallest chunk");
    memory.set_memory_budget(plan.budget).unwrap();
    assert_eq!((session.prefill_chunk(), memory.plan()), (chunk, Some(plan)));
    memory.set_memory_budget(1 << 40).unwrap();
    assert_eq!(session.prefill_chunk(), chunk, "no more was planned on opening");
    memory.trim(TrimLevel::Background);
    assert_eq!(session.prefill_chunk(), chunk);
    memory.trim(TrimLevel::Critical);
    assert_eq!(session.prefill_chunk(), 1);
    assert_eq!(memory.plan().unwrap().budget, least.fixed() + least.layer);
}

#[test]
fn an_engine_reads_prompts_in_the_chunks_that_the_budget_allows_now() {
    let (_folder, Opened { model, memory, .. }, least) = grown();
    let tokenizer = Arc::new(Tokenizer::from_folder(&reference()).unwrap());
    let chunk = memory.plan().unwrap().footprint.prefill_chunk;
    let engine = parts(&model, &tokenizer, 2, chunk);
    let engine = Engine::start(engine, EngineOptions::default()).unwrap();
    let options = GenerationOptions { max_tokens: Some(4), ..GenerationOptions::default() };
    // No two prompts have a part in common.
    let read = |first: u32| {
        let prompt = (0..40).map(|i| (first + i * 29) % 256).collect();
        let request = Request { prompt, options: options.clone(), ..Request::default() };
        let (sender, notices) = channel();
        let sink = Box::new(move |notice| drop(sender.send(notice)));
        let _ticket = engine.submit(request, sink).unwrap();
        let read = notices.iter().filter_map(|notice| match notice {
            Notice::Prompt { done, .. } => Some(done),
            _ => None,
        });
        let read: Vec<usize> = read.collect();
        read.windows(2).map(|two| two[1] - two[0]).max().unwrap()
    };
    assert_eq!(read(1), chunk);
    memory.set_memory_budget(least.floor()).unwrap();
    assert_eq!(read(2), 1);
    memory.set_memory_budget(1 << 40).unwrap();
    assert_eq!(read(3), chunk);
}

#[test]
fn pressure_on_the_systems_memory_trims_and_calm_brings_the_budget_back() {
    let (_folder, file, tokens) = fixture();
    let expected = run(&resident(&file), &tokens, 10);
    let footprint = open_within(&file, 1 << 40).unwrap().memory.plan().unwrap().footprint;
    let full = footprint.fixed() + (footprint.cycle + footprint.experts) / 2;
    let opened = open_within(&file, full).unwrap();
    let root = tempfile::tempdir().unwrap();
    let pressure = root.path().join("proc/pressure/memory");
    std::fs::create_dir_all(pressure.parent().unwrap()).unwrap();
    let say = |some: &str, everyone: &str| {
        let text = format!("some avg10={some} avg60=0\nfull avg10={everyone} avg60=0\n");
        // By rename, so that it is never read half-written.
        let new = root.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &pressure).unwrap();
    };
    say("0.00", "0.00");
    let interval = std::time::Duration::from_millis(1);
    let start =
        || PressureWatch::start_on(opened.memory.clone(), root.path().to_path_buf(), interval);
    let _watch = start().unwrap();
    let wait_for = |budget: u64| {
        let since = std::time::Instant::now();
        while opened.memory.plan().unwrap().budget != budget {
            assert!(since.elapsed().as_secs() < 30, "{:?}", opened.memory.plan());
            std::thread::sleep(interval);
        }
        assert!(run(&opened.model, &tokens, 10) == expected);
    };
    say("15.00", "0.00");
    wait_for(footprint.fixed() + footprint.cycle);
    say("70.00", "40.00");
    wait_for(footprint.fixed() + footprint.layer);
    say("0.00", "0.00");
    wait_for(full);

    let mapped = open(&file, &OpenOptions::new(WORKLOAD)).unwrap();
    assert!(PressureWatch::start(mapped.memory.clone()).is_none());
}

#[test]
fn a_table_of_per_layer_embeddings_stays_in_a_mapped_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    quantized(&golden("gemma-4-e2b"), &file, BlockType::F32, None);
    let tokens = goldens(&golden("gemma-4-e2b").join("golden.safetensors")).swap_remove(0).tokens;
    let opened = [true, false].map(|map| {
        let memory = Some(MemoryBudget::Bytes(1 << 40));
        let options = OpenOptions { memory, map, ..OpenOptions::new(WORKLOAD) };
        open_gguf(Gguf::open_with(&file, map).unwrap(), &options, 0).unwrap()
    });
    let [mapped, read] = opened.each_ref().map(|one| one.memory.plan().unwrap().footprint.dense);
    let table = 4 * 320 * 8 * 16;
    assert!(read - mapped >= table, "{read} {mapped}");
    let [mapped, read] = opened.map(|one| run(&one.model, &tokens[..16], 4));
    assert!(mapped == read);
}
