//! Kernels as they are compiled. A closure that the compiler does not inline in a kernel is a function
//! without the kernel's target features: in it, every intrinsic is a call.

#![cfg(all(unix, target_arch = "x86_64"))]

use std::process::Command;

use vaquita_skips::skipped;

/// Intrinsics that other crates call while they prepare something.
const OTHERS: [&str; 1] = ["_mm256_loadu_si256"];

/// Intrinsics of 256 and 512 bits among the symbols of a program.
fn intrinsics(symbols: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (module, _) in symbols.match_indices("9core_arch") {
        let symbol = symbols[module..].lines().next().unwrap_or("");
        for start in ["_mm256_", "_mm512_"] {
            let Some((_, rest)) = symbol.split_once(start) else { continue };
            // A hash of sixteen digits follows: `17h0123456789abcdefE`.
            let name = rest.split(|c| !is_name(c)).next().unwrap_or("");
            let name = name.rsplit_once("17h").map_or(name, |(name, _)| name);
            found.push(format!("{start}{name}"));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn symbols_of_intrinsics_are_found() {
    let symbols = "0000000000cc48e0 t _ZN4core9core_arch3x863avx16_mm256_set1_epi817h0123456789abcdefE\n\
                   0000000000cc4930 t _ZN4core9core_arch3x865xsave7_xgetbv17h0123456789abcdefE\n\
                   0000000000cc4940 t _ZN9vaquita_x9_mm256_f17h0123456789abcdefE\n";
    assert_eq!(intrinsics(symbols), ["_mm256_set1_epi8"]);
}

#[test]
fn no_intrinsic_is_a_call() {
    if cfg!(debug_assertions) {
        return skipped("only optimized kernels are inlined: cargo test --release");
    }
    let Ok(output) = Command::new("nm").arg(env!("CARGO_BIN_EXE_vaquita")).output() else {
        return skipped("nm is missing (binutils)");
    };
    let symbols = String::from_utf8_lossy(&output.stdout);
    assert!(symbols.contains("Avx2"), "no kernel among the symbols: is the program stripped?");
    let calls = intrinsics(&symbols);
    let ours: Vec<_> = calls.iter().filter(|name| !OTHERS.contains(&name.as_str())).collect();
    assert!(
        ours.is_empty(),
        "a closure in blocks, kernels or isa calls these; make it a loop or a method that is always \
         inlined: {ours:?}"
    );
}
