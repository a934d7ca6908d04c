//! Files of llama.cpp's layout become expert-major ones: every weight stays, and every bit of the answer.

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;
use vaquita_quantize::convert::{ConvertError, check};
use vaquita_quantize::export::{Export, export};
use vaquita_quantize::{Job, Plan, QuantizeError, quantize, sources};
use vaquita_runtime::blocks::{BlockType, Matrix};
use vaquita_runtime::bytes::Bytes;
use vaquita_runtime::checkpoint::{
    Expert, ExpertId, GgufWeights, LayerId, Projection, Verify, Weights,
};
use vaquita_runtime::gguf::{GgmlType, Gguf, GgufWriter, Metadata, TensorPlan};
use vaquita_runtime::model::ExpertStore;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::store::{Setting, resident, streamed};
use vaquita_tests::{FAMILIES, bits, golden, goldens};

fn exported(name: &str, out: &Path, ty: BlockType) {
    let source = sources::open(&golden(name)).unwrap();
    let (weights, identity) = (source.weights.as_ref(), &source.identity);
    let job = Export { weights, identity, tokenizer: &Metadata::new(), ty, out };
    export(&job, &mut |_| {}).unwrap();
}

fn converted(source: &Path, out: &Path) -> Result<GgufWeights, QuantizeError> {
    check(source, true).unwrap();
    let source = sources::open(source).unwrap();
    let (weights, identity) = (source.weights.as_ref(), &source.identity);
    let (tokenizer, plan) = (Metadata::new(), Plan::as_stored(weights).unwrap());
    let job = Job { weights, identity, tokenizer: &tokenizer, importance: None, plan: &plan, out };
    quantize(&job, &mut |_| {})?;
    let weights = GgufWeights::open(out, Verify::Always).unwrap();
    assert!(weights.is_expert_major());
    Ok(weights)
}

fn logits(model: &Arc<Model>, tokens: &[u32], chunk: usize) -> Vec<u32> {
    let cache = CacheType::F32;
    let options = SessionOptions { cache, prefill_chunk: chunk, ..SessionOptions::default() };
    let mut session = Session::new(model.clone(), Arc::new(Pool::new(2)), options);
    bits(&session.feed_all(tokens).unwrap())
}

/// Checks that both files give the same answer, mapped and streamed with the minimum of memory.
fn answers_alike(source: &Path, made: &Path, tokens: &[u32]) {
    let expected = logits(&resident(source), tokens, tokens.len());
    for file in [source, made] {
        assert!(logits(&resident(file), tokens, 1) == expected, "{}", file.display());
        let streamed = streamed(file, Setting::default());
        for chunk in [1, tokens.len()] {
            assert!(logits(&streamed.model, tokens, chunk) == expected, "{}", file.display());
        }
        let stats = streamed.store.stats().unwrap();
        assert!(stats.bytes_read > 0 && stats.resident_bytes <= stats.limit_bytes);
    }
}

#[test]
fn a_file_of_any_family_has_the_same_answer_after_conversion_resident_and_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let (stacked, records) = (folder.path().join("stacked.gguf"), folder.path().join("made.gguf"));
    let dense = |name: &str| {
        name.starts_with("r1-distill")
            || [
                "gemma-3",
                "gemma-4-e",
                "gemma-4-e2b",
                "granite-3",
                "granite-4-dense",
                "mistral",
                "qwen3",
                "qwen3.5",
                "smollm3",
            ]
            .contains(&name)
    };
    for name in FAMILIES.iter().filter(|name| !dense(name)) {
        let tokens = &goldens(&golden(name).join("golden.safetensors"))[0].tokens;
        for ty in [BlockType::F16, BlockType::Q8_0] {
            exported(name, &stacked, ty);
            let made = converted(&stacked, &records).unwrap();
            let config = made.config();
            let layer = LayerId(config.num_hidden_layers - 1);
            let types = made.expert_types(&config.family.expert(config, layer, ExpertId(0)));
            assert_eq!(types, Some([ty; 3]), "{name}");
            answers_alike(&stacked, &records, &tokens[..16]);
        }
    }
}

#[test]
fn a_split_file_becomes_one_and_none_of_its_parts_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let part = |n| folder.path().join(format!("deepseek-v3-0000{n}-of-00002.gguf"));
    for n in [1, 2] {
        let name = part(n).file_name().unwrap().to_owned();
        std::fs::copy(golden("gguf").join(name), part(n)).unwrap();
    }
    let tokens = &goldens(&golden("deepseek-v3").join("golden.safetensors"))[0].tokens;
    let made = folder.path().join("made.gguf");
    converted(&part(1), &made).unwrap();
    answers_alike(&part(1), &made, tokens);
    let refused = converted(&part(1), &part(2)).err().unwrap();
    assert!(matches!(refused, QuantizeError::OverSource { .. }), "{refused}");
}

