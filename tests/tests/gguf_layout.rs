//! GGUF files in llama.cpp's layout, written by its own Python package, run like the checkpoint
//! that they were made from; so do files in the layout from before 2025.
//! tests/golden/gguf/make_deepseek2.py makes them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use safetensors::SafeTensors;
use vaquita_quantize::export::{Export, export};
use vaquita_quantize::sources;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::gguf::{GgmlType, Gguf, GgufWriter, Metadata, TensorPlan};
use vaquita_runtime::isa::Tier;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::store::{Setting, resident, run, streamed};
use vaquita_tests::{golden, goldens, largest_error};

#[test]
fn a_split_file_with_stacked_experts_gives_the_checkpoints_logits() {
    let file = golden("gguf/deepseek-v3-00001-of-00002.gguf");
    let weights = GgufWeights::open(&file, Verify::First).unwrap();
    assert!(!weights.is_expert_major());
    let model = Arc::new(Model::load(Arc::new(weights)).unwrap());
    for sequence in goldens(&golden("deepseek-v3").join("golden.safetensors")) {
        let options = SessionOptions {
            cache: CacheType::F32,
            tier: Tier::best(),
            ..SessionOptions::default()
        };
        let mut session = Session::new(model.clone(), Arc::new(Pool::new(2)), options);
        let logits = session.feed_all(&sequence.tokens).unwrap();
        let error = largest_error(&logits, &sequence.logits);
        assert!(error <= 2e-3, "{error}");
    }
}

/// A copy of a file with `kv_b_proj` whole, and with the keys that such files have.
fn with_whole_kv_b(checkpoint: &Path, source: &Path, out: &Path) {
    let bytes = std::fs::read(checkpoint.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let gguf = Gguf::open(source).unwrap();
    let mut metadata = gguf.metadata().clone();
    for (name, of_mla) in [("key", "key_length_mla"), ("value", "value_length_mla")] {
        let removed = metadata.remove(&format!("deepseek2.attention.{of_mla}")).unwrap();
        metadata.insert(format!("deepseek2.attention.{name}_length"), removed);
    }
    let (mut plan, mut contents) = (Vec::new(), Vec::new());
    for info in gguf.tensors() {
        let (mut name, mut dims, mut bytes) =
            (info.name.clone(), info.dims.clone(), gguf.bytes(info).to_vec());
        if name.contains("attn_k_b") {
            continue;
        }
        if name.contains("attn_v_b") {
            let layer = name.split('.').nth(1).unwrap();
            let hf = format!("model.layers.{layer}.self_attn.kv_b_proj.weight");
            let whole = tensors.tensor(&hf).unwrap();
            dims = whole.shape().iter().rev().map(|&extent| extent as u64).collect();
            bytes = whole.data().to_vec();
            name = name.replace("attn_v_b", "attn_kv_b");
        }
        let ty = if info.name.contains("attn_v_b") { GgmlType::BF16 } else { info.ty };
        plan.push(TensorPlan { name: name.clone(), dims, ty });
        contents.push((name, bytes));
    }
    let file = File::create(out).unwrap();
    let mut writer = GgufWriter::new(file, out, &metadata, plan).unwrap();
    for (name, bytes) in contents {
        writer.write_tensor(&name, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn files_with_kv_b_proj_in_one_piece_have_the_same_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (new, old) = (folder.path().join("new.gguf"), folder.path().join("old.gguf"));
    let source = sources::open(&golden("deepseek-v2-lite")).unwrap();
    let (weights, identity) = (source.weights.as_ref(), &source.identity);
    let (tokenizer, ty) = (&Metadata::new(), BlockType::F32);
    export(&Export { weights, identity, tokenizer, ty, out: &new }, &mut |_| {}).unwrap();
    with_whole_kv_b(&golden("deepseek-v2-lite"), &new, &old);
    let tokens = &goldens(&golden("deepseek-v2-lite").join("golden.safetensors"))[0].tokens;
    let expected = run(&resident(&new), tokens, 10);
    assert!(run(&resident(&old), tokens, 10) == expected);
    assert!(run(&streamed(&old, Setting::default()).model, tokens, 10) == expected);
}
