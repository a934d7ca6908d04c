//! Encoding of each block type, in weights per second of one thread.
//!
//! `cargo bench -p vaquita-benches --bench encoders`

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vaquita_quantize::encoders::{Guide, Slice, encode};
use vaquita_runtime::blocks::BlockType;

const ROWS: usize = 256;
const COLS: usize = 2048;

/// Numbers distributed like weights: sums of uniform ones.
fn weights() -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..ROWS * COLS).map(|_| (0..6).map(|_| uniform()).sum()).collect()
}

fn encoders(c: &mut Criterion) {
    let values = weights();
    let rows = Slice::new(COLS, &values);
    let mut group = c.benchmark_group("encode");
    group.sample_size(10).throughput(Throughput::Elements((ROWS * COLS) as u64));
    for ty in BlockType::WRITTEN {
        group.bench_function(BenchmarkId::from_parameter(ty), |b| {
            b.iter(|| encode(ty, &rows, Guide::default()).expect("the weights are finite"));
        });
    }
}

criterion_group!(benches, encoders);
criterion_main!(benches);
