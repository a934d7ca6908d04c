#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (vaquita_tests::fuzz::target("tools").expect("a target").run)(bytes));
