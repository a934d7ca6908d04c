//! Helpers shared by tests that cross crates: locations of test data, and models opened from it.

pub mod calls;
pub mod engine;
pub mod fuzz;
pub mod store;
pub mod variants;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};
use vaquita_quantize::sources::{self, HfFolder};
use vaquita_quantize::{Job, Material, Plan, Target, mixed, quantize};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::gguf::Metadata;
use vaquita_runtime::model::Model;
use vaquita_runtime::tokenizer::Tokenizer;

/// The checkpoints in `golden`: one of every architecture.
pub const FAMILIES: [&str; 35] = [
    "deepseek-v2",
    "deepseek-v2-lite",
    "deepseek-v3",
    "ernie-4.5",
    "gemma-3",
    "gemma-4-26b",
    "gemma-4-e",
    "gemma-4-e2b",
    "gemma-4-moe",
    "glm-4.5",
    "glm-4.7-flash",
    "gpt-oss",
    "granite-3",
    "granite-3-moe",
    "granite-3-moe-shared",
    "granite-4",
    "granite-4-dense",
    "kimi-linear",
    "laguna",
    "lfm2-moe",
    "ling-3",
    "minimax-m2",
    "mistral",
    "mixtral",
    "moonlight",
    "olmoe",
    "qwen2-moe",
    "qwen3",
    "qwen3-moe",
    "qwen3-next",
    "qwen3.5",
    "qwen3.5-moe",
    "r1-distill-llama",
    "r1-distill-qwen",
    "smollm3",
];

/// A folder of tiny random checkpoints with the logits that transformers computes.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// The reference model.
pub fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../calibration/reference")
}

/// A checkpoint folder, unquantized.
pub fn open_folder(path: &Path) -> Arc<Model> {
    let folder = HfFolder::open(path).expect("the checkpoint opens");
    Arc::new(Model::load(Arc::new(folder)).expect("the checkpoint loads"))
}

/// One sequence with the logits after each of its tokens.
pub struct Golden {
    /// Tokens.
    pub tokens: Vec<u32>,
    /// `[tokens, vocab_size]`
    pub logits: Vec<f32>,
}

/// The sequences in a `golden.safetensors`: a batch in `input_ids` and `logits`, or one each in
/// `input_ids.0` and so on.
pub fn goldens(path: &Path) -> Vec<Golden> {
    let bytes = std::fs::read(path).expect("golden.safetensors is there");
    let file = SafeTensors::deserialize(&bytes).expect("golden.safetensors is sound");
    let ids = |name: &str| -> Vec<u32> {
        let tensor = file.tensor(name).expect("input_ids");
        assert_eq!(tensor.dtype(), Dtype::I64);
        let ids = tensor.data().as_chunks::<8>().0;
        ids.iter().map(|id| i64::from_le_bytes(*id) as u32).collect()
    };
    let floats = |name: &str| -> Vec<f32> {
        let tensor = file.tensor(name).expect("logits");
        assert_eq!(tensor.dtype(), Dtype::F32);
        tensor.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
    };
    if let Ok(batch) = file.tensor("input_ids") {
        let sequences = batch.shape()[0];
        let (ids, logits) = (ids("input_ids"), floats("logits"));
        let (tokens, values) = (ids.len() / sequences, logits.len() / sequences);
        let pair = |i: usize| Golden {
            tokens: ids[i * tokens..][..tokens].to_vec(),
            logits: logits[i * values..][..values].to_vec(),
        };
        return (0..sequences).map(pair).collect();
    }
    let numbers = (0..).take_while(|i| file.tensor(&format!("input_ids.{i}")).is_ok());
    let pair = |i| Golden {
        tokens: ids(&format!("input_ids.{i}")),
        logits: floats(&format!("logits.{i}")),
    };
    numbers.map(pair).collect()
}

/// Largest absolute difference.
pub fn largest_error(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Mean Kullback-Leibler divergence, in nats, of `[tokens, vocabulary]` logits from a reference's.
pub fn mean_divergence(logits: &[f32], reference: &[f32], vocabulary: usize) -> f64 {
    let log_softmax = |row: &[f32]| -> Vec<f64> {
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        row.iter().map(|x| f64::from(*x) - sum.ln()).collect()
    };
    let rows = logits.chunks(vocabulary).zip(reference.chunks(vocabulary));
    let divergence = |(ours, theirs): (&[f32], &[f32])| -> f64 {
        let (ours, theirs) = (log_softmax(ours), log_softmax(theirs));
        theirs.iter().zip(ours).map(|(q, p)| q.exp() * (q - p)).sum()
    };
    rows.map(divergence).sum::<f64>() / (logits.len() / vocabulary) as f64
}

/// The bits of floats, for exact comparisons.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Quantizes a checkpoint into `out` and opens it, with a mixed plan if there is a target,
/// otherwise with one type.
pub fn quantized(source: &Path, out: &Path, ty: BlockType, target: Option<Target>) -> Arc<Model> {
    quantized_by(source, out, |material| match target {
        Some(target) => mixed(material, target, &mut |_| {}).expect("it can be reached"),
        None => Plan::uniform(material.weights.config(), ty),
    })
}

/// Quantizes a checkpoint into `out` by a plan, and opens it.
pub fn quantized_by(source: &Path, out: &Path, plan: impl FnOnce(&Material) -> Plan) -> Arc<Model> {
    let source = sources::open(source).expect("the checkpoint opens");
    let (weights, identity) = (source.weights.as_ref(), &source.identity);
    let tokenizer = Metadata::new();
    let plan = plan(&Material { weights, identity, tokenizer: &tokenizer, importance: None });
    let job = Job { weights, identity, tokenizer: &tokenizer, importance: None, plan: &plan, out };
    quantize(&job, &mut |_| {}).expect("the checkpoint is quantized");
    let weights = GgufWeights::open(out, Verify::First).expect("the file opens");
    Arc::new(Model::load(Arc::new(weights)).expect("the file loads"))
}

/// Quantizes the reference model to e4 into `out`, with its tokenizer, for programs that talk to it.
pub fn reference_file(out: &Path) {
    let source = sources::open(&reference()).expect("the reference model is there");
    let (weights, identity) = (source.weights.as_ref(), &source.identity);
    let mut tokenizer = Metadata::new();
    Tokenizer::from_folder(&reference())
        .expect("it has a tokenizer")
        .write_metadata(&mut tokenizer);
    let plan = Plan::uniform(weights.config(), BlockType::E4);
    let job = Job { weights, identity, tokenizer: &tokenizer, importance: None, plan: &plan, out };
    quantize(&job, &mut |_| {}).expect("it is quantized");
}

/// Alignments of the loaded segments of a 64-bit, little-endian ELF file (program headers of type `PT_LOAD`).
pub fn segment_alignments(path: &Path) -> Vec<u64> {
    let bytes = std::fs::read(path).expect("the library is there");
    assert_eq!(&bytes[..6], b"\x7fELF\x02\x01");
    let number = |at: usize, len: usize| {
        bytes[at..at + len].iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let (start, size, count) = (number(32, 8) as usize, number(54, 2) as usize, number(56, 2));
    let headers = (0..count as usize).map(|i| start + i * size);
    headers.filter(|at| number(*at, 4) == 1).map(|at| number(at + 48, 8)).collect()
}
