//! Matrix products of each block type, in weights per second, compared with plain reads of the same
//! bytes; int8 products; attention over caches. `--bin roofline` relates them to the machine's
//! limits.
//!
//! `cargo bench -p vaquita-benches --bench kernels`

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vaquita_benches::{Int8Peak, matrix, read};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::isa::Tier;
use vaquita_runtime::kernels::attention::{CausalAttention, Entries, EntryLayout, PAGE, Page};
use vaquita_runtime::kernels::cached::EntryFormat;
use vaquita_runtime::kernels::{Activations, matmul};
use vaquita_runtime::threads::Pool;

/// The shape of DeepSeek-V2-Lite's gate and up projections, for eight experts.
const ROWS: usize = 8 * 1408;
const COLS: usize = 2048;

fn products(c: &mut Criterion) {
    let x: Vec<f32> = (0..16 * COLS).map(|i| (i % 17) as f32 - 8.0).collect();
    let pool = Pool::new(Pool::default_threads());
    for tokens in [1, 16] {
        let mut group = c.benchmark_group(format!("matmul-{tokens}"));
        group.sample_size(20).throughput(Throughput::Elements((ROWS * COLS * tokens) as u64));
        for ty in BlockType::ALL {
            let weights = matrix(ty, ROWS, COLS);
            for tier in Tier::available().into_iter().skip_while(|tier| tier.name() == "scalar") {
                let x = Activations::new(tier, &x[..tokens * COLS], COLS);
                let mut out = vec![0.0; tokens * ROWS];
                group.bench_function(BenchmarkId::new(tier.name(), ty), |b| {
                    b.iter(|| matmul(tier, &pool, &weights, black_box(&x), &mut out));
                });
            }
        }
    }
}

/// Upper bound on decoding: all threads read the bytes of an e4 matrix.
fn memory(c: &mut Criterion) {
    let weights = matrix(BlockType::E4, ROWS, COLS);
    let pool = Pool::new(Pool::default_threads());
    let mut group = c.benchmark_group("memory");
    group.sample_size(20).throughput(Throughput::Bytes(weights.data().len() as u64));
    group.bench_function("read", |b| b.iter(|| read(&pool, weights.data())));
}

/// Upper bound on prompts: int8 products of one thread, in operations per second.
fn int8(c: &mut Criterion) {
    let rounds = 1 << 12;
    let mut group = c.benchmark_group("int8");
    group.sample_size(20);
    for tier in Tier::available().into_iter().skip_while(|tier| tier.name() == "scalar") {
        let operations = tier.run(Int8Peak { rounds });
        group.throughput(Throughput::Elements(operations as u64));
        group.bench_function(tier.name(), |b| b.iter(|| tier.run(Int8Peak { rounds })));
    }
}

/// One token's heads over 4,096 positions, on one thread, in elements of the cache per second: the
/// latents of DeepSeek-V2-Lite, and the keys and values of Qwen3-30B-A3B.
fn attention(c: &mut Criterion) {
    const POSITIONS: usize = 4096;
    let latents = EntryLayout {
        width: 576,
        key_value_heads: 1,
        key_width: 576,
        values_at: 0,
        value_width: 512,
    };
    let grouped = EntryLayout {
        width: 1024,
        key_value_heads: 4,
        key_width: 128,
        values_at: 512,
        value_width: 128,
    };
    let pool = Pool::new(1);
    for (name, heads, layout, halves) in
        [("attention-mla", 16, latents, 64), ("attention-gqa", 32, grouped, 0)]
    {
        let numbers: Vec<f32> = (0..layout.width).map(|i| (i * 31 % 61) as f32 / 61.0).collect();
        let queries = numbers[..layout.key_width].repeat(heads);
        let mut group = c.benchmark_group(name);
        group.sample_size(20).throughput(Throughput::Elements((POSITIONS * layout.width) as u64));
        let formats = [("f16", EntryFormat::F16), ("q8", EntryFormat::Q8 { halves })];
        for tier in Tier::available().into_iter().skip_while(|tier| tier.name() == "scalar") {
            for (name, format) in formats {
                let mut page = Vec::new();
                (0..PAGE).for_each(|_| format.encode(&numbers, &mut page));
                let pages = (0..POSITIONS / PAGE).map(|_| Arc::new(Page::from(page.clone())));
                let pages: Vec<_> = pages.collect();
                let mut out = vec![0.0; heads * layout.value_width];
                let attention = CausalAttention {
                    queries: &queries,
                    entries: Entries { format, pages: &pages },
                    past: POSITIONS - 1,
                    heads,
                    layout,
                    scale: 0.01,
                    window: None,
                    sinks: None,
                };
                group.bench_function(BenchmarkId::new(tier.name(), name), |b| {
                    b.iter(|| attention.run(tier, &pool, &mut out));
                });
            }
        }
    }
}

criterion_group!(benches, products, memory, int8, attention);
criterion_main!(benches);
