//! One answer: the logits of quantized files are bit-identical for every chunking of the prompt,
//! number of threads and instruction set.

use std::path::Path;
use std::sync::Arc;

use vaquita_quantize::{DenseTypes, Plan, Target};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::isa::Tier;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::{bits, golden, goldens, quantized, quantized_by, reference};

/// Compares every way to run a file with the scalar tier, token by token on one thread.
fn check(model: &Arc<Model>, tokens: &[u32]) {
    check_cached(model, tokens, CacheType::F16);
}

fn check_cached(model: &Arc<Model>, tokens: &[u32], cache: CacheType) {
    let logits = |tier, threads, prefill_chunk| {
        let options = SessionOptions { tier, prefill_chunk, cache, ..SessionOptions::default() };
        let mut session = Session::new(model.clone(), Arc::new(Pool::new(threads)), options);
        bits(&session.feed_all(tokens).unwrap())
    };
    let expected = logits(Tier::from_name("scalar").unwrap(), 1, 1);
    for tier in Tier::available() {
        for (threads, chunk) in [(1, 1), (1, 7), (2, 1), (2, tokens.len()), (3, 16), (5, 3)] {
            let found = logits(tier, threads, chunk);
            assert!(found == expected, "{} with {threads} threads, chunks of {chunk}", tier.name());
        }
    }
}

fn files(source: &Path, tokens: &[u32]) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    for ty in [BlockType::E2, BlockType::E3, BlockType::E4, BlockType::E8, BlockType::F16] {
        check(&quantized(source, &out, ty, None), tokens);
    }
}

#[test]
fn every_family_gives_one_answer_in_every_type() {
    for name in ["deepseek-v2-lite", "deepseek-v2", "deepseek-v3", "moonlight"] {
        let sequence = &goldens(&golden(name).join("golden.safetensors"))[0];
        files(&golden(name), &sequence.tokens);
    }
}

#[test]
fn eight_bit_caches_give_one_answer_too() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    // Latents, keys and values of several heads, and convolutions beside them.
    for name in ["deepseek-v2-lite", "qwen3-moe", "lfm2-moe"] {
        let sequence = &goldens(&golden(name).join("golden.safetensors"))[0];
        let model = quantized(&golden(name), &out, BlockType::E4, None);
        check_cached(&model, &sequence.tokens, CacheType::Q8);
    }
}

#[test]
fn narrow_dense_types_give_one_answer_too() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    // The heads of these are 16 and 32 wide: k_b and v_b in groups of 32, or in F16.
    for name in ["deepseek-v2-lite", "deepseek-v3"] {
        let sequence = &goldens(&golden(name).join("golden.safetensors"))[0];
        for ty in [BlockType::E2, BlockType::E3, BlockType::E4] {
            let model = quantized_by(&golden(name), &out, |material| {
                Plan::with_dense(material.weights.config(), ty, DenseTypes::all(ty))
            });
            check(&model, &sequence.tokens);
        }
    }
    let sequence = &goldens(&reference().join("golden.safetensors"))[0];
    for target in [2.9, 3.2] {
        let target = Some(Target::BitsPerWeight(target));
        let model = quantized(&reference(), &out, BlockType::E4, target);
        check(&model, &sequence.tokens[..sequence.tokens.len().min(24)]);
    }
}

#[test]
fn the_reference_model_gives_one_answer_with_mixed_experts() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    let target = Some(Target::BitsPerWeight(5.2));
    let model = quantized(&reference(), &out, BlockType::E4, target);
    let sequence = &goldens(&reference().join("golden.safetensors"))[0];
    check(&model, &sequence.tokens);
}
