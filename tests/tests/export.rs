//! Exported files for llama.cpp: they run here with the same answers from stacked experts, and in
//! llama.cpp as well.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use vaquita_quantize::export::{Export, export};
use vaquita_quantize::sources;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::gguf::Metadata;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::store::{Setting, streamed};
use vaquita_tests::{bits, golden, goldens, mean_divergence, open_folder, reference};

fn exported(source: &Path, out: &Path, ty: BlockType) -> Arc<Model> {
    let source = sources::open(source).unwrap();
    let (weights, identity) = (source.weights.as_ref(), &source.identity);
    let job = Export { weights, identity, tokenizer: &Metadata::new(), ty, out };
    export(&job, &mut |_| {}).unwrap();
    let weights = GgufWeights::open(out, Verify::First).unwrap();
    assert!(!weights.is_expert_major());
    Arc::new(Model::load(Arc::new(weights)).unwrap())
}

fn logits(model: &Arc<Model>, tokens: &[u32]) -> Vec<f32> {
    let options = SessionOptions { cache: CacheType::F32, ..SessionOptions::default() };
    Session::new(model.clone(), Arc::new(Pool::new(2)), options).feed_all(tokens).unwrap()
}

#[test]
fn an_exported_model_has_the_same_answer_resident_and_streamed() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "deepseek-v3",
        "qwen2-moe",
        "gpt-oss",
        "gemma-4-26b",
        "gemma-4-e2b",
        "granite-3",
        "granite-3-moe-shared",
        "granite-4-dense",
        "granite-4",
        "lfm2-moe",
        "laguna",
        "mistral",
        "mixtral",
        "qwen3",
        "qwen3-next",
        "qwen3.5",
        "smollm3",
    ] {
        let tokens = &goldens(&golden(name).join("golden.safetensors"))[0].tokens;
        let expected = logits(&open_folder(&golden(name)), tokens);
        let file = folder.path().join(format!("{name}.gguf"));
        let model = exported(&golden(name), &file, BlockType::F32);
        assert!(bits(&logits(&model, tokens)) == bits(&expected), "{name}");
        if model.config().moe.n_routed_experts > 0 {
            let streamed = streamed(&file, Setting::default());
            assert!(bits(&logits(&streamed.model, tokens)) == bits(&expected), "{name}, streamed");
        }
        // An exported file is a source like any other.
        let again = exported(&file, &folder.path().join("again.gguf"), BlockType::F32);
        assert!(bits(&logits(&again, tokens)) == bits(&expected), "{name}, twice");
    }
}

#[test]
fn eight_bits_of_ggml_are_near() {
    let folder = tempfile::tempdir().unwrap();
    let name = "qwen3-moe";
    let tokens = &goldens(&golden(name).join("golden.safetensors"))[0].tokens;
    let expected = logits(&open_folder(&golden(name)), tokens);
    let model = exported(&golden(name), &folder.path().join("q8_0.gguf"), BlockType::Q8_0);
    let found = logits(&model, tokens);
    let mean = mean_divergence(&found, &expected, model.config().vocab_size);
    assert!(mean > 0.0 && mean < 2e-3, "{mean}");
}

/// Runs where `VAQUITA_PEER` names a Python that has llama-cpp-python, numpy and safetensors.
#[test]
fn llama_cpp_has_the_same_answer_from_the_same_files() {
    let Some(python) = std::env::var_os("VAQUITA_PEER") else {
        vaquita_skips::skipped(
            "VAQUITA_PEER names no Python with llama-cpp-python (`.ci/peer` makes one)",
        );
        return;
    };
    let program = std::env::var_os("VAQUITA").expect("VAQUITA names the program to compare");
    let scratch = tempfile::tempdir().unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(python);
    command.arg(tests.join("peer/families.py")).arg(program).arg(tests.join("golden"));
    assert!(command.arg(reference()).arg(scratch.path()).status().unwrap().success());
}
