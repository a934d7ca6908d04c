//! Each metadata key of each family's GGUF file, left out: an error names it, or the numbers are
//! those of llama.cpp, whose loader has a default. `golden/keys` has what llama.cpp makes of it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::variants::{Checkpoint, GgufFile};
use vaquita_tests::{FAMILIES, golden, goldens, largest_error};

/// Keys without an effect on the numbers.
const OTHERS: [&str; 4] = ["general.", "tokenizer.", "vaquita.source", "vaquita.parameters"];

/// Families in which llama.cpp computes something else with the whole file: its routing has no
/// groups, it rounds the ends of YaRN's ramp, it scales scores by the size of heads.
const DIFFERENT: [&str; 3] = ["deepseek-v2", "gpt-oss", "gemma-3"];

/// Keys without which the numbers are not llama.cpp's: tensors that correct scores say that they are
/// sigmoids; and what our own keys say, llama.cpp takes from others.
const TOLD: [(&str, &str); 5] = [
    ("deepseek-v2", "yarn_log_multiplier"),
    ("deepseek-v3", "yarn_log_multiplier"),
    ("deepseek-v3", "expert_gating_func"),
    ("glm-4.7-flash", "expert_gating_func"),
    ("gemma-3", "vaquita.attention.score_scale"),
];

struct File {
    name: &'static str,
    file: GgufFile,
    tokens: Vec<u32>,
    record: Json,
    path: std::path::PathBuf,
}

fn floats(json: &Json) -> Vec<f32> {
    json.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number") as f32).collect()
}

impl File {
    fn new(name: &'static str, folder: &Path) -> Self {
        let path = folder.join("model.gguf");
        Checkpoint::golden(name).write_gguf(&path);
        let record = fs::read(golden("keys").join(format!("{name}.gguf.json"))).expect("a record");
        let first = goldens(&golden(name).join("golden.safetensors")).swap_remove(0);
        Self {
            name,
            file: GgufFile::read(&path),
            tokens: first.tokens,
            record: serde_json::from_slice(&record).expect("JSON"),
            path,
        }
    }

    /// All logits, or why there are none.
    fn run(&self) -> Result<Vec<f32>, String> {
        self.file.write(&self.path);
        let weights = GgufWeights::open(&self.path, Verify::First).map_err(|e| e.to_string())?;
        let model = Model::load(Arc::new(weights)).map_err(|error| error.to_string())?;
        let options = SessionOptions { cache: CacheType::F32, ..SessionOptions::default() };
        let mut session = Session::new(Arc::new(model), Arc::new(Pool::new(1)), options);
        session.feed_all(&self.tokens).map_err(|error| error.to_string())
    }

    /// Those at the recorded places.
    fn some(&self, logits: &[f32]) -> Vec<f32> {
        let vocabulary = logits.len() / self.tokens.len();
        let positions = floats(&self.record["positions"]).into_iter();
        let ids = floats(&self.record["ids"]);
        let at =
            |position: f32| ids.iter().map(move |id| position as usize * vocabulary + *id as usize);
        positions.flat_map(at).map(|place| logits[place]).collect()
    }

    /// Says what is wrong without a key.
    fn without(&mut self, key: &str, whole: &[f32], tolerance: f32) -> Option<String> {
        let value = self.file.metadata.remove(key).expect("it is there");
        let found = self.run();
        self.file.metadata.insert(key, value);
        let expected = &self.record["without"][key];
        let loads = !self.record["logits"].as_array().expect("a list").is_empty();
        let short = key.rsplit('.').next().unwrap_or(key);
        let names = |error: &str| error.contains(short) || error.contains(".weight");
        let typed = |error: &str| error.contains("; allowed: ") || error.contains(" is missing");
        if TOLD.iter().any(|(name, told)| *name == self.name && key.ends_with(told)) {
            return None;
        }
        match (found, expected) {
            // Keys that contradict each other are named by any of them.
            (Err(error), Json::String(outcome)) if outcome == "error" => {
                (!typed(&error) && !names(&error)).then(|| format!("names no key: {error}"))
            }
            (Err(error), _) => (!names(&error)).then(|| format!("names no key: {error}")),
            (Ok(_), _) if !loads => None,
            // What llama.cpp requires may follow from other keys or from tensors.
            (Ok(logits), Json::String(outcome)) if outcome == "error" || outcome == "same" => {
                let error = largest_error(&logits, whole);
                (error > 0.0).then(|| format!("differs by {error}, llama.cpp: {outcome}"))
            }
            (Ok(logits), Json::Array(_)) if !DIFFERENT.contains(&self.name) => {
                let error = largest_error(&self.some(&logits), &floats(expected));
                (error > tolerance).then(|| format!("differs from llama.cpp by {error}"))
            }
            (Ok(logits), Json::Array(_)) => {
                (logits == whole).then(|| "changes nothing, but in llama.cpp".to_string())
            }
            (Ok(_), _) => Some("is not recorded: run tests/peer/gguf_keys.py".into()),
        }
    }
}

#[test]
fn every_key_of_a_file_is_needed_or_has_the_default_of_llama_cpp() {
    let mut problems = Vec::new();
    for name in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::new(name, folder.path());
        let whole = file.run().expect("it runs");
        let theirs = floats(&file.record["logits"]);
        // llama.cpp rounds to half precision in places.
        let tolerance = 5e-3 * theirs.iter().fold(1.0f32, |most, x| most.max(x.abs()));
        if !theirs.is_empty() && !DIFFERENT.contains(&name) {
            let error = largest_error(&file.some(&whole), &theirs);
            assert!(error < tolerance, "{name}: {error}");
        }
        let keys: Vec<String> = file.file.metadata.iter().map(|(key, _)| key.to_string()).collect();
        for key in keys.iter().filter(|key| !OTHERS.iter().any(|other| key.starts_with(other))) {
            let problem = file.without(key, &whole, tolerance);
            problems.extend(problem.map(|problem| format!("{name} without {key}: {problem}")));
        }
    }
    assert!(problems.is_empty(), "{}\n{} in all", problems.join("\n"), problems.len());
}