/// Stored blocks of one of ggml's types, from tests/golden/blocks: those of ordinary weights, since
/// an answer of weights that are not finite is refused.
fn blocks(ty: BlockType) -> Vec<u8> {
    let of_file = |file: &str| {
        let bytes = std::fs::read(golden("blocks").join(file)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        Some(file.tensor(&format!("{ty}.bytes")).ok()?.data().to_vec())
    };
    let blocks = of_file("blocks.safetensors").or_else(|| of_file("ik.safetensors")).unwrap();
    let len = |weights: u64| GgmlType::of(ty).unwrap().byte_len(&[weights]);
    let weights = [32, 64, 128, 256].into_iter().find(|&weights| len(weights).is_some()).unwrap();
    let ordinary = |block: &&[u8]| {
        let block = Bytes::from(block.to_vec());
        let weights = Matrix::new(ty, 1, weights as usize, block).unwrap().decode();
        weights.iter().all(|weight| weight.abs() < 16.0)
    };
    let blocks = blocks.chunks_exact(len(weights).unwrap() as usize);
    let blocks: Vec<&[u8]> = blocks.filter(ordinary).collect();
    assert!(!blocks.is_empty(), "{ty} has no block of ordinary weights");
    blocks.concat()
}

/// A tiny OLMoE whose experts have rows of whole blocks of 256. Its stacks have these types and
/// blocks, in turn, all else is F32.
fn with_stacks_of(types: &[(BlockType, Vec<u8>)], out: &Path) {
    const WIDTH: usize = 256;
    let (layers, experts, vocabulary) = (2, 4, 64);
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", "olmoe");
    let mut set = |key: &str, value: usize| metadata.insert(format!("olmoe.{key}"), value as u32);
    set("block_count", layers);
    set("context_length", 128);
    set("embedding_length", WIDTH);
    set("vocab_size", vocabulary);
    set("feed_forward_length", WIDTH);
    set("attention.head_count", 4);
    set("attention.head_count_kv", 4);
    set("expert_count", experts);
    set("expert_used_count", 2);
    metadata.insert("olmoe.attention.layer_norm_rms_epsilon", 1e-5f32);
    metadata.insert("olmoe.rope.freq_base", 10_000.0f32);
    let matrix = |name: &str, rows: usize| (name.to_string(), vec![WIDTH as u64, rows as u64]);
    let vector = |name: &str| (name.to_string(), vec![WIDTH as u64]);
    let mut tensors = vec![matrix("token_embd.weight", vocabulary), vector("output_norm.weight")];
    tensors.push(matrix("output.weight", vocabulary));
    let mut stacks = Vec::new();
    for layer in 0..layers {
        for name in ["attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm"] {
            tensors.push(vector(&format!("blk.{layer}.{name}.weight")));
        }
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            tensors.push(matrix(&format!("blk.{layer}.{name}.weight"), WIDTH));
        }
        tensors.push(matrix(&format!("blk.{layer}.ffn_gate_inp.weight"), experts));
        for projection in Projection::ALL {
            let projection = format!("{projection:?}").to_lowercase();
            stacks.push(format!("blk.{layer}.ffn_{projection}_exps.weight"));
        }
    }
    let plan = tensors.iter().cloned().map(|(name, dims)| (name, dims, GgmlType::F32));
    let of_stack = |(number, name): (usize, &String)| {
        let ty = GgmlType::of(types[number % types.len()].0).unwrap();
        (name.clone(), vec![WIDTH as u64, WIDTH as u64, experts as u64], ty)
    };
    let plan = plan.chain(stacks.iter().enumerate().map(of_stack));
    let plan: Vec<_> = plan.map(|(name, dims, ty)| TensorPlan { name, dims, ty }).collect();
    let file = BufWriter::new(std::fs::File::create(out).unwrap());
    let mut writer = GgufWriter::new(file, out, &metadata, plan.clone()).unwrap();
    for (number, tensor) in plan.iter().enumerate() {
        let len = tensor.ty.byte_len(&tensor.dims).unwrap() as usize;
        let bytes: Vec<u8> = match tensor.ty {
            GgmlType::F32 => (0..len / 4)
                .map(|i| ((i * 7919 + number * 104_729) % 1009) as f32 / 4036.0 - 0.125)
                .flat_map(|value| match tensor.dims.len() {
                    1 => 1f32.to_le_bytes(),
                    _ => value.to_le_bytes(),
                })
                .collect(),
            _ => {
                let (_, blocks) = &types[(number - tensors.len()) % types.len()];
                blocks.iter().copied().cycle().take(len).collect()
            }
        };
        writer.write_tensor(&tensor.name, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// All weights of an expert.
fn decoded(weights: &GgufWeights, layer: usize, expert: usize) -> Vec<u32> {
    let config = weights.config();
    let spec = config.family.expert(config, LayerId(layer), ExpertId(expert));
    let Expert { gate, up, down } = weights.expert(&spec).unwrap();
    [gate, up, down].iter().flat_map(|matrix| bits(&matrix.decode())).collect()
}

#[test]
fn experts_of_every_type_of_ggml_are_carried_in_records() {
    let folder = tempfile::tempdir().unwrap();
    let (stacked, records) = (folder.path().join("stacked.gguf"), folder.path().join("made.gguf"));
    let types = BlockType::ALL.into_iter().filter(|ty| !BlockType::WRITTEN.contains(ty));
    for ty in types {
        with_stacks_of(&[(ty, blocks(ty))], &stacked);
        let made = converted(&stacked, &records).unwrap();
        let source = GgufWeights::open(&stacked, Verify::First).unwrap();
        for (layer, expert) in [(0, 0), (0, 3), (1, 2)] {
            assert!(decoded(&made, layer, expert) == decoded(&source, layer, expert), "{ty}");
        }
        answers_alike(&stacked, &records, &[1, 5, 60, 2]);
    }
}

#[test]
fn a_file_of_many_types_keeps_the_type_of_each_matrix() {
    let folder = tempfile::tempdir().unwrap();
    let (stacked, records) = (folder.path().join("stacked.gguf"), folder.path().join("made.gguf"));
    let types = [
        [BlockType::Iq3S, BlockType::Iq2S, BlockType::Iq4Ks],
        [BlockType::Iq1M, BlockType::Iq2Ks, BlockType::Q2_0],
    ];
    let stacks: Vec<_> = types.as_flattened().iter().map(|&ty| (ty, blocks(ty))).collect();
    with_stacks_of(&stacks, &stacked);
    let made = converted(&stacked, &records).unwrap();
    let config = made.config();
    for (layer, types) in types.into_iter().enumerate() {
        let spec = config.family.expert(config, LayerId(layer), ExpertId(1));
        assert_eq!(made.expert_types(&spec), Some(types));
    }
    answers_alike(&stacked, &records, &[1, 5, 60, 2]);
}

#[test]
fn mxfp4_whose_scales_are_near_each_other_becomes_e4_with_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (stacked, records) = (folder.path().join("stacked.gguf"), folder.path().join("made.gguf"));
    let mut near = blocks(BlockType::Mxfp4);
    for (number, block) in near.chunks_exact_mut(17).enumerate() {
        block[0] = 118 + (number % 7) as u8;
    }
    with_stacks_of(&[(BlockType::Mxfp4, near)], &stacked);
    let made = converted(&stacked, &records).unwrap();
    let source = GgufWeights::open(&stacked, Verify::First).unwrap();
    for (layer, expert) in [(0, 1), (1, 3)] {
        let config = made.config();
        let spec = config.family.expert(config, LayerId(layer), ExpertId(expert));
        assert_eq!(made.expert_types(&spec), Some([BlockType::E4; 3]));
        assert!(decoded(&made, layer, expert) == decoded(&source, layer, expert));
    }
}

#[test]
fn what_would_gain_nothing_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let says = |path: &Path, hint: &str| {
        let error = check(path, true).unwrap_err().to_string();
        assert!(error.contains(hint), "{error}");
    };
    says(&golden("olmoe"), "quantize the folder");
    exported("r1-distill-qwen", &path("dense.gguf"), BlockType::F16);
    says(&path("dense.gguf"), "no routed experts");
    assert!(check(&path("dense.gguf"), false).is_ok());
    exported("olmoe", &path("stacked.gguf"), BlockType::F16);
    converted(&path("stacked.gguf"), &path("made.gguf")).unwrap();
    says(&path("made.gguf"), "in records already");
    let whole = std::fs::read(path("stacked.gguf")).unwrap();
    std::fs::write(path("cut.gguf"), &whole[..whole.len() / 2]).unwrap();
    says(&path("cut.gguf"), "truncated or damaged");
    assert!(matches!(check(&path("cut.gguf"), true), Err(ConvertError::Open(_))));
}

#[test]
fn weights_that_are_no_numbers_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (stacked, made) = (folder.path().join("stacked.gguf"), folder.path().join("made.gguf"));
    with_stacks_of(&[(BlockType::Q8_0, blocks(BlockType::Q8_0))], &stacked);
    let gguf = Gguf::open(&stacked).unwrap();
    let at = gguf.tensor("blk.1.ffn_up_exps.weight").unwrap().offset as usize;
    let mut bytes = std::fs::read(&stacked).unwrap();
    bytes[at..at + 2].copy_from_slice(&[0, 0x7c]);
    std::fs::write(&stacked, bytes).unwrap();
    let error = converted(&stacked, &made).err().unwrap().to_string();
    assert!(error.contains("must be a finite number"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the source is left");
}
