//! Commands as users of llama.cpp, Ollama and the hub's tools type them in their first hour. Each
//! does what they expect, or fails with one line that says what to type instead.

use std::fs;
use std::path::Path;

use Outcome::{Says, Works};

use crate::program::{output, quantize, reference, success, vaquita};

enum Outcome {
    /// Succeeds, and standard output contains this.
    Works(&'static str),
    /// Fails with one line on standard error, which contains this.
    Says(&'static str),
}

/// Lines after `vaquita`, in the folder that [`prepare`] makes.
const LINES: [(&str, Outcome); 70] = [
    // Nothing, and help.
    ("", Works("To begin:")),
    ("--version", Works("vaquita ")),
    ("help", Works("Commands:")),
    ("--help", Works("Examples:")),
    ("run --help", Works("Sampling:")),
    ("help quantize", Works("--target-bpw")),
    ("version", Says("vaquita --version")),
    ("completions bash", Works("_vaquita()")),
    ("completions zsh", Works("#compdef vaquita")),
    ("completions fish", Works("complete -c vaquita")),
    ("man pages", Works("vaquita.1")),
    // As with llama.cpp's programs.
    ("run -m model.gguf -p Hi -n 4", Works("")),
    ("run -m model.gguf -p Hi -n 4 -t 1 -c 128 -s 7 --temp 0.8", Works("")),
    ("run -m model.gguf -p Hi --ctx-size 128 --predict 4 --temperature 0", Works("")),
    ("run -m model.gguf -p Hi -n 4 --top-k 40 --top-p 0.9 --min-p 0.05", Works("")),
    ("run -m model.gguf -p Hi -n -1 --temp 0 -c 128", Works("")),
    ("run -m model.gguf -p Hi -n 4 --seed -1 --json", Works("\"seed\":{\"value\":")),
    ("run -m model.gguf -f question.txt -n 4", Works("")),
    ("run -m model.gguf -p '-5 + 3 = ?' -n 4", Works("")),
    ("run -m model.gguf -p Hi -ngl 99", Says("computes on the processor")),
    ("run -m model.gguf -p Hi --n-gpu-layers 99", Says("computes on the processor")),
    ("run -m model.gguf -p Hi -fa on", Says("leave it out")),
    ("run -m model.gguf -p Hi -ctk q8_0", Says("--cache q8")),
    ("run -m model.gguf -p Hi --mlock", Says("--memory SIZE")),
    ("run -m model.gguf -p Hi --n-cpu-moe 10", Says("--memory SIZE")),
    ("run -m model.gguf -cnv", Says("vaquita chat MODEL")),
    ("run -m model.gguf -sys brief -p Hi", Says("--system TEXT")),
    ("run -m model.gguf -p Hi --grammar-file g.gbnf", Says("--grammar FILE")),
    ("run -hf owner/name-GGUF -p Hi", Says("hf:OWNER/NAME")),
    ("run -m model.gguf -p Hi --temp -1", Says("temperature is -1; allowed: 0 or more")),
    ("run -m model.gguf -p Hi --top-k -1", Says("--top-k is -1; it takes no negative number")),
    ("run -m model.gguf -p Hi -t 0", Says("--threads is 0: a number from 1 on")),
    ("run -m model.gguf -p Hi --memory 4", Says("4GiB")),
    ("-m model.gguf -p Hi", Says("vaquita run -m model.gguf")),
    ("--threads 2 run model.gguf Hi", Says("options follow a command")),
    ("bench -m model.gguf -p 8,16 -n 4 -r 1", Works("pp16")),
    ("bench -m model.gguf -p 8 -n 0 -r 1 -t 1 -o json", Works("\"pp8\"")),
    ("bench -m model.gguf -ngl 0", Says("computes on the processor")),
    ("perplexity -m model.gguf -f question.txt", Says("vaquita eval perplexity")),
    ("imatrix -m model.gguf", Says("vaquita calibrate")),
    ("quantize model.gguf out.gguf Q4_K_M", Says("-o out.gguf")),
    ("quantize checkpoint -o out.gguf --type Q4_K_M", Says("allowed: e4")),
    ("quantize checkpoint -o question.txt", Says("--force")),
    ("convert checkpoint -o out.gguf", Says("vaquita quantize")),
    ("tokenize -m model.gguf Hello", Works("Hello")),
    ("verify -m model.gguf", Works("")),
    ("quantize -m checkpoint -o small.gguf --type e2 --no-mtp", Works("3.")),
    ("quantize -m checkpoint checkpoint -o small.gguf", Says("two models are given")),
    ("export -m model.gguf -o stock.gguf --type Q4_K", Works("as q4_k")),
    ("run -m stock.gguf -p Hi -n 4", Works("")),
    ("eval logits -m model.gguf --tokens 0,1 -o logits.safetensors", Works("")),
    // As with Ollama.
    ("run model.gguf 'Why is the sky blue?' -n 4", Works("")),
    ("run model.gguf Why is the sky blue? -n 4", Works("")),
    ("run model.gguf Hi --verbose", Says("--stats")),
    ("run model.gguf Hi --format json", Says("--json-object")),
    ("run llama3:8b Hi", Says("ollama show llama3:8b --modelfile")),
    ("show model.gguf", Works("DeepSeek")),
    ("list", Says("vaquita models")),
    ("ps", Says("that you name")),
    ("run store/manifests/library/m/latest Hi", Says("store/blobs/sha256-ab12")),
    ("run store/blobs/sha256-ab12 Hi -n 4", Works("")),
    // As with the hub's tools.
    ("run deepseek-ai/DeepSeek-V2-Lite Hi", Says("hf:deepseek-ai/DeepSeek-V2-Lite")),
    ("run owner/name-GGUF:Q4_K_M Hi", Says("hf:owner/name-GGUF:Q4_K_M")),
    ("run https://example.com/m.gguf Hi", Says("this is an address")),
    ("run hub Hi", Says("hub/models--a--b/snapshots/1")),
    ("run checkpoint/model.safetensors Hi", Says("name its folder, checkpoint")),
    ("run pointer.gguf Hi", Says("git lfs pull")),
    ("run page.gguf Hi", Says("a page in HTML")),
    // By themselves.
    ("run model.gguf ''", Says("the prompt is empty")),
    ("model.gguf", Says("vaquita run model.gguf")),
];

/// Splits a line at spaces that are not within single quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted, mut begun) = (vec![String::new()], false, false);
    for c in line.chars() {
        match c {
            '\'' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted => {
                words.push(String::new());
                begun = false;
            }
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| begun || !word.is_empty());
    words
}

fn prepare(folder: &Path) {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    success(&mut quantize(&reference(), &folder.join("model.gguf")));
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::create_dir_all(folder.join("checkpoint")).unwrap();
        fs::copy(reference().join(file), folder.join("checkpoint").join(file)).unwrap();
    }
    write("question.txt", "Why is the sky blue?\n");
    write("pointer.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n");
    write("page.gguf", "<!DOCTYPE html>\n<html><body>Sign in</body></html>\n");
    write("hub/models--a--b/snapshots/1/config.json", "{}");
    let layer = r#"{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:ab12"}"#;
    write("store/manifests/library/m/latest", &format!("{{\"layers\": [{layer}]}}"));
    fs::create_dir_all(folder.join("store/blobs")).unwrap();
    fs::copy(folder.join("model.gguf"), folder.join("store/blobs/sha256-ab12")).unwrap();
}

#[test]
fn every_command_of_a_first_hour_works_or_says_what_to_type_instead() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let mut wrong = Vec::new();
    for (line, outcome) in &LINES {
        let run = output(vaquita(words(line)).current_dir(folder.path()));
        let text = String::from_utf8_lossy(&run.stdout);
        let error = String::from_utf8_lossy(&run.stderr);
        let is_right = match outcome {
            Works(part) => run.status.success() && text.contains(part),
            Says(part) => {
                let one_line = error.lines().count() == 1 && error.starts_with("error: ");
                !run.status.success() && text.is_empty() && one_line && error.contains(part)
            }
        };
        if !is_right {
            wrong.push(format!("vaquita {line}\n{text}{error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
