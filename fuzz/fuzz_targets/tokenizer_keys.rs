#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (vaquita_tests::fuzz::target("tokenizer_keys").expect("a target").run)(bytes));
