//! Decodes the reference model while other threads of the machine compute, and prints the speed as
//! a part of the fair share: of the speed on an idle machine, what remains if all threads that want
//! to compute get equal times on the cores.
//!
//! `busy [--rounds 9] [--seconds 0.5] [--loops 2] [--threads 2] [--raw]`
//!
//! Cases take turns, so that all of them see the same machine, and the figures are medians of the
//! rounds. `--raw` prints each measurement. Streamed runs hold half of the experts.

use std::collections::BTreeMap;
use std::hint::spin_loop;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vaquita_benches::reference_file;
use vaquita_runtime::checkpoint::source::Files;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::experts::policies::PolicyKind;
use vaquita_runtime::experts::{ExpertIndex, PrefetchMode, Streaming, StreamingOptions};
use vaquita_runtime::model::Model;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Tokens of a session, after which the next begins, so that attention costs the same in all cases.
const CONTEXT: usize = 256;
/// Parallel reads of streamed runs.
const LANES: usize = 4;

struct Args {
    rounds: usize,
    seconds: f64,
    loops: usize,
    threads: usize,
    raw: bool,
}

fn args() -> Result<Args> {
    let mut args = Args { rounds: 9, seconds: 0.5, loops: 2, threads: 2, raw: false };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let mut value = || words.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--rounds" => args.rounds = value()?.parse()?,
            "--seconds" => args.seconds = value()?.parse()?,
            "--loops" => args.loops = value()?.parse()?,
            "--threads" => args.threads = value()?.parse()?,
            "--raw" => args.raw = true,
            _ => return Err(format!("no such option: {name}").into()),
        }
    }
    Ok(args)
}

fn main() -> Result<()> {
    let args = args()?;
    let folder = std::env::temp_dir().join(format!("vaquita-bench-busy-{}", std::process::id()));
    let file = reference_file(&folder);
    let models = [("resident", resident(&file)?), ("streamed", streamed(&file)?)];
    let pools: Vec<Arc<Pool>> = (1..=args.threads).map(|n| Arc::new(Pool::new(n))).collect();

    let mut speeds: BTreeMap<(&str, usize, usize), Vec<f64>> = BTreeMap::new();
    for _ in 0..args.rounds {
        for loops in 0..=args.loops {
            for (name, model) in &models {
                for pool in &pools {
                    let speed = busy(loops, || decode(model, pool, args.seconds))?;
                    if args.raw {
                        println!("{name} {} threads, {loops} loops: {speed:.0}", pool.threads());
                    }
                    speeds.entry((name, pool.threads(), loops)).or_default().push(speed);
                }
            }
        }
    }
    std::fs::remove_dir_all(folder)?;

    println!("experts   threads  busy loops  tokens/s  fair share  part");
    let mut idle = 0.0;
    for ((name, threads, loops), speeds) in &mut speeds {
        let speed = median(speeds);
        if *loops == 0 {
            idle = speed;
        }
        let cores = Pool::default_threads();
        let fair = idle * (cores as f64 / (threads + loops) as f64).min(1.0);
        let part = speed / fair;
        println!("{name:8} {threads:8} {loops:11} {speed:9.0} {fair:11.0} {part:5.2}");
    }
    Ok(())
}

/// The file mapped.
fn resident(file: &Path) -> Result<Arc<Model>> {
    Ok(Arc::new(Model::load(Arc::new(GgufWeights::open(file, Verify::Never)?))?))
}

/// The file with half of its experts in memory.
fn streamed(file: &Path) -> Result<Arc<Model>> {
    let mut weights = GgufWeights::open(file, Verify::Never)?;
    let budget_bytes = ExpertIndex::find(&weights)?.total_bytes() / 2;
    let files = Files::open(weights.gguf(), true).map_err(|(_, error)| error)?;
    weights.detach(files.clone());
    let weights = Arc::new(weights);
    let options = StreamingOptions {
        budget_bytes,
        policy: PolicyKind::default(),
        lanes: LANES,
        prefetch: PrefetchMode::default(),
        prefer_resident: None,
    };
    let store = Arc::new(Streaming::new(weights.clone(), files, &options)?);
    Ok(Arc::new(Model::with_experts(&*weights, store)?))
}

/// Calls `measure` while `loops` threads compute.
fn busy<T>(loops: usize, measure: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..loops {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    spin_loop();
                }
            });
        }
        thread::sleep(Duration::from_millis(20)); // until they run
        let measured = measure();
        stop.store(true, Ordering::Relaxed);
        measured
    })
}

/// Tokens per second. Tokens are those of a fixed sequence without a pattern.
fn decode(model: &Arc<Model>, pool: &Arc<Pool>, seconds: f64) -> Result<f64> {
    let options = SessionOptions { context: CONTEXT, ..SessionOptions::default() };
    let session = || Session::new(model.clone(), pool.clone(), options.clone());
    let mut running = session();
    let vocab_size = model.config().vocab_size as u64;
    let since = Instant::now();
    let (mut state, mut tokens) = (0x9e37_79b9_7f4a_7c15_u64, 0_u32);
    while since.elapsed().as_secs_f64() < seconds {
        if running.tokens().len() == CONTEXT {
            running = session();
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        running.feed(&[(state % vocab_size) as u32])?;
        tokens += 1;
    }
    Ok(f64::from(tokens) / since.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
