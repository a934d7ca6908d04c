//! Sound inputs of each kind, which mutations start from, and inputs that once failed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value as Json;
use vaquita_calibration::{Subject, reference_file};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::gguf::{GgufWriter, Metadata};
use vaquita_runtime::session::SessionOptions;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::tokenizer::Tokenizer;

use super::files;
use crate::variants::Checkpoint;
use crate::{FAMILIES, golden, open_folder, quantized, reference};

/// The inputs of `fuzz/corpus/NAME`, and seeds that are made from the goldens.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut found = corpus(name);
    found.extend(match name {
        "gguf" => gguf_files(),
        "config" => read(FAMILIES.map(|name| golden(name).join("config.json"))),
        "tokenizer" => vec![small_tokenizer().to_string().into_bytes()],
        "tokenizer_keys" => vec![tokenizer_keys()],
        "template" => templates(),
        "trace" => vec![TRACE.into()],
        "tools" => calls(),
        "reasoning" => REASONING.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "safetensors" => vec![checkpoint()],
        "tiktoken" => vec![beginning(&golden("tokenizer").join("tiktoken.model"))],
        "sentencepiece" => read([golden("tokenizer").join("tokenizer.model")]),
        "session" => vec![session()],
        "calibration" => vec![calibration()],
        "reference" => vec![reference_logits()],
        _ => Vec::new(),
    });
    found
}

fn read(paths: impl IntoIterator<Item = PathBuf>) -> Vec<Vec<u8>> {
    paths.into_iter().map(|path| fs::read(path).expect("a seed")).collect()
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort_unstable();
    read(paths)
}

/// The first lines of a file of lines.
fn beginning(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).expect("a seed");
    text.lines().take(400).flat_map(|line| [line, "\n"]).collect::<String>().into_bytes()
}

/// In the layout of llama.cpp, and expert-major.
fn gguf_files() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    let mut found = read([golden("gguf").join("small.gguf")]);
    for name in ["olmoe", "deepseek-v2-lite"] {
        Checkpoint::golden(name).write_gguf(&path);
        found.extend(read([path.clone()]));
        quantized(&golden(name), &path, BlockType::E4, None);
        found.extend(read([path.clone()]));
    }
    found
}

/// The reference model's tokenizer with its first tokens alone.
fn small_tokenizer() -> Json {
    let text = fs::read(reference().join("tokenizer.json")).expect("a tokenizer");
    let mut json: Json = serde_json::from_slice(&text).expect("JSON");
    let vocab = json["model"]["vocab"].as_object_mut().expect("an object");
    vocab.retain(|_, id| id.as_u64().is_some_and(|id| id < 300));
    let known = vocab.clone();
    let merges = json["model"]["merges"].as_array_mut().expect("a list");
    merges.retain(|merge| {
        let pair: Vec<&str> = match merge {
            Json::String(text) => text.split(' ').collect(),
            merge => merge.as_array().into_iter().flatten().filter_map(Json::as_str).collect(),
        };
        known.contains_key(&pair.concat())
    });
    json
}

fn tokenizer_keys() -> Vec<u8> {
    let tokenizer = Tokenizer::from_json(small_tokenizer().to_string().as_bytes());
    let mut metadata = Metadata::new();
    tokenizer.expect("it is sound").write_metadata(&mut metadata);
    metadata.remove("tokenizer.huggingface.json");
    let mut file = std::io::Cursor::new(Vec::new());
    GgufWriter::new(&mut file, Path::new("seed"), &metadata, Vec::new()).expect("a header");
    file.into_inner()
}

fn templates() -> Vec<Vec<u8>> {
    let text = fs::read(golden("chat").join("chats.json")).expect("templates");
    let json: Json = serde_json::from_slice(&text).expect("JSON");
    let templates = json["templates"].as_object().expect("an object").values();
    templates.filter_map(|template| Some(template.as_str()?.as_bytes().to_vec())).collect()
}

fn calls() -> Vec<Vec<u8>> {
    let text = fs::read(golden("chat").join("calls.json")).expect("calls");
    let json: Json = serde_json::from_slice(&text).expect("JSON");
    let texts = json.as_array().expect("a list").iter().filter_map(|call| call["text"].as_str());
    let with_format = |(i, text): (usize, &str)| {
        let format = (i % 14) as u8;
        std::iter::once(format).chain(text.bytes()).collect()
    };
    texts.take(56).enumerate().map(with_format).collect()
}

const TRACE: &str = "# route_trace v1\n# layers=2 experts=4 per_token=2\n# layer=1 expert_bytes=100\n\
    turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n\
    0,prefill,0,1,0,3,0.5,miss,100\n0,prefill,0,1,1,1,0.5,hit,100\n\
    0,decode,1,1,0,2,0.25,miss,100\n0,decode,1,1,1,0,0.75,hit,100\n";

const REASONING: [&str; 6] = [
    "<think>\nfirst\n</think>\n\nanswer",
    "thoughts without an opening\n</think>\nanswer<think>more</think>",
    "[THINK]a[/THINK]b",
    "<seed:think>a</seed:think>b",
    "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>",
    "\u{25c1}think\u{25b7}a\u{25c1}/think\u{25b7}b",
];

fn checkpoint() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    Checkpoint::golden("r1-distill-llama").write(folder.path());
    fs::read(folder.path().join("model.safetensors")).expect("written")
}

fn session() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("session");
    let mut session = files::small_session();
    session.feed(&[5, 30, 17]).expect("it runs");
    session.save(&path, 7, b"a note").expect("saved");
    fs::read(path).expect("written")
}

fn calibration() -> Vec<u8> {
    let squares: Vec<u8> = (1..=64).flat_map(|x| (x as f32).to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![64], &squares).expect("a tensor");
    let keys = [
        ("format", "vaquita-calibration"),
        ("version", "1"),
        ("source", "crc32:0"),
        ("text", "crc32:0"),
        ("documents", "2"),
    ];
    let keys: HashMap<String, String> =
        keys.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    safetensors::serialize([("matrix.output.weight", view)], Some(keys)).expect("a file")
}

fn reference_logits() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("logits");
    let tokenizer = Tokenizer::from_folder(&reference()).expect("a tokenizer");
    let subject = Subject {
        model: open_folder(&golden("r1-distill-llama")),
        prompter: Prompter::new(Arc::new(tokenizer)).expect("a template"),
        options: SessionOptions::default(),
    };
    let texts = ["2+2".to_string(), "3".to_string()];
    reference_file::write(&subject, "seed", &texts, &path, &|_, _| {}).expect("written");
    fs::read(path).expect("written")
}
