//! Matrix products of each block type, in weights per second, beside the rate at which plain reads go through
//! the same bytes.
//!
//! `cargo bench -p vaquita-benches --bench kernels`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vaquita_runtime::blocks::{BlockType, Matrix};
use vaquita_runtime::kernels::{Activations, Tier, matmul};
use vaquita_runtime::threads::Pool;

/// The shape of DeepSeek-V2-Lite's gate and up projections, eight experts of them.
const ROWS: usize = 8 * 1408;
const COLS: usize = 2048;

/// Weights whose codes are arbitrary: speed does not depend on them. Plain numbers are all 0x3c3c..., which is
/// an ordinary one in each type: denormals would be slow.
fn matrix(ty: BlockType) -> Matrix {
    let len = ty.byte_len(ROWS, COLS).expect("the shape fits every type");
    let mut bytes = vec![0x3c; len];
    if ty.is_coded() {
        bytes.iter_mut().enumerate().skip(64).for_each(|(i, byte)| *byte = (i * 31 % 61) as u8);
    }
    Matrix::new(ty, ROWS, COLS, bytes.into()).expect("the length is right")
}

fn products(c: &mut Criterion) {
    let x: Vec<f32> = (0..16 * COLS).map(|i| (i % 17) as f32 - 8.0).collect();
    let pool = Pool::new(Pool::default_threads());
    for tokens in [1, 16] {
        let mut group = c.benchmark_group(format!("matmul-{tokens}"));
        group.sample_size(20).throughput(Throughput::Elements((ROWS * COLS * tokens) as u64));
        for ty in BlockType::ALL {
            let weights = matrix(ty);
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

/// What any decode is bounded by: summing the bytes of an e4 matrix with all threads.
fn memory(c: &mut Criterion) {
    let weights = matrix(BlockType::E4);
    let pool = Pool::new(Pool::default_threads());
    let mut group = c.benchmark_group("memory");
    group.sample_size(20).throughput(Throughput::Bytes(weights.data().len() as u64));
    group.bench_function("read", |b| {
        let chunk = weights.data().len().div_ceil(pool.threads());
        b.iter(|| {
            pool.run(pool.threads(), &|i| {
                let part = weights.data().chunks(chunk).nth(i).unwrap_or_default();
                let words = part.as_chunks::<8>().0.iter();
                black_box(words.fold(0u64, |sum, word| sum ^ u64::from_le_bytes(*word)));
            });
        });
    });
}

criterion_group!(benches, products, memory);
criterion_main!(benches);
