//! Decodes with experts streamed from a file, and compares the speed with the bounds of storage and
//! arithmetic.
//!
//! `streaming FILE [--memory 3GiB] [--tokens 200] [--warm 50] [--policy reuse] [--lanes N] [--prefetch auto] [--rate MIB]
//! [--prompt TOKENS] [--chunk TOKENS]`
//!
//! `--prompt` reads a prompt first, in chunks of 128 to 512 tokens, as memory allows, or of `--chunk`. `--rate` limits reads to that many MiB/s, to simulate slower flash. Storage is probed first.
//! Tokens are random, since a model with random weights routes them as variably as text. The
//! figures cover the tokens after the first `--warm` ones.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vaquita_runtime::checkpoint::source::{ByteSource, Files};
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::experts::policies::PolicyKind;
use vaquita_runtime::experts::{ExpertIndex, PrefetchMode, Streaming, StreamingOptions, probe};
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::model::{ExpertStore, Stats};
use vaquita_runtime::opening::budget::{MemoryBudget, MemoryPlan, Workload};
use vaquita_runtime::opening::{OpenOptions, open};
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const MIB: f64 = 1048576.0;

struct Args {
    file: PathBuf,
    memory: Option<MemoryBudget>,
    tokens: usize,
    warm: usize,
    prompt: usize,
    chunk: Option<usize>,
    threads: usize,
    lanes: Option<usize>,
    policy: PolicyKind,
    prefetch: PrefetchMode,
    rate: Option<f64>,
}

fn args() -> Result<Args> {
    let mut words = std::env::args().skip(1);
    let mut args = Args {
        file: words.next().ok_or("usage: streaming FILE [--memory 3GiB] ...")?.into(),
        memory: None,
        tokens: 200,
        warm: 50,
        prompt: 0,
        chunk: None,
        threads: Pool::default_threads(),
        lanes: None,
        policy: PolicyKind::default(),
        prefetch: PrefetchMode::default(),
        rate: None,
    };
    while let Some(name) = words.next() {
        let value = words.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--memory" => args.memory = Some(MemoryBudget::parse(&value)?),
            "--tokens" => args.tokens = value.parse()?,
            "--warm" => args.warm = value.parse()?,
            "--prompt" => args.prompt = value.parse()?,
            "--chunk" => args.chunk = Some(value.parse()?),
            "--threads" => args.threads = value.parse()?,
            "--lanes" => args.lanes = Some(value.parse()?),
            "--policy" => args.policy = PolicyKind::from_name(&value).ok_or("no such policy")?,
            "--prefetch" => {
                args.prefetch = PrefetchMode::from_name(&value).ok_or("off, on or auto")?
            }
            "--rate" => args.rate = Some(value.parse::<f64>()? * MIB),
            _ => return Err(format!("no such option: {name}").into()),
        }
    }
    Ok(args)
}

/// xorshift64: the same tokens in every run.
struct Tokens(u64, u64);

impl Iterator for Tokens {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Some((self.0 % self.1) as u32)
    }
}

/// Files whose reads are limited to a given rate, all lanes together.
struct Paced {
    files: Arc<Files>,
    bytes_per_second: f64,
    /// Time at which the last requested read is done.
    free: Mutex<Instant>,
}

impl ByteSource for Paced {
    fn read(&self, part: usize, offset: u64, into: &mut [u8], needed: usize) -> io::Result<()> {
        let time = Duration::from_secs_f64(into.len() as f64 / self.bytes_per_second);
        let done = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(Instant::now()) + time;
            *free
        };
        self.files.read(part, offset, into, needed)?;
        std::thread::sleep(done.saturating_duration_since(Instant::now()));
        Ok(())
    }
}

type Loaded = (Arc<Model>, Option<Arc<Streaming>>);

/// Opens the model as [`open`] does, with slowed reads.
fn open_paced(args: &Args, options: &OpenOptions, plan: MemoryPlan, rate: f64) -> Result<Loaded> {
    let mut weights = GgufWeights::open(&args.file, options.verify)?;
    let files = Files::open(weights.gguf(), true).map_err(|(_, error)| error)?;
    weights.detach(files.clone());
    let weights = Arc::new(weights);
    let free = Mutex::new(Instant::now());
    let source = Arc::new(Paced { files, bytes_per_second: rate, free });
    let streaming = StreamingOptions {
        budget_bytes: usize::try_from(plan.experts.ok_or("everything fits")?)?,
        policy: options.policy,
        lanes: options.lanes,
        prefetch: options.prefetch,
        prefer_resident: None,
    };
    let store = Arc::new(Streaming::new(weights.clone(), source, &streaming)?);
    Ok((Arc::new(Model::with_experts(&*weights, store.clone())?), Some(store)))
}

