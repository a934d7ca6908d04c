#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (vaquita_tests::fuzz::target("sentencepiece").expect("a target").run)(bytes));
