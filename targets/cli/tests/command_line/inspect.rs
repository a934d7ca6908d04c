//! `vaquita inspect`, on sound, damaged and foreign files.

use std::fs;

use crate::program::{
    copy, exported, failure, golden, json, quantize, reference, success, vaquita,
};

#[test]
fn files_that_are_no_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    fs::write(&file, b"GGUFgarbage").unwrap();
    let error = failure(vaquita(["run", "-p", "hi"]).arg(&file), 1);
    assert!(error.contains("model.gguf"), "{error}");
    let error = failure(&mut vaquita(["inspect", "/nowhere.gguf"]), 1);
    assert!(error.contains("/nowhere.gguf"), "{error}");
    let error = failure(vaquita(["run", "-p", "hi"]).arg(golden("deepseek-v3")), 1);
    assert!(error.contains("tokenizer"), "{error}");
}

#[test]
fn inspect_says_of_any_file_what_it_is_and_why_it_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let sound = fs::read(exported("olmoe", folder.path())).unwrap();
    let file = folder.path().join("odd.gguf");
    let inspected = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        json(vaquita(["inspect", "--json"]).arg(&file))
    };
    let replaced = |from: &[u8], to: &[u8], nth: usize| {
        let mut bytes = sound.clone();
        let at = bytes.windows(from.len()).enumerate().filter(|(_, found)| *found == from);
        let at = at.map(|(at, _)| at).nth(nth).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    let found = inspected(&sound);
    assert_eq!((&found["runs"], &found["family"]), (&false.into(), &"OLMoE".into()));
    assert!(found["problem"].as_str().unwrap().contains("holds no tokenizer"), "{found}");
    let stack = b"blk.1.ffn_up_exps.weight";
    // Name, number of extents, extents, type.
    let type_at =
        sound.windows(stack.len()).position(|found| found == stack).unwrap() + stack.len();
    let typed = |ty: u32| {
        let mut bytes = sound.clone();
        bytes[type_at + 28..][..4].copy_from_slice(&ty.to_le_bytes());
        bytes
    };
    let cases = [
        (replaced(b"olmoe", b"mamba", 0), "mamba", "unknown architecture"),
        (sound[..sound.len() / 2].to_vec(), "olmoe", "truncated or damaged"),
        (typed(99), "olmoe", "the type of tensor blk.1.ffn_up_exps.weight is 99"),
        (typed(24), "olmoe", "tensor blk.1.ffn_up_exps.weight has type I8"),
        (
            replaced(stack, b"blk.1.ffn_UP_exps.weight", 0),
            "olmoe",
            "no use for blk.1.ffn_UP_exps.weight",
        ),
        (replaced(b"output_norm", b"output_morn", 0), "olmoe", "no use for output_morn.weight"),
    ];
    for (bytes, architecture, problem) in cases {
        let found = inspected(&bytes);
        assert_eq!((&found["runs"], &found["architecture"]), (&false.into(), &architecture.into()));
        assert!(found["problem"].as_str().unwrap().contains(problem), "{problem}: {found}");
    }
    let part = "deepseek-v3-00001-of-00002.gguf";
    fs::copy(golden("gguf").join(part), folder.path().join(part)).unwrap();
    let found = json(vaquita(["inspect", "--json"]).arg(folder.path().join(part)));
    assert_eq!(found["architecture"], "deepseek2");
    assert!(found["problem"].as_str().unwrap().contains("part 2 of 2"), "{found}");
    fs::write(&file, b"PK").unwrap();
    assert!(failure(vaquita(["inspect"]).arg(&file), 1).contains("odd.gguf"));
}

#[test]
fn the_beginning_of_a_download_is_described_and_its_tokenizer_works() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("part.gguf");
    success(quantize(&reference(), &file).arg("--json"));
    let whole = json(vaquita(["inspect", "--json"]).arg(&file));
    assert_eq!((&whole["runs"], &whole["problem"]), (&true.into(), &serde_json::Value::Null));
    fs::File::options().write(true).open(&file).unwrap().set_len(4 << 20).unwrap();
    let found = json(vaquita(["inspect", "--json"]).arg(&file));
    for key in ["family", "shape", "parameters", "tensors", "expert_types"] {
        assert_eq!(found[key], whole[key], "{key}");
    }
    assert_eq!(found["runs"], false);
    let problem = found["problem"].as_str().unwrap();
    assert!(problem.contains("after 4194304 of "), "{problem}");
    assert!(failure(vaquita(["run", "-p", "x"]).arg(&file), 1).contains(problem));
    let tokens = json(vaquita(["tokenize", "--json"]).arg(&file).arg("a whale"));
    assert_eq!(tokens, json(vaquita(["tokenize", "--json"]).arg(reference()).arg("a whale")));
}

#[test]
fn folders_that_do_not_run_are_described_and_hostile_ones_end_nothing() {
    let found = json(vaquita(["inspect", "--json"]).arg(golden("deepseek-v3")));
    assert_eq!((&found["runs"], &found["family"]), (&false.into(), &"DeepSeek-V3".into()));
    let folder = copy("deepseek-v3");
    let config = folder.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("deepseek_v3", "mamba9")).unwrap();
    let found = json(vaquita(["inspect", "--json"]).arg(folder.path()));
    assert_eq!((&found["runs"], &found["architecture"]), (&false.into(), &"mamba9".into()));
    assert!(found["problem"].as_str().unwrap().contains("unknown architecture"), "{found}");

    fs::remove_file(&config).unwrap();
    fs::write(folder.path().join("b.gguf"), "").unwrap();
    fs::write(folder.path().join("A.GGUF"), "").unwrap();
    let error = failure(vaquita(["run", "-p", "x"]).arg(folder.path()), 1);
    assert!(error.contains("GGUF files: give one of them, such as A.GGUF"), "{error}");
    #[cfg(unix)]
    for name in ["config.json", "model.safetensors.index.json"] {
        let folder = copy("deepseek-v3");
        let file = folder.path().join(name);
        let _ = fs::remove_file(&file);
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        let error = failure(vaquita(["run", "-p", "x"]).arg(folder.path()), 1);
        assert!(error.contains("a pipe, a device or a socket"), "{error}");
        fs::remove_file(&file).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        if made.is_ok_and(|status| status.success()) {
            let error = failure(vaquita(["run", "-p", "x"]).arg(folder.path()), 1);
            assert!(error.contains("a pipe, a device or a socket"), "{error}");
        }
    }
}