fn main() -> Result<()> {
    let args = args()?;
    let rates = {
        let weights = GgufWeights::open(&args.file, Verify::Never)?;
        let index = ExpertIndex::find(&weights)?;
        let files = Files::open(weights.gguf(), true).map_err(|(_, error)| error)?;
        let rates = probe::probe_lanes(&*files, &index, Duration::from_millis(700))?;
        for rate in &rates {
            println!("read rate, {} lanes: {:.0} MiB/s", rate.lanes, rate.bytes_per_second() / MIB);
        }
        println!("direct: {}", files.is_direct());
        rates
    };
    let best = rates.iter().map(|rate| rate.bytes_per_second()).fold(0.0, f64::max);
    let best = args.rate.map_or(best, |rate| rate.min(best));
    let lanes = args.lanes.unwrap_or_else(|| probe::best_lanes(&rates).max(2));

    let context = args.prompt + args.warm + args.tokens;
    let prefill_chunk = args.chunk.unwrap_or(128);
    let workload = Workload { context, prefill_chunk, cache: CacheType::F16, sessions: 1 };
    let mut options = OpenOptions::new(workload);
    options.largest_chunk = args.chunk.unwrap_or(512);
    (options.memory, options.lanes) = (args.memory, lanes);
    (options.policy, options.prefetch) = (args.policy, args.prefetch);
    let since = Instant::now();
    let opened = open(&args.file, &options)?;
    println!("opened in {:.2} s, {lanes} lanes", since.elapsed().as_secs_f64());
    let mut chunk = args.chunk.unwrap_or(256);
    if let Some(plan) = opened.memory.plan() {
        let footprint = plan.footprint;
        chunk = footprint.prefill_chunk;
        let mib = |bytes: u64| bytes as f64 / MIB;
        println!(
            "MiB: budget {:.0}, process {:.0}, dense {:.0}, cache {:.0}, scratch {:.0} for {chunk} tokens, experts {} of {:.0}, \
             cycle {:.0}",
            mib(plan.budget),
            mib(footprint.process),
            mib(footprint.dense),
            mib(footprint.cache),
            mib(footprint.scratch),
            plan.experts.map_or("mapped".into(), |bytes| format!("{:.0}", mib(bytes))),
            mib(footprint.experts),
            mib(footprint.cycle),
        );
    }

    let (model, store) = match (args.rate, opened.memory.plan()) {
        (Some(rate), Some(plan)) => {
            drop(opened);
            open_paced(&args, &options, plan, rate)?
        }
        _ => (opened.model.clone(), opened.memory.store().cloned()),
    };
    let mut tokens = Tokens(0x9e3779b97f4a7c15, model.config().vocab_size as u64);
    let session_options =
        SessionOptions { context, prefill_chunk: chunk, ..SessionOptions::default() };
    let pool = Arc::new(Pool::new(args.threads));
    let mut session = Session::new(model, pool, session_options);
    if args.prompt > 0 {
        let prompt: Vec<u32> = tokens.by_ref().take(args.prompt).collect();
        let before = stats(store.as_deref());
        let since = Instant::now();
        session.feed(&prompt)?;
        report("prompt", args.prompt, since.elapsed(), &before, store.as_deref(), best);
    }
    for token in tokens.by_ref().take(args.warm) {
        session.feed(&[token])?;
    }
    let before = stats(store.as_deref());
    let since = Instant::now();
    for token in tokens.take(args.tokens) {
        session.feed(&[token])?;
    }
    report("decode", args.tokens, since.elapsed(), &before, store.as_deref(), best);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("Rss")) {
        println!("{line}");
    }
    Ok(())
}

fn stats(store: Option<&Streaming>) -> Stats {
    store.and_then(|store| store.stats()).unwrap_or_default()
}

fn report(
    what: &str,
    tokens: usize,
    elapsed: Duration,
    before: &Stats,
    store: Option<&Streaming>,
    rate: f64,
) {
    let seconds = elapsed.as_secs_f64();
    let speed = tokens as f64 / seconds;
    println!("{what}: {tokens} tokens in {seconds:.2} s: {speed:.2} tok/s");
    let Some(store) = store else { return };
    let stats = stats(Some(store)).since(before);
    let per_token = |time: Duration| time.as_secs_f64() * 1e3 / tokens as f64;
    println!(
        "  hits {:.1}%, {:.1} MiB read per token at {:.0} MiB/s; per token {:.1} ms waiting, {:.1} ms computing, {:.1} ms reading, {:.1} evictions",
        100.0 * stats.hit_rate().unwrap_or(0.0),
        stats.bytes_read as f64 / MIB / tokens as f64,
        stats.read_rate().unwrap_or(0.0) / MIB,
        per_token(stats.waiting),
        1e3 * seconds / tokens as f64 - per_token(stats.waiting),
        per_token(stats.reading),
        stats.evictions as f64 / tokens as f64,
    );
    let bound = stats.bound(tokens as u64, elapsed, Some(rate)).unwrap_or(0.0);
    println!(
        "  bound {bound:.2} tok/s at {:.0} MiB/s; reached {:.0}%",
        rate / MIB,
        100.0 * speed / bound
    );
    let recall = store.recall();
    let (right, needed) =
        recall.iter().fold((0, 0), |(r, n), layer| (r + layer.right, n + layer.needed));
    println!(
        "  prefetches: {} read, {} used, {} wasted; recall {:.1}%",
        stats.prefetched,
        stats.prefetched_used,
        stats.prefetched_wasted,
        100.0 * right as f64 / needed.max(1) as f64,
    );
}
