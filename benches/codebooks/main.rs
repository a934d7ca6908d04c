//! What two bits can do: tables, tables with memory, a trained codebook, the lattice E8 and a trellis, all with one scale
//! byte per 32 weights, written by one search.
//!
//! ```text
//! codebooks distortion [FOLDER]                 error on Gaussian and on experts' weights, beside the bound 2^-2R
//! codebooks decode                              time to read and multiply a weight (x86-64 with AVX2)
//! codebooks train                                tables of 16 for windows of 4 bits, from several random starts
//! codebooks feedback FOLDER CALIBRATION            error under the second moments of inputs, fed back
//! codebooks divergence [FOLDER] [CALIBRATION]   KLD of the model whose experts are written, with feedback if calibrated
//! ```
//!
//! The folder is `calibration/reference` unless another is named; `vaquita calibrate FOLDER -o FILE` makes a
//! calibration.

mod code;
mod data;
#[cfg(target_arch = "x86_64")]
mod decode;
mod divergence;
mod factors;
mod lattice;
mod rotation;
mod scalar;
mod search;
mod train;
mod trellis;
mod vectors;
mod window;

use std::path::Path;

use vaquita_quantize::encoders::tables;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::Projection;

use code::Code;
use data::{Data, gaussian};
use divergence::Bench;
use lattice::Lattice;
use scalar::Scalar;
use trellis::Trellis;
use vectors::Vectors;
use window::Window;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Held-out documents that divergence is measured on.
const DOCUMENTS: usize = 150;
/// Every so many experts lend their matrices to be written.
const EXPERTS: usize = 48;
/// Rounds in which a table is fitted to what it writes.
const ROUNDS: usize = 12;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let folder = Path::new(words.get(1).map_or("calibration/reference", String::as_str));
    match words.first().map(String::as_str) {
        Some("distortion") => distortion(folder),
        Some("decode") => decode(),
        Some("train") => train_windows(),
        Some("feedback") => feedback(folder, words.get(2).map(Path::new)),
        Some("divergence") => divergences(folder, words.get(2).map(Path::new)),
        _ => {
            Err("usage: codebooks distortion | decode | train | feedback | divergence [FOLDER] [CALIBRATION]"
                .into())
        }
    }
}

/// The first table of a coded type.
fn table(ty: BlockType) -> Scalar {
    let values = tables::candidates(ty)[0].values().iter().map(|entry| f32::from(*entry));
    Scalar { values: values.collect(), beam: 1 }
}

/// The codes of two bits; a wider beam is worth its time where errors are fed back, and where a trellis has more states.
fn two_bits(beam: usize, trellis: usize) -> Vec<Box<dyn Code>> {
    let trained = Vectors::train(&gaussian(256, 256, 3), beam);
    let window = Window { values: window::TABLE.into(), code_bits: 2, memory: 2, beam: 8 * beam };
    vec![
        Box::new(table(BlockType::E2)),
        Box::new(window),
        Box::new(trained),
        Box::new(Lattice::new(beam)),
        Box::new(Trellis::new(12, trellis)),
    ]
}

fn distortion(folder: &Path) -> Result<()> {
    let bench = Bench::open(folder, DOCUMENTS, None)?;
    let mut sets = vec![("Gaussian".to_string(), vec![gaussian(256, 256, 1)])];
    for (name, projection) in [("gate", Projection::Gate), ("down", Projection::Down)] {
        let mut matrices = bench.matrices(projection, EXPERTS)?;
        sets.push((name.into(), matrices.clone()));
        matrices.iter_mut().for_each(|one| one.rotate(&one.rotations()));
        sets.push((format!("{name}, rotated"), matrices));
    }
    let mut codes = two_bits(1, 256);
    codes.extend([BlockType::E3, BlockType::E4].map(|ty| Box::new(table(ty)) as Box<dyn Code>));
    println!("relative squared error in dB, and what is left to the bound at the true bits");
    for code in &codes {
        print!("| {} |", code.name());
        for (_, set) in &sets {
            let (error, bits) = written(&**code, set);
            print!(" {} |", decibels(error, bits));
        }
        println!();
    }
    let mut fitted = table(BlockType::E2);
    print!("| {}, fitted to each |", fitted.name());
    for (_, set) in &sets {
        let mut error = 0.0;
        for one in set {
            fitted.values = table(BlockType::E2).values;
            (0..ROUNDS).for_each(|_| fitted.values = train::step(&fitted, one).0);
            error += train::step(&fitted, one).1 / set.len() as f64;
        }
        print!(" {} |", decibels(error, true_bits(&fitted, &set[0])));
    }
    println!();
    for (name, set) in &sets {
        println!("{name}: {} matrices of {} columns", set.len(), set[0].cols);
    }
    let error = train::step(&Trellis::new(16, 512), &gaussian(32, 256, 1)).1;
    println!("trellis, windows of 16 bits, beam 512, Gaussian: {}", decibels(error, 2.375));
    Ok(())
}

/// Mean relative error over matrices, and true bits.
fn written(code: &dyn Code, set: &[Data]) -> (f64, f64) {
    let errors = set.iter().map(|one| train::step(code, one).1);
    (errors.sum::<f64>() / set.len() as f64, true_bits(code, &set[0]))
}

/// With the scale bytes and a float per row.
fn true_bits(code: &dyn Code, data: &Data) -> f64 {
    code.bits() + 8.0 / 32.0 + 32.0 / data.cols as f64
}

fn decibels(error: f64, bits: f64) -> String {
    let found = -10.0 * error.log10();
    let bound = 20.0 * bits * 2f64.log10();
    format!("{found:.2} ({:.2})", bound - found)
}

fn train_windows() -> Result<()> {
    let (data, others) = (gaussian(64, 256, 7), gaussian(256, 512, 1));
    for seed in 1..=4 {
        let window = Window::train(&data, seed);
        println!("{:?}: {:.4}", window.values, train::step(&window, &others).1);
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn decode() -> Result<()> {
    for (name, time) in decode::measure() {
        println!("| {name} | {time:.4} ns |");
    }
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
fn decode() -> Result<()> {
    Err("the loops are written for x86-64 with AVX2".into())
}

/// Errors under the second moments of the inputs: less noisy than a divergence, and of a few experts alone.
fn feedback(folder: &Path, calibration: Option<&Path>) -> Result<()> {
    let calibration = calibration.ok_or("name the folder and a calibration")?;
    let bench = Bench::open(folder, DOCUMENTS, Some(calibration))?;
    let mut of_e2 = None;
    for code in two_bits(2, 128) {
        let plain = bench.error(&*code, false, EXPERTS)?;
        let rotated = bench.error(&*code, true, EXPERTS)?;
        let unit = *of_e2.get_or_insert(plain);
        println!("| {} | {:.3} | {:.3} |", code.name(), plain / unit, rotated / unit);
    }
    Ok(())
}

fn divergences(folder: &Path, calibration: Option<&Path>) -> Result<()> {
    let bench = Bench::open(folder, DOCUMENTS, calibration)?;
    for code in two_bits(1, 32) {
        for rotated in [false, true] {
            let found = bench.measure(&*code, rotated)?;
            println!(
                "| {}{} | {:.6} ± {:.6} | {:.2}% |",
                code.name(),
                if rotated { ", rotated" } else { "" },
                found.mean_kld,
                found.mean_kld_se,
                100.0 * found.same_top,
            );
        }
    }
    Ok(())
}
