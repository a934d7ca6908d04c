//! Every tensor and every key of a checkpoint is used, known to be dispensable, or an error that
//! names it. Where a configuration leaves something open, tensors decide, and else the defaults of
//! transformers.

mod configurations;
mod layouts;

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::isa::Tier;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::variants::{Checkpoint, GgufFile, Reference, frequencies, numbers};
use vaquita_tests::{FAMILIES, bits, largest_error, quantized};

const TOKENS: [u32; 24] =
    [5, 301, 17, 44, 9, 250, 81, 3, 3, 120, 77, 6, 199, 42, 8, 310, 64, 2, 91, 33, 150, 7, 21, 88];

fn session(model: Arc<Model>) -> Session {
    let options = SessionOptions {
        cache: CacheType::F32,
        tier: Tier::best(),
        prefill_chunk: 7,
        ..SessionOptions::default()
    };
    Session::new(model, Arc::new(Pool::new(2)), options)
}

fn logits(model: Arc<Model>) -> Vec<f32> {
    session(model).feed_all(&TOKENS).expect("it runs")
}

fn of_folder(checkpoint: &Checkpoint) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    checkpoint.write(folder.path());
    let weights = HfFolder::open(folder.path()).expect("the folder opens");
    logits(Arc::new(Model::load(Arc::new(weights)).expect("it loads")))
}

fn of_file(path: &Path) -> Vec<f32> {
    let weights = GgufWeights::open(path, Verify::First).expect("the file opens");
    logits(Arc::new(Model::load(Arc::new(weights)).expect("it loads")))
}

/// Why a folder does not open.
fn error_of_folder(checkpoint: &Checkpoint) -> String {
    let folder = tempfile::tempdir().unwrap();
    checkpoint.write(folder.path());
    HfFolder::open(folder.path()).err().expect("it is refused").to_string()
}

/// Why a file does not open, load or run.
fn error_of_file(file: &GgufFile) -> String {
    refusal_of_file(file).expect("it is refused")
}

/// Why a file does not open, load or run, if it does not.
fn refusal_of_file(file: &GgufFile) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    file.write(&path);
    let weights = match GgufWeights::open(&path, Verify::First) {
        Err(error) => return Some(error.to_string()),
        Ok(weights) => weights,
    };
    match Model::load(Arc::new(weights)) {
        Err(error) => Some(error.to_string()),
        Ok(model) => session(Arc::new(model)).feed(&TOKENS).err().map(|error| error.to_string()),
    }
}

fn gguf(checkpoint: &Checkpoint) -> GgufFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    checkpoint.write_gguf(&path);
    GgufFile::read(&path)
}

fn of_gguf(file: &GgufFile) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    file.write(&path);
    of_file(&path)
}

/// A Llama without scaling of its frequencies, which the reference does not compute.
fn llama() -> Checkpoint {
    Checkpoint::golden("r1-distill-llama")
        .set("rope_parameters", json!({"rope_type": "default", "rope_theta": 10000.0}))
}

fn plain(checkpoint: &Checkpoint) -> Vec<f32> {
    let (window, frequencies) = (|_| usize::MAX, |dim| frequencies(10000.0, dim));
    Reference { checkpoint, window: &window, frequencies: &frequencies }.logits(&TOKENS)
}

fn agree(found: &[f32], expected: &[f32]) {
    let error = largest_error(found, expected);
    assert!(error < 2e-3, "{error}");
}

const ATTENTION: [(&str, usize); 4] = [
    ("self_attn.q_proj.bias", 64),
    ("self_attn.k_proj.bias", 32),
    ("self_attn.v_proj.bias", 32),
    ("self_attn.o_proj.bias", 64),
];
const MLP: [(&str, usize); 3] =
    [("mlp.gate_proj.bias", 128), ("mlp.up_proj.bias", 128), ("mlp.down_proj.bias", 64)];

#[test]
fn biases_of_attention_and_feed_forward_run_stated_or_not_in_folders_and_files() {
    let all: Vec<_> = ATTENTION.iter().chain(&MLP).collect();
    let of_attention: Vec<_> = ATTENTION.iter().collect();
    let of_queries: Vec<_> = ATTENTION[..3].iter().collect();
    let none = plain(&llama());
    for biases in [of_queries, of_attention, MLP.iter().collect(), all] {
        let unstated = llama().without_key("attention_bias").without_key("mlp_bias");
        let biased = biases.iter().fold(unstated, |c, (name, len)| c.with_vectors(name, *len));
        let expected = plain(&biased);
        assert!(largest_error(&expected, &none) > 0.1);
        let found = of_folder(&biased);
        agree(&found, &expected);
        agree(&of_gguf(&gguf(&biased)), &expected);

        let folder = tempfile::tempdir().unwrap();
        biased.write(&folder.path().join("checkpoint"));
        let ours = folder.path().join("ours.gguf");
        let model = quantized(&folder.path().join("checkpoint"), &ours, BlockType::F32, None);
        agree(&logits(model), &expected);
    }
}

