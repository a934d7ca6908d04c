//! A long run: the reference model generates with a quarter of its experts in memory, while the
//! budget changes at random. Every token's logits must equal those of the resident model, and
//! memory must stay within bounds and not grow. `cargo run --release -p vaquita-tests --example
//! soak [TOKENS]` (20,000 by default).

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use vaquita_runtime::gguf::Gguf;
use vaquita_runtime::host::Host;
use vaquita_runtime::model::ExpertStore;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::opening::budget::{MemoryBudget, Workload};
use vaquita_runtime::opening::memory_info::MemoryInfo;
use vaquita_runtime::opening::{OpenOptions, TrimLevel, open_gguf};
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::store::{quantize_to, resident};
use vaquita_tests::{bits, goldens, reference};

/// Tokens per answer.
const ANSWER: usize = 200;
const WORKLOAD: Workload =
    Workload { context: ANSWER + 80, prefill_chunk: 32, cache: CacheType::F16, sessions: 1 };
/// Allowed growth of the process once it has settled: allocator slack.
const SLACK: u64 = 8 << 20;

/// xorshift64
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }
}

fn session(model: &Arc<Model>, pool: &Arc<Pool>) -> Session {
    let options = SessionOptions { prefill_chunk: WORKLOAD.prefill_chunk, ..Default::default() };
    Session::new(model.clone(), pool.clone(), options)
}

fn resident_memory() -> u64 {
    MemoryInfo::read(&Host::live()).map_or(0, |machine| machine.process)
}

fn main() -> ExitCode {
    let tokens = std::env::args().nth(1).map_or(20_000, |n| n.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("model.gguf");
    quantize_to(&reference(), &file, None);
    let expected = resident(&file);
    let open = |bytes| {
        let memory = Some(MemoryBudget::Bytes(bytes));
        let options = OpenOptions { memory, ..OpenOptions::new(WORKLOAD) };
        open_gguf(Gguf::open(&file).expect("the file opens"), &options, 0).expect("it fits")
    };
    let footprint = open(1 << 40).memory.plan().expect("a plan").footprint;
    let opened = open(footprint.fixed() + footprint.experts / 4);
    let store = opened.memory.store().expect("not everything fits");
    let pool = Arc::new(Pool::new(2));
    let prompts = goldens(&reference().join("golden.safetensors"));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut done, mut settled, mut most) = (0, None, 0);
    let since = Instant::now();
    while done < tokens {
        let prompt = &prompts[random.below(prompts.len() as u64) as usize].tokens;
        let prompt = &prompt[..prompt.len().min(64)];
        let (mut streamed, mut whole) = (session(&opened.model, &pool), session(&expected, &pool));
        let mut logits = streamed.feed(prompt).expect("the prompt is read");
        whole.feed(prompt).expect("the prompt is read");
        for _ in 0..ANSWER {
            match random.below(40) {
                0 => opened.memory.trim(TrimLevel::Critical),
                1 => opened.memory.trim(TrimLevel::Background),
                2 => {
                    let experts = footprint.cycle + random.below(footprint.experts / 4);
                    opened.memory.set_memory_budget(footprint.fixed() + experts).expect("it fits");
                }
                _ => {}
            }
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            let token = best.map_or(0, |(token, _)| token as u32);
            logits = streamed.feed(&[token]).expect("a token is read");
            if bits(&logits) != bits(&whole.feed(&[token]).expect("a token is read")) {
                eprintln!("token {done} differs from the resident run");
                return ExitCode::FAILURE;
            }
            let stats = store.stats().expect("figures");
            if stats.resident_bytes > stats.limit_bytes {
                eprintln!("token {done}: {stats:?}");
                return ExitCode::FAILURE;
            }
            done += 1;
        }
        let now = resident_memory();
        if done >= tokens / 5 {
            // Resident experts vary with the budget; the rest of the process must not grow.
            let others = now.saturating_sub(store.stats().expect("figures").resident_bytes);
            let settled = *settled.get_or_insert(others);
            if others > settled + SLACK {
                eprintln!("token {done}: {others} bytes besides experts, {settled} before");
                return ExitCode::FAILURE;
            }
        }
        most = most.max(now);
    }
    let stats = store.stats().expect("figures");
    println!(
        "{done} tokens in {:.0} s, all bits as resident; hits {:.1}%, {} evictions, {} MiB read, at most {} MiB resident",
        since.elapsed().as_secs_f64(),
        100.0 * stats.hit_rate().unwrap_or(0.0),
        stats.evictions,
        stats.bytes_read >> 20,
        most >> 20,
    );
    ExitCode::SUCCESS
}
