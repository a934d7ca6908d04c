//! Exports a model in the layout of llama.cpp and related programs: a layer's experts in one tensor
//! per projection, in ggml's types, so that models are not locked into the expert-major format.
//!
//! Multi-token-prediction layers are left out, as by llama.cpp's converter.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use rayon::prelude::*;
use vaquita_runtime::blocks::{BlockType, Matrix};
use vaquita_runtime::checkpoint::config::AttentionConfig;
use vaquita_runtime::checkpoint::{
    Config, ExpertSpec, LayerId, Projection, Role, TensorSpec, Weights, WeightsError,
};
use vaquita_runtime::gguf::{GgmlType, GgufError, GgufWriter, Metadata, TensorPlan};

use crate::container::{ContainerError, expert_parameters};
use crate::encoders::{self, Guide};
use crate::error::QuantizeError;
use crate::labels;
use crate::partial::PartialFile;
use crate::pipeline::{in_create, in_write, refuse_source};
use crate::plan::expert_specs;
use crate::progress::{Progress, Reporter, Stage};
use crate::sources::Identity;

/// Types that can be written.
pub const TYPES: [BlockType; 7] = [
    BlockType::F16,
    BlockType::BF16,
    BlockType::F32,
    BlockType::Q8_0,
    BlockType::Q6K,
    BlockType::Q4K,
    BlockType::Q4_0,
];

/// An export to be made.
pub struct Export<'a> {
    /// Weights of the model.
    pub weights: &'a dyn Weights,
    /// Identity of the model.
    pub identity: &'a Identity,
    /// `tokenizer.*` metadata for the file, and `general.*` metadata of its origin.
    pub tokenizer: &'a Metadata,
    /// Type of matrices, one of [`TYPES`]; vectors and routers are F32. Matrices that it cannot
    /// hold, and the output head beside types of fewer bits, have a wider one.
    pub ty: BlockType,
    /// Output file. An existing one is replaced once the new one is complete.
    pub out: &'a Path,
}

/// One tensor of the file.
enum Item {
    Tensor(TensorSpec, BlockType),
    /// One projection of all experts of a layer.
    Stack(LayerId, Projection, BlockType),
}

/// Writes the file and returns its size in bytes. An error leaves an existing file unchanged.
pub fn export(job: &Export, progress: &mut dyn FnMut(Progress)) -> Result<u64, QuantizeError> {
    refuse_source(job.out, job.identity)?;
    let mut config = job.weights.config().clone();
    config.num_nextn_predict_layers = 0;
    let (items, plan) = layout(job, &config)?;
    let weights = |item: &Item| match item {
        Item::Tensor(spec, _) => spec.rows as u64 * spec.cols as u64,
        Item::Stack(layer, ..) => {
            expert_specs(&config, *layer).map(|spec| expert_parameters(&spec) / 3).sum()
        }
    };
    let total = items.iter().map(weights).sum();
    let lens = plan.iter().map(|tensor| tensor.ty.byte_len(&tensor.dims).unwrap_or(0));
    let needed = lens.sum();
    let (partial, file) =
        PartialFile::create(job.out).map_err(|source| in_create(job.out, needed, source))?;
    // No partial work is kept to resume from.
    let in_write = |error| in_write(job.out, needed, error).starts_over();
    let out = BufWriter::with_capacity(1 << 20, file);
    let metadata = metadata(job, &config, total);
    let mut writer = GgufWriter::new(out, job.out, &metadata, plan).map_err(in_write)?;

    let mut reporter = Progress { stage: Stage::Writing, done: 0, total }.with(progress);
    for item in &items {
        match item {
            Item::Tensor(spec, ty) => {
                let missing =
                    || WeightsError::Missing { path: job.out.into(), name: spec.name.clone() };
                let matrix = job.weights.tensor(spec)?.ok_or_else(missing)?;
                let bytes = encode(&spec.name, &matrix, *ty)?;
                matrix.release();
                writer.write_tensor(&spec.name, &bytes).map_err(in_write)?;
                reporter.add(weights(item));
            }
            Item::Stack(layer, projection, ty) => {
                let stack = Stack { job, config: &config, layer: *layer, projection: *projection };
                stack.write(*ty, &mut writer, &mut reporter, &in_write)?;
            }
        }
    }
    let in_io = |source| in_write(GgufError::Io { path: job.out.to_path_buf(), source });
    let out = writer.finish().map_err(in_write)?;
    let file = out.into_inner().map_err(|error| in_io(error.into_error()))?;
    file.sync_all().map_err(in_io)?;
    let bytes = file.metadata().map_err(in_io)?.len();
    partial.keep().map_err(in_io)?;
    Ok(bytes)
}

struct Stack<'a> {
    job: &'a Export<'a>,
    config: &'a Config,
    layer: LayerId,
    projection: Projection,
}

