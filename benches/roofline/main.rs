//! Roofline: for decoding, each kernel's rate relative to the rate at which memory is read; for
//! prompts, relative to the tier's peak rate of int8 products. One table for every type and tier.
//!
//! `cargo run --release -p vaquita-benches --bin roofline [THREADS [TYPE...]]`
//!
//! Weights for decoding take 256 MiB, more than caches hold. Those for prompts stay in a cache.
//! Medians of 9 runs.

use std::hint::black_box;
use std::time::Instant;

use vaquita_benches::{Int8Peak, matrix, read};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::isa::Tier;
use vaquita_runtime::kernels::{Activations, matmul};
use vaquita_runtime::threads::Pool;

const BYTES: usize = 256 << 20;
/// The width of DeepSeek-V2-Lite's residual stream, and its experts' rows.
const COLS: usize = 2048;
const ROWS: usize = 1408;
const TOKENS: usize = 16;
const RUNS: usize = 9;

/// Median duration in seconds, after a warm-up run.
fn median(mut work: impl FnMut()) -> f64 {
    work();
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let since = Instant::now();
            work();
            since.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

/// Duration of a product in seconds.
fn product(tier: Tier, pool: &Pool, ty: BlockType, rows: usize, tokens: usize) -> (f64, usize) {
    let weights = matrix(ty, rows, COLS);
    let x: Vec<f32> = (0..tokens * COLS).map(|i| (i % 17) as f32 - 8.0).collect();
    let x = Activations::new(tier, &x, COLS);
    let mut out = vec![0.0; tokens * rows];
    let seconds = median(|| matmul(tier, pool, &weights, black_box(&x), &mut out));
    (seconds, weights.data().len())
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let wanted: Vec<String> = std::env::args().skip(2).collect();
    let is_wanted = |ty: &BlockType| wanted.is_empty() || wanted.contains(&ty.to_string());
    let pool = Pool::new(threads.unwrap_or_else(Pool::default_threads));
    let bytes = vec![1u8; BYTES];
    let read_rate = BYTES as f64 / median(|| read(&pool, &bytes));
    println!("{} threads; memory is read at {:.1} GB/s", pool.threads(), read_rate / 1e9);
    for tier in Tier::available().into_iter().skip_while(|tier| tier.name() == "scalar") {
        let rounds = 1 << 20;
        let operations = (tier.run(Int8Peak { rounds }) * pool.threads()) as f64;
        let one = |_: usize| {
            black_box(tier.run(Int8Peak { rounds }));
        };
        let peak = operations / median(|| pool.run(pool.threads(), &one));
        println!("\n{}: products of int8 at {:.0} GOP/s\n", tier.name(), peak / 1e9);
        println!("| type | decode, GB/s | of reading | prompt of {TOKENS}, GOP/s | of the peak |");
        println!("|---|---|---|---|---|");
        for ty in BlockType::ALL.into_iter().filter(is_wanted) {
            let row_bytes = ty.byte_len(8, COLS).map_or(8 * 4 * COLS, |len| len);
            let (seconds, read) = product(tier, &pool, ty, BYTES / row_bytes * 8, 1);
            let decode = read as f64 / seconds;
            let (seconds, _) = product(tier, &pool, ty, ROWS, TOKENS);
            let prompt = (2 * ROWS * COLS * TOKENS) as f64 / seconds;
            // Plain numbers are not multiplied as int8.
            let share = match ty.is_plain() {
                true => "-".into(),
                false => format!("{:.0}%", 100.0 * prompt / peak),
            };
            println!(
                "| `{ty}` | {:.1} | {:.0}% | {:.0} | {share} |",
                decode / 1e9,
                100.0 * decode / read_rate,
                prompt / 1e9,
            );
        }
    }
}
