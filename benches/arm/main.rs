//! Runs one kernel of one type repeatedly and nothing else, to count instructions under emulation
//! (`benches/arm/count.py`), where timings are meaningless.
//!
//! `one-kernel TYPE ROWS COLS TOKENS REPETITIONS`, on the best tier of the processor: a product with a
//! matrix. For `delta`, `kda` and `ssd`, recurrences with a state, give HEADS and WIDTH instead of rows
//! and columns: a head's state has as many rows as columns.

use std::hint::black_box;
use std::process::ExitCode;

use vaquita_benches::matrix;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::isa::Tier;
use vaquita_runtime::kernels::delta::DeltaRule;
use vaquita_runtime::kernels::ssd::StateSpace;
use vaquita_runtime::kernels::{Activations, matmul};
use vaquita_runtime::threads::Pool;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<usize> = args.iter().skip(1).filter_map(|text| text.parse().ok()).collect();
    let (Some(kernel), &[rows, cols, tokens, repetitions]) = (args.first(), &numbers[..]) else {
        eprintln!("give KERNEL ROWS COLS TOKENS REPETITIONS");
        return ExitCode::FAILURE;
    };
    let tier = Tier::best();
    match (kernel.as_str(), BlockType::from_name(kernel)) {
        (_, Some(ty)) => product(tier, ty, [rows, cols, tokens], repetitions),
        ("delta", _) => delta_rule(tier, 1, [rows, cols, tokens], repetitions),
        ("kda", _) => delta_rule(tier, cols, [rows, cols, tokens], repetitions),
        ("ssd", _) => state_space(tier, [rows, cols, tokens], repetitions),
        _ => {
            eprintln!("{kernel} is no block type, nor delta, kda or ssd");
            return ExitCode::FAILURE;
        }
    }
    println!("{}", tier.name());
    ExitCode::SUCCESS
}

fn product(tier: Tier, ty: BlockType, [rows, cols, tokens]: [usize; 3], repetitions: usize) {
    let (pool, weights) = (Pool::new(1), matrix(ty, rows, cols));
    let x: Vec<f32> = (0..tokens * cols).map(|i| (i % 17) as f32 - 8.0).collect();
    let x = Activations::new(tier, &x, cols);
    let mut out = vec![0.0; tokens * rows];
    for _ in 0..repetitions {
        matmul(tier, &pool, &weights, black_box(&x), &mut out);
    }
}

/// `decays` factors on the state for each head: one, or one for each key channel.
fn delta_rule(tier: Tier, decays: usize, [heads, width, tokens]: [usize; 3], repetitions: usize) {
    let (pool, x) = (Pool::new(1), vec![0.01; tokens * heads * width]);
    let (mut state, mut out) = (vec![0.0; heads * width * width], x.clone());
    let rule = DeltaRule {
        heads,
        key_heads: heads,
        tiled: false,
        key_width: width,
        value_width: width,
        queries: &x,
        keys: &x,
        values: &x,
        decay: &vec![0.9; tokens * heads * decays],
        beta: &vec![0.5; tokens * heads],
    };
    for _ in 0..repetitions {
        black_box(&rule).run(tier, &pool, &mut state, &mut out);
    }
}

fn state_space(tier: Tier, [heads, width, tokens]: [usize; 3], repetitions: usize) {
    let (pool, per_head) = (Pool::new(1), vec![0.5; tokens * heads]);
    let mut state = vec![0.0; heads * width * width];
    let mut out = vec![0.0; tokens * heads * width];
    let rule = StateSpace {
        heads,
        groups: 1,
        head_width: width,
        state_width: width,
        inputs: &vec![0.01; tokens * (heads + 2) * width],
        step: &per_head,
        decay: &per_head,
        skip: &per_head[..heads],
    };
    for _ in 0..repetitions {
        black_box(&rule).run(tier, &pool, &mut state, &mut out);
    }
}