#[test]
fn biases_of_zero_have_the_bits_of_none() {
    let mut zero = llama().set("attention_bias", true).set("mlp_bias", true);
    for (name, len) in ATTENTION.iter().chain(&MLP) {
        zero = zero.with_vectors(name, *len);
    }
    for (name, tensor) in &mut zero.tensors {
        if name.ends_with(".bias") {
            tensor.values.fill(0.0);
        }
    }
    assert!(bits(&of_folder(&zero)) == bits(&of_folder(&llama())));
}

#[test]
fn keys_and_biases_that_contradict_each_other_are_errors() {
    let biased = llama().with_vectors("self_attn.o_proj.bias", 64);
    let error = error_of_folder(&biased);
    assert!(error.contains("no use for model.layers.0.self_attn.o_proj.bias"), "{error}");
    let error = error_of_folder(&llama().set("mlp_bias", true));
    assert!(error.contains("mlp.gate_proj.bias is missing"), "{error}");
    let error = error_of_folder(
        &Checkpoint::golden("r1-distill-qwen")
            .without(|name| name == "model.layers.1.self_attn.k_proj.bias"),
    );
    assert!(error.contains("model.layers.1.self_attn.k_proj.bias is missing"), "{error}");
}

#[test]
fn every_tensor_of_every_family_is_needed_and_none_can_be_added() {
    for name in FAMILIES {
        let checkpoint = Checkpoint::golden(name);
        let folder = tempfile::tempdir().unwrap();
        for removed in checkpoint.tensors.keys() {
            if removed.contains(".experts.") && !removed.contains(".experts.1.") {
                continue; // one expert of each layer stands for all
            }
            checkpoint.clone().without(|name| name == removed).write(folder.path());
            let error = HfFolder::open(folder.path()).err().map(|error| error.to_string());
            // A head that a folder does not say to be the embedding is needed; every golden says.
            let error = error.unwrap_or_else(|| panic!("{name} opens without {removed}"));
            // Kimi-Linear's first layer is published under the usual name.
            let usual = match name {
                "kimi-linear" => removed.replace("layers.0.block_sparse_moe.", "layers.0.mlp."),
                _ => removed.clone(),
            };
            assert!(error.contains(&usual), "{name}: {error}");
        }
        for added in
            ["self_attn.q_proj.scale", "mlp.extra.weight", "self_attn.q_proj.lora_A.weight"]
        {
            let error = error_of_folder(&checkpoint.clone().with_vectors(added, 64));
            assert!(error.contains(&format!("no use for model.layers.0.{added}")), "{error}");
        }
        let buffers = checkpoint.clone().with_vectors("self_attn.rotary_emb.inv_freq", 8);
        assert!(bits(&of_folder(&buffers)) == bits(&of_folder(&checkpoint)), "{name}");
    }
}

/// Tensors that a file may leave out in llama.cpp too, with the beginning of the family's name: a
/// head is the embedding then, values are the keys, and nothing is added or scaled.
const OPTIONAL: [(&str, &str); 4] = [
    ("", "output.weight"),
    ("gemma-4", "attn_v.weight"),
    ("granite-4", "ssm_conv1d.bias"),
    ("r1-distill-llama", "rope_freqs.weight"),
];

#[test]
fn every_tensor_of_a_file_is_needed_and_none_can_be_added() {
    let mut problems = Vec::new();
    for name in FAMILIES {
        let mut file = gguf(&Checkpoint::golden(name));
        for i in 0..file.tensors.len() {
            let removed = file.tensors.remove(i);
            match refusal_of_file(&file) {
                Some(error) if error.contains(&removed.0) => {}
                None if OPTIONAL
                    .iter()
                    .any(|(family, end)| name.starts_with(family) && removed.0.ends_with(end)) => {}
                found => problems.push(format!("{name} without {}: {found:?}", removed.0)),
            }
            file.tensors.insert(i, removed);
        }
        let added = "blk.1.attn_q.scale";
        file.tensors.push((added.into(), vec![64], numbers(64, 1)));
        assert!(error_of_file(&file).contains(&format!("no use for {added}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_correction_of_the_scores_says_that_they_are_sigmoids() {
    for name in ["deepseek-v3", "glm-4.7-flash", "moonlight"] {
        let mut file = gguf(&Checkpoint::golden(name));
        let expected = of_gguf(&file);
        file.metadata.remove("deepseek2.expert_gating_func").expect("it is there");
        assert!(bits(&of_gguf(&file)) == bits(&expected), "{name}");
        file.metadata.insert("deepseek2.expert_gating_func", 1u32);
        let error = error_of_file(&file);
        assert!(error.contains("no use for blk.1.exp_probs_b.bias"), "{error}");
    }
    let mut file = gguf(&Checkpoint::golden("deepseek-v2"));
    let expected = of_gguf(&file);
    file.metadata.remove("deepseek2.expert_gating_func").expect("it is there");
    assert!(bits(&of_gguf(&file)) == bits(&expected), "V2 has no correction");
    let corrected =
        Checkpoint::golden("deepseek-v2").with_vectors("mlp.gate.e_score_correction_bias", 12);
    assert!(error_of_folder(&corrected).contains("e_score_correction_bias"));
}
