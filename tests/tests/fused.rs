//! Checkpoints with all experts of a layer in two tensors, as transformers 5 keeps them and Qwen3.5
//! is published, are the same models as those with a tensor for each projection.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::model::Model;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::variants::Checkpoint;
use vaquita_tests::{bits, open_folder, quantized};

const TOKENS: [u32; 12] = [5, 301, 17, 44, 9, 250, 81, 3, 120, 77, 6, 199];

fn logits(model: Arc<Model>) -> Vec<u32> {
    let mut session = Session::new(model, Arc::new(Pool::new(2)), SessionOptions::default());
    bits(&session.feed_all(&TOKENS).expect("it runs"))
}

fn quantized_logits(checkpoint: &Path, folder: &Path) -> Vec<u32> {
    logits(quantized(checkpoint, &folder.join("e4.gguf"), BlockType::E4, None))
}

#[test]
fn fused_experts_are_those_of_separate_tensors() {
    for name in ["qwen3.5-moe", "qwen3-moe", "ling-3", "kimi-linear"] {
        let folder = tempfile::tempdir().unwrap();
        let [separate, fused] = ["separate", "fused"].map(|form| folder.path().join(form));
        let checkpoint = Checkpoint::golden(name);
        checkpoint.write(&separate);
        checkpoint.with_fused_experts().write(&fused);
        assert_eq!(logits(open_folder(&fused)), logits(open_folder(&separate)), "{name}");
        let [found, expected] =
            [&fused, &separate].map(|path| quantized_logits(path, folder.path()));
        assert_eq!(found, expected, "{name}");
    }
}

/// Qwen3.6-35B-A3B has a tower beside it, which is left out.
#[test]
fn fused_experts_are_found_within_a_multimodal_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::golden("qwen3.5-moe");
    let [separate, wrapped] = ["separate", "wrapped"].map(|form| folder.path().join(form));
    checkpoint.write(&separate);
    let mut checkpoint = checkpoint.with_fused_experts().renamed(|name| {
        name.strip_prefix("model.")
            .map_or(name.into(), |rest| format!("model.language_model.{rest}"))
    });
    checkpoint.config = json!({"model_type": "qwen3_5_moe", "text_config": checkpoint.config});
    checkpoint.write(&wrapped);
    assert_eq!(logits(open_folder(&wrapped)), logits(open_folder(&separate)));
}

#[test]
fn fused_experts_of_another_shape_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::golden("qwen3.5-moe").with_fused_experts();
    let name = "model.layers.1.mlp.experts.gate_up_proj";
    checkpoint.tensors.get_mut(name).unwrap().shape.swap(1, 2);
    checkpoint.write(folder.path());
    let error = HfFolder::open(folder.path()).err().expect("it is refused").to_string();
    assert!(error.contains(name) && error.contains("128, 64"), "{error}");
}
