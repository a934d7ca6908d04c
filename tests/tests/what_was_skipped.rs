//! Not a test: the last program of `cargo test`, by its name. It counts the tests that this machine
//! could not run, and fails if one of them lacked what the words of `VAQUITA_NEEDS` name.

use std::process::ExitCode;

fn main() -> ExitCode {
    let skipped = vaquita_skips::take();
    let total: usize = skipped.iter().map(|(count, _)| count).sum();
    match total {
        0 => println!("\nno test was skipped"),
        1 => println!("\n1 test was skipped:"),
        _ => println!("\n{total} tests were skipped:"),
    }
    for (count, reason) in &skipped {
        println!("{count:>5}: {reason}");
    }
    println!();
    let needs = std::env::var("VAQUITA_NEEDS").unwrap_or_default();
    let mut words = skipped.iter().flat_map(|(_, reason)| reason.split([' ', '/', ',', ':']));
    match words.find(|word| needs.split_whitespace().any(|need| need == *word)) {
        Some(word) => {
            println!("error: {word} is needed here (VAQUITA_NEEDS)");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}
