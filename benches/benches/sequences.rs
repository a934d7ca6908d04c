//! Decoding several sequences side by side: the time of one step, and of the same tokens one
//! sequence after the other.
//!
//! `VAQUITA_BENCH_MODEL=FILE cargo bench -p vaquita-benches --bench sequences`
//!
//! Without a file, the reference model in e4. Every sequence has a prompt of its own, of random
//! tokens.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vaquita_benches::reference_file;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::isa::Tier;
use vaquita_runtime::model::cache::{CacheType, KvCache};
use vaquita_runtime::model::{Chunk, Compute, Logits, Model};
use vaquita_runtime::threads::Pool;

const PROMPT: usize = 64;
const WIDTHS: [usize; 4] = [1, 2, 4, 8];

/// Token `at` of a sequence without a pattern.
fn token(model: &Model, sequence: usize, at: usize) -> u32 {
    let mixed = (sequence * 7919 + at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    (mixed % model.config().vocab_size) as u32
}

fn sequences(c: &mut Criterion) {
    let folder = std::env::temp_dir().join("vaquita-bench-sequences");
    let file = std::env::var_os("VAQUITA_BENCH_MODEL").map(PathBuf::from);
    let file = file.unwrap_or_else(|| reference_file(&folder));
    let model = open(&file);
    let pool = Pool::new(Pool::default_threads());
    let ctx = Compute::new(Tier::best(), &pool);
    let mut caches: Vec<KvCache> = (0..WIDTHS[WIDTHS.len() - 1])
        .map(|sequence| {
            let mut cache = KvCache::new(model.config(), CacheType::F16);
            let prompt: Vec<u32> = (0..PROMPT).map(|at| token(&model, sequence, at)).collect();
            model.forward(&ctx, &prompt, &mut cache, Logits::Last).expect("it runs");
            cache
        })
        .collect();
    let next: Vec<[u32; 1]> =
        (0..caches.len()).map(|sequence| [token(&model, sequence, PROMPT)]).collect();

    let mut group = c.benchmark_group("sequences");
    group.sample_size(20);
    for width in WIDTHS {
        group.throughput(Throughput::Elements(width as u64));
        group.bench_function(BenchmarkId::new("together", width), |b| {
            b.iter(|| {
                let running = caches.iter_mut().zip(&next).take(width);
                let mut chunks: Vec<Chunk> =
                    running.map(|(cache, next)| Chunk::new(next, cache, Logits::Last)).collect();
                black_box(model.forward_batch(&ctx, &mut chunks).expect("it runs"));
                caches.iter_mut().for_each(|cache| assert_eq!(cache.truncate(PROMPT), PROMPT));
            });
        });
        group.bench_function(BenchmarkId::new("one-by-one", width), |b| {
            b.iter(|| {
                for (cache, next) in caches.iter_mut().zip(&next).take(width) {
                    black_box(model.forward(&ctx, next, cache, Logits::Last).expect("it runs"));
                    assert_eq!(cache.truncate(PROMPT), PROMPT);
                }
            });
        });
    }
    group.finish();
    let _ = std::fs::remove_dir_all(folder);
}

fn open(file: &Path) -> Model {
    let weights = GgufWeights::open(file, Verify::First).expect("the file opens");
    Model::load(Arc::new(weights)).expect("the file loads")
}

criterion_group!(benches, sequences);
criterion_main!(benches);