impl Stack<'_> {
    /// Writes expert by expert: a stack may be larger than memory.
    fn write(
        &self,
        ty: BlockType,
        writer: &mut GgufWriter<BufWriter<File>>,
        reporter: &mut Reporter,
        in_write: &dyn Fn(GgufError) -> QuantizeError,
    ) -> Result<(), QuantizeError> {
        let specs: Vec<ExpertSpec> = expert_specs(self.config, self.layer).collect();
        for some in specs.chunks(2 * rayon::current_num_threads()) {
            let encoded: Vec<Vec<u8>> = some
                .par_iter()
                .map(|spec| {
                    let expert = self.job.weights.expert(spec)?;
                    let matrix = match self.projection {
                        Projection::Gate => &expert.gate,
                        Projection::Up => &expert.up,
                        Projection::Down => &expert.down,
                    };
                    encode(&spec.projection_name(self.projection), matrix, ty)
                })
                .collect::<Result<_, QuantizeError>>()?;
            for (spec, bytes) in some.iter().zip(&encoded) {
                let name = spec.stack_name(self.projection);
                writer.write_part(&name, bytes).map_err(in_write)?;
                reporter.add(expert_parameters(spec) / 3);
            }
        }
        Ok(())
    }
}

/// All tensors in file order, with their header entries.
fn layout(job: &Export, config: &Config) -> Result<(Vec<Item>, Vec<TensorPlan>), QuantizeError> {
    let unfit = |name: &str| ContainerError::Layout {
        found: format!("{name} has no type in ggml's layout"),
    };
    let (mut items, mut plan) = (Vec::new(), Vec::new());
    for spec in config.family.tensors(config) {
        if spec.optional && job.weights.tensor(&spec)?.is_none() {
            continue;
        }
        let ty = match spec.role {
            Role::Vector | Role::Router => BlockType::F32,
            Role::Output if matches!(job.ty, BlockType::Q4_0 | BlockType::Q4K) => {
                fitting(BlockType::Q6K, spec.cols)
            }
            _ => fitting(job.ty, spec.cols),
        };
        let ggml = GgmlType::of(ty).ok_or_else(|| unfit(&spec.name))?;
        plan.push(TensorPlan { name: spec.name.clone(), dims: dims(config, &spec), ty: ggml });
        items.push(Item::Tensor(spec, ty));
    }
    for layer in (0..config.num_hidden_layers).filter(|layer| config.is_moe(*layer)) {
        let layer = LayerId(layer);
        let Some(first) = expert_specs(config, layer).next() else { continue };
        for projection in Projection::ALL {
            let (rows, cols) = first.shape(projection);
            let (name, ty) = (first.stack_name(projection), fitting(job.ty, cols));
            let ggml = GgmlType::of(ty).ok_or_else(|| unfit(&name))?;
            let dims = vec![cols as u64, rows as u64, config.moe.n_routed_experts as u64];
            plan.push(TensorPlan { name, dims, ty: ggml });
            items.push(Item::Stack(layer, projection, ty));
        }
    }
    Ok((items, plan))
}

/// The type for a matrix of `cols` columns: one of its own for what the wanted one cannot hold.
fn fitting(wanted: BlockType, cols: usize) -> BlockType {
    let fits = |ty: &BlockType| ty.byte_len(1, cols).is_some();
    [wanted, BlockType::Q8_0].into_iter().find(fits).unwrap_or(BlockType::F16)
}

/// Dimensions in llama.cpp's convention: one for vectors, the heads as a third for the halves of
/// `kv_b_proj`, and one between taps and channels for the convolutions of Kimi Delta Attention.
fn dims(config: &Config, spec: &TensorSpec) -> Vec<u64> {
    let (rows, cols) = (spec.rows as u64, spec.cols as u64);
    let of_heads = ["attn_k_b.weight", "attn_v_b.weight"].iter().any(|n| spec.name.ends_with(n));
    match &config.attention {
        AttentionConfig::Mla(mla) if of_heads => {
            let heads = mla.num_attention_heads as u64;
            vec![cols, rows / heads, heads]
        }
        _ if spec.name.contains(".ssm_conv1d_") => vec![cols, 1, rows],
        _ if rows == 1 => vec![cols],
        _ => vec![cols, rows],
    }
}

fn metadata(job: &Export, config: &Config, parameters: u64) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", config.family.architecture());
    metadata.insert("general.name", job.identity.name.as_str());
    metadata.insert("general.size_label", labels::size_label(config, parameters));
    metadata.insert("general.file_type", labels::file_type(job.ty));
    metadata.insert("general.quantization_version", 2u32); // of ggml's types
    metadata.insert("general.quantized_by", labels::QUANTIZED_BY);
    config.family.write_metadata(config, &mut metadata);
    if let Some(bos) = config.bos_token_id {
        metadata.insert("tokenizer.ggml.bos_token_id", bos);
    }
    if let Some(eos) = config.eos_token_ids.first() {
        metadata.insert("tokenizer.ggml.eos_token_id", *eos);
    }
    for (key, value) in job.tokenizer.iter() {
        metadata.insert(key, value.clone());
    }
    if job.tokenizer.get("tokenizer.ggml.model").is_none() {
        metadata.insert("tokenizer.ggml.model", "no_vocab"); // what llama.cpp calls its absence
    }
    metadata
}

fn encode(name: &str, matrix: &Matrix, ty: BlockType) -> Result<Vec<u8>, QuantizeError> {
    let in_encode = |source| QuantizeError::Encode { name: name.into(), source };
    if encoders::GGML_TYPES.contains(&ty) {
        return encoders::encode_ggml(ty, matrix).map_err(in_encode);
    }
    Ok(encoders::encode(ty, matrix, Guide::default()).map_err(in_encode)?.0)
}
