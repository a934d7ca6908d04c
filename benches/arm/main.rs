//! Runs one kernel of one type repeatedly and nothing else, to count instructions under emulation
//! (`benches/arm/count.py`), where timings are meaningless.
//!
//! `one-kernel TYPE ROWS COLS TOKENS REPETITIONS`, on the best tier of the processor.

use std::hint::black_box;
use std::process::ExitCode;

use vaquita_benches::matrix;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::isa::Tier;
use vaquita_runtime::kernels::{Activations, matmul};
use vaquita_runtime::threads::Pool;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let ty = args.first().and_then(|name| BlockType::from_name(name));
    let numbers: Vec<usize> = args.iter().skip(1).filter_map(|text| text.parse().ok()).collect();
    let (Some(ty), &[rows, cols, tokens, repetitions]) = (ty, &numbers[..]) else {
        eprintln!("give TYPE ROWS COLS TOKENS REPETITIONS");
        return ExitCode::FAILURE;
    };
    let (tier, pool, weights) = (Tier::best(), Pool::new(1), matrix(ty, rows, cols));
    let x: Vec<f32> = (0..tokens * cols).map(|i| (i % 17) as f32 - 8.0).collect();
    let x = Activations::new(tier, &x, cols);
    let mut out = vec![0.0; tokens * rows];
    for _ in 0..repetitions {
        matmul(tier, &pool, &weights, black_box(&x), &mut out);
    }
    println!("{}", tier.name());
    ExitCode::SUCCESS
}
