//! Routing traces, and the modes that change routing.

use std::path::Path;

use vaquita_runtime::experts::PrefetchMode;
use vaquita_runtime::experts::policies::PolicyKind;
use vaquita_runtime::gguf::Gguf;
use vaquita_runtime::model::ExpertStore;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::opening::budget::{MemoryBudget, Workload};
use vaquita_runtime::opening::{OpenModelError, OpenOptions, Opened, open_gguf};
use vaquita_runtime::trace::Trace;
use vaquita_runtime::trace::replay::{EvictionRule, replay};
use vaquita_tests::store::{quantize_to, resident, run, session};
use vaquita_tests::{bits, goldens, reference};

const WORKLOAD: Workload =
    Workload { context: 128, prefill_chunk: 16, cache: CacheType::F16, sessions: 1 };

struct Fixture {
    folder: tempfile::TempDir,
    tokens: Vec<u32>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        quantize_to(&reference(), &folder.path().join("model.gguf"), None);
        let sequence = goldens(&reference().join("golden.safetensors")).swap_remove(0);
        Self { folder, tokens: sequence.tokens.into_iter().take(60).collect() }
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("model.gguf")
    }

    fn options(&self) -> OpenOptions {
        OpenOptions::new(WORKLOAD)
    }

    fn open(&self, options: &OpenOptions) -> Result<Opened, OpenModelError> {
        open_gguf(Gguf::open(&self.file()).unwrap(), options, 0)
    }

    /// Options for a budget that holds a quarter of the experts.
    fn streaming(&self) -> OpenOptions {
        let memory = Some(MemoryBudget::Bytes(1 << 40));
        let roomy = self.open(&OpenOptions { memory, ..self.options() }).unwrap();
        let footprint = roomy.memory.plan().unwrap().footprint;
        let memory = Some(MemoryBudget::Bytes(footprint.fixed() + footprint.experts / 4));
        OpenOptions { memory, ..self.options() }
    }
}

fn read(path: &Path) -> Trace {
    Trace::read(path).unwrap()
}

#[test]
fn a_recorded_trace_replays_to_what_the_store_hit_and_read() {
    let fixture = Fixture::new();
    let trace = fixture.folder.path().join("trace.csv");
    for policy in [PolicyKind::Lru, PolicyKind::Lfu, PolicyKind::Reuse] {
        let trace_to = Some(trace.clone());
        let prefetch = PrefetchMode::Off;
        let options = OpenOptions { trace: trace_to, policy, prefetch, ..fixture.streaming() };
        let opened = fixture.open(&options).unwrap();
        let mut session = session(&opened.model, 16);
        for &token in &fixture.tokens {
            session.feed(&[token]).unwrap();
        }
        opened.trace.as_ref().unwrap().finish().unwrap();
        let stats = opened.memory.store().unwrap().stats().unwrap();
        let replayed =
            replay(&read(&trace), EvictionRule::Policy(policy), stats.limit_bytes).unwrap();
        assert_eq!(replayed.tokens, fixture.tokens.len() as u64);
        assert_eq!(replayed.decode.uses, stats.uses, "{policy:?}");
        assert_eq!(replayed.decode.hits, stats.hits, "{policy:?}");
        assert_eq!(replayed.decode.bytes_read, stats.bytes_read, "{policy:?}");
    }
}

#[test]
fn a_mapped_model_records_the_same_routes_as_a_streamed_one() {
    let fixture = Fixture::new();
    let record = |name: &str, options: OpenOptions| {
        let trace = fixture.folder.path().join(name);
        let opened = fixture.open(&OpenOptions { trace: Some(trace.clone()), ..options }).unwrap();
        run(&opened.model, &fixture.tokens, 40);
        opened.trace.as_ref().unwrap().finish().unwrap();
        read(&trace)
    };
    let mapped = record("mapped.csv", fixture.options());
    let streamed = record("streamed.csv", fixture.streaming());
    assert_eq!(mapped.visits, streamed.visits);
    assert_eq!(mapped.expert_bytes, streamed.expert_bytes);
    assert_eq!(mapped.decoded_tokens(), 20);
}

#[test]
fn preferring_residents_hits_more_and_without_a_margin_changes_nothing() {
    let fixture = Fixture::new();
    let expected = run(&resident(&fixture.file()), &fixture.tokens, 10);
    let mut hits = Vec::new();
    for margin in [0.0, 0.9] {
        let options = OpenOptions { prefer_resident: Some(margin), ..fixture.streaming() };
        assert!(options.lossy().unwrap().starts_with("lossy: "));
        let opened = fixture.open(&options).unwrap();
        let logits = run(&opened.model, &fixture.tokens, 10);
        assert_eq!(logits == expected, margin == 0.0, "margin {margin}");
        hits.push(opened.memory.store().unwrap().stats().unwrap().hits);
    }
    assert!(hits[1] > hits[0], "{hits:?}");
    let wrong = OpenOptions { prefer_resident: Some(1.5), ..fixture.options() };
    assert!(matches!(fixture.open(&wrong), Err(OpenModelError::Margin { .. })));
}

#[test]
fn fewer_active_experts_are_what_is_computed_and_all_of_them_change_nothing() {
    let fixture = Fixture::new();
    let expected = run(&resident(&fixture.file()), &fixture.tokens, 40);
    let trained = resident(&fixture.file()).config().moe.num_experts_per_tok;
    let with = |active| {
        let options = OpenOptions { active_experts: Some(active), ..fixture.streaming() };
        fixture.open(&options)
    };
    assert!(run(&with(trained).unwrap().model, &fixture.tokens, 40) == expected);
    let opened = with(trained - 1).unwrap();
    assert!(run(&opened.model, &fixture.tokens, 40) != expected);
    let mut session = session(&opened.model, 1);
    let store = opened.memory.store().unwrap();
    let before = store.stats().unwrap();
    assert!(!bits(&session.feed(&fixture.tokens[..1]).unwrap()).is_empty());
    let config = opened.model.config();
    let layers = config.num_hidden_layers - config.moe.first_k_dense_replace;
    let uses = store.stats().unwrap().since(&before).uses;
    assert_eq!(uses, (layers * (trained - 1)) as u64);
    for active in [0, trained + 1] {
        let error = with(active).err().unwrap().to_string();
        assert!(error.contains(&format!("this model has 1 to {trained}")), "{error}");
    }
}
