//! Memory, time and I/O volume of a task, estimated from the shape of the model and from rates
//! measured on two shared cores of an AMD EPYC server (figures and sources: docs/cluster.md).

use std::path::Path;

use vaquita_quantize::container::{Inventory, expert_parameters};
use vaquita_quantize::hessian::Hessian;
use vaquita_quantize::plan::{expert_layers, expert_specs};
use vaquita_quantize::sources::{CONFIG_BYTES, READ_WHOLE};
use vaquita_runtime::bytes::file;
use vaquita_runtime::checkpoint::families::config_from_hf;
use vaquita_runtime::checkpoint::{Config, GgufWeights, Verify, Weights};

use super::ClusterError;
use crate::statistics::{STATES_IN_MEMORY, Shape};

/// Weights that one core quantizes per second, with error feedback.
const ENCODED: f64 = 9e6;
/// Multiplications per second of one core in the forward pass, including the statistics.
const FORWARD: f64 = 30e9;
/// Bytes that a task reads or writes per second: per-reader throughput of a network file system
/// with many readers.
const STORAGE: f64 = 200e6;
/// Memory for the activations within a layer and their copies, in bytes.
const ACTIVATIONS: u64 = 768 << 20;
/// Memory for the program, its threads and the texts, in bytes.
const PROGRAM: u64 = 384 << 20;
/// Number of weights that are encoded concurrently.
const WEIGHTS_AT_ONCE: u64 = 32 << 20;

/// Resources of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Approximate duration, in seconds.
    pub seconds: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// Resources of one task in each step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Calibration of one part.
    pub calibrate: Resources,
    /// Merging the parts of the calibration.
    pub merge: Resources,
    /// Quantization of one part of the file.
    pub quantize: Resources,
    /// Joining the parts of the file.
    pub join: Resources,
}

/// Inputs of an estimate.
#[derive(Clone, Copy, Debug)]
pub struct Amounts {
    /// Total size of the model's files, in bytes.
    pub model_bytes: u64,
    /// Number of tokens in the texts.
    pub tokens: u64,
    /// Memory for products, in bytes, as in `--products`.
    pub products: u64,
    /// Number of parts.
    pub tasks: usize,
    /// Cores per task.
    pub cpus: usize,
}

/// Reads the configuration of a model: of a checkpoint, for which `config.json` suffices, or of a
/// GGUF file.
pub fn config(model: &Path) -> Result<Config, ClusterError> {
    if !model.is_dir() {
        return Ok(GgufWeights::open(model, Verify::Never)?.config().clone());
    }
    let path = model.join("config.json");
    let text = file::read(&path, CONFIG_BYTES)
        .map_err(|source| ClusterError::Io { path: path.clone(), source })?;
    let json = serde_json::from_slice(&text)
        .map_err(|source| ClusterError::Json { path: path.clone(), source })?;
    config_from_hf(&json).map_err(|source| ClusterError::Config { path, source })
}

impl Estimate {
    /// Estimates the resources for a model that is divided into `amounts.tasks` tasks.
    pub fn new(config: &Config, amounts: &Amounts) -> Self {
        let tensors = config.family.tensors(config);
        let layers: Vec<usize> = expert_layers(config).map(|layer| layer.0).collect();
        let specs = || expert_layers(config).flat_map(|layer| expert_specs(config, layer));
        let of_trunk: u64 = tensors.iter().map(|spec| spec.rows as u64 * spec.cols as u64).sum();
        let of_experts: u64 = specs().map(|spec| expert_parameters(&spec)).sum();
        let parameters = of_trunk + of_experts;
        let per_expert = specs().next().map_or(0, |spec| expert_parameters(&spec));
        // A token uses all non-expert weights except the embedding, and the experts that it is
        // routed to.
        let embedding = config.vocab_size as u64 * config.hidden_size as u64;
        let routed = config.moe.num_experts_per_tok as u64 * per_expert * layers.len() as u64;
        let met = of_trunk.saturating_sub(embedding) + routed;
        let largest = tensors.iter().map(|spec| spec.rows as u64 * spec.cols as u64).max();
        let largest = largest.unwrap_or(0).max(WEIGHTS_AT_ONCE);
        let trunk_of_layer = tensors.iter().filter(|spec| spec.layer().is_some());
        let trunk_of_layer: u64 =
            trunk_of_layer.map(|spec| spec.rows as u64 * spec.cols as u64).sum();
        let trunk_of_layer = trunk_of_layer / config.num_hidden_layers.max(1) as u64;

        let inventory = Inventory { config, tensors, parameters };
        let shape = Shape::of(&inventory, None);
        let shape = Shape { block: shape.block_within(amounts.products), ..shape };
        let (sums, largest_layer) = sums(&shape);

        let tasks = amounts.tasks.max(1) as u64;
        let cpus = amounts.cpus.max(1) as f64;
        let tokens = amounts.tokens / tasks;
        let states = (tokens * config.hidden_size as u64 * 4).min(STATES_IN_MEMORY as u64);
        let threads = amounts.cpus.max(1) as u64 * per_expert * 4;
        // A small model is read whole, a large one in samples.
        let identity = match amounts.model_bytes {
            bytes @ 0..=READ_WHOLE => bytes,
            bytes => bytes / 512,
        };
        let encoded = parameters * 5 / 8; // bytes, at five bits a weight
        let of = |memory_bytes: u64, computed: f64, read_bytes: u64, written_bytes: u64| {
            let moved = (read_bytes + written_bytes) as f64 / STORAGE;
            let seconds = (computed / cpus).max(moved) as u64 + 1;
            Resources { memory_bytes, seconds, read_bytes, written_bytes }
        };
        let layers_of_states =
            2 * config.num_hidden_layers as u64 * tokens * config.hidden_size as u64 * 4;
        Self {
            calibrate: of(
                PROGRAM + ACTIVATIONS + states + threads + 4 * trunk_of_layer + 16 * largest_layer,
                (tokens * met) as f64 / FORWARD,
                amounts.model_bytes,
                9 * sums + layers_of_states,
            ),
            merge: of(PROGRAM + 8 * largest_layer, 0.0, 9 * sums * tasks, 4 * sums),
            quantize: of(
                PROGRAM + 10 * largest + 12 * largest_layer + 2 * threads,
                parameters as f64 / tasks as f64 / ENCODED,
                (amounts.model_bytes + 4 * sums) / tasks + identity + 4 * sums,
                encoded / tasks,
            ),
            join: of(PROGRAM, 0.0, 2 * encoded, encoded),
        }
    }
}

/// Numbers of sums in a calibration: the total, and that of the largest layer.
fn sums(shape: &Shape) -> (u64, u64) {
    let of = |cols: usize| {
        let products = shape.block.map_or(0, |block| Hessian::packed_len(cols, block));
        (cols + products) as u64
    };
    let trunk: u64 = shape.matrices.iter().map(|(_, cols)| of(*cols)).sum();
    let layers =
        shape.layers.iter().map(|one| (of(one.input) + of(one.hidden)) * one.experts as u64);
    let layers: Vec<u64> = layers.collect();
    let of_trunk = trunk / shape.layers.len().max(1) as u64;
    (trunk + layers.iter().sum::<u64>(), layers.iter().max().copied().unwrap_or(0) + of_trunk)
}
