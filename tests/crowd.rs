//! A crowd: 100 clients that come and go at random ask an engine with 4 slots and a queue of 16 under
//! a memory budget, for as many seconds as are given (600 by default). Every request must end, every
//! refusal must come at once and be counted, and memory must stay within the budget by the count of
//! a cgroup (version 1, where it can be made) and not grow. `cargo run --release -p vaquita-tests
//! --example crowd [SECONDS]`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vaquita_lcg::Lcg;
use vaquita_runtime::app::{AppModel, ModelOptions};
use vaquita_runtime::engine::{Engine, EngineOptions, Refused, Request};
use vaquita_runtime::opening::budget::MemoryBudget;
use vaquita_runtime::session::draft::DraftMode;
use vaquita_runtime::session::generate::GenerationOptions;
use vaquita_tests::engine::ask;
use vaquita_tests::reference_file;

const CLIENTS: u64 = 100;
const OPTIONS: EngineSize = EngineSize { slots: 4, queue: 16, context: 512 };
/// Time within which a refusal counts as one at once.
const AT_ONCE: Duration = Duration::from_millis(500);

struct EngineSize {
    slots: usize,
    queue: usize,
    context: usize,
}

/// What became of the requests.
#[derive(Default)]
struct Tally {
    finished: AtomicU64,
    refused: AtomicU64,
    slow_refusals: AtomicU64,
    failed: AtomicU64,
}

/// A cgroup of version 1 that counts this process; removed by its user.
struct Group(PathBuf);

impl Group {
    fn enter() -> Option<Self> {
        let path = PathBuf::from("/sys/fs/cgroup/memory/vaquita-crowd");
        std::fs::create_dir_all(&path).ok()?;
        std::fs::write(path.join("cgroup.procs"), std::process::id().to_string()).ok()?;
        Some(Self(path))
    }

    /// The most that it held since [`forget`](Self::forget), files in the page cache included.
    fn most(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.0.join("memory.max_usage_in_bytes")).ok()?;
        text.trim().parse().ok()
    }

    /// What it holds now without the page cache.
    fn anonymous(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.0.join("memory.stat")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("total_rss ")?.trim().parse().ok())
    }
}

fn client(engine: &Engine, number: u64, prompts: &[Vec<u32>], until: Instant, tally: &Tally) {
    let mut random = Lcg(number * 7919 + 1);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(random.bits() % 400));
        let options = GenerationOptions {
            max_tokens: Some(1 + random.below(200)),
            ..GenerationOptions::default()
        };
        let prompt = prompts[random.below(prompts.len())].clone();
        let client = format!("client {number}");
        let request = Request { prompt, options, client, ..Request::default() };
        let asked = Instant::now();
        match ask(engine, &request) {
            Err(Refused::QueueFull { .. } | Refused::ClientShare { .. }) => {
                tally.refused.fetch_add(1, Ordering::Relaxed);
                if asked.elapsed() > AT_ONCE {
                    tally.slow_refusals.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(_) => drop(tally.failed.fetch_add(1, Ordering::Relaxed)),
            Ok(one) => {
                match random.below(4) {
                    0 => one.ticket.cancel(),
                    1 => {
                        one.next_token();
                        one.ticket.cancel(); // leaves in the middle
                    }
                    _ => {}
                }
                match one.result() {
                    Ok(_) => tally.finished.fetch_add(1, Ordering::Relaxed),
                    Err(_) => tally.failed.fetch_add(1, Ordering::Relaxed),
                };
            }
        }
    }
}

fn main() -> ExitCode {
    let seconds = std::env::args().nth(1).map_or(600, |text| text.parse().expect("seconds"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("model.gguf");
    reference_file(&file);
    let group = Group::enter();
    if group.is_none() {
        println!("no cgroup of version 1 can be made: its count is skipped");
    }
    let EngineSize { slots, queue, context } = OPTIONS;
    let options = ModelOptions {
        sessions: slots,
        context,
        drafts: DraftMode::Auto,
        ..ModelOptions::default()
    };
    let open = |budget| {
        let memory = Some(MemoryBudget::Bytes(budget));
        let options = ModelOptions { memory, ..options.clone() };
        AppModel::open(&file, &options).expect("it fits")
    };
    let plan = open(1 << 40).loaded().memory.plan().expect("a plan");
    let budget = plan.footprint.fixed() + plan.footprint.experts / 2;
    let model = open(budget);
    let engine = EngineOptions { slots, queue, ..EngineOptions::default() };
    let engine = model.engine(engine).expect("it starts");
    let tokenizer = model.prompter().tokenizer();
    let encode = |at: usize| {
        let text = format!("Question {at}: what is {} + {}? ", at * 7, at * 13).repeat(1 + at % 9);
        tokenizer.encode(&text, true).expect("text has tokens")
    };
    let prompts: Vec<Vec<u32>> = (0..40).map(encode).collect();
    let (tally, begun) = (Tally::default(), Instant::now());
    let until = begun + Duration::from_secs(seconds);
    let (mut settled, mut grown) = (None, 0);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (engine, prompts, tally) = (&engine, &prompts, &tally);
            scope.spawn(move || client(engine, number, prompts, until, tally));
        }
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(500));
            let Some(now) = group.as_ref().and_then(Group::anonymous) else { continue };
            if begun.elapsed() > Duration::from_secs(seconds / 4) {
                let settled = *settled.get_or_insert(now);
                grown = grown.max(now.saturating_sub(settled));
            }
        }
    });
    let status = engine.status();
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (finished, refused) = (load(&tally.finished), load(&tally.refused));
    let counters = status.counters;
    println!(
        "{} s: {finished} ended, {refused} refused ({} late), {} failed; {} tokens, {} known",
        begun.elapsed().as_secs(),
        load(&tally.slow_refusals),
        load(&tally.failed),
        counters.tokens,
        counters.cached_tokens,
    );
    let most = group.as_ref().and_then(Group::most);
    let experts = model.memory().experts;
    println!(
        "at most {most:?} bytes by the cgroup, budget {budget}; {grown} more than when it settled; experts {experts:?}"
    );
    let counted = counters.refused.queue_full + counters.refused.client_share == refused
        && counters.finished + counters.cancelled == finished
        && (status.running, status.queued) == (0, 0);
    let kept = most.is_none_or(|most| most <= budget) && grown <= 4 << 20;
    let sound = load(&tally.failed) == 0 && load(&tally.slow_refusals) == 0;
    match counted && kept && sound {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
