//! Contents and size of an expert-major file, in file order, determined before any weight is
//! encoded.
//!
//! The layout is described in docs/format.md; the runtime's `gguf_weights` reads it.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::gguf_weights::{LAYOUT_VERSION, record_layout};
use vaquita_runtime::checkpoint::{
    Config, ExpertSpec, LayerId, Projection, TensorSpec, Weights, WeightsError,
};
use vaquita_runtime::gguf::{
    ALIGNMENT_KEY, GgmlType, GgufError, GgufWriter, HEADER_CHECKSUM_KEY, Metadata, TensorPlan,
};

use crate::labels;
use crate::plan::types::{Plan, expert_layers, expert_specs};
use crate::sources::Identity;

/// `general.alignment`: every record starts on a page.
pub const ALIGNMENT: u64 = 4096;
/// Key of the checksums, one per tensor in file order.
pub const CHECKSUMS_KEY: &str = "vaquita.record.crc32";

const GGML_I8: GgmlType = GgmlType(24);

/// Error of laying out a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// A type that cannot hold a shape, or a size that overflows.
    #[error("the file cannot be laid out: {found}")]
    Layout {
        /// The problem.
        found: String,
    },
    /// The header cannot be written.
    #[error(transparent)]
    Gguf(#[from] GgufError),
}

/// The tensors of a source.
pub struct Inventory<'a> {
    /// Configuration of the model.
    pub config: &'a Config,
    /// Tensors that are not routed experts, without absent optional ones.
    pub tensors: Vec<TensorSpec>,
    /// Number of weights of the model, including vectors.
    pub parameters: u64,
}

impl<'a> Inventory<'a> {
    /// Checks which optional tensors the source has.
    pub fn new(weights: &'a dyn Weights) -> Result<Self, WeightsError> {
        let config = weights.config();
        let mut tensors = Vec::new();
        for spec in config.family.tensors(config) {
            // A tensor that cannot be read is there; whoever reads it learns why it cannot be.
            if !spec.optional || !matches!(weights.tensor(&spec), Ok(None)) {
                tensors.push(spec);
            }
        }
        let dense: u64 = tensors.iter().map(|spec| spec.rows as u64 * spec.cols as u64).sum();
        let layers = expert_layers(config);
        let experts = layers.flat_map(|layer| expert_specs(config, layer));
        let parameters = dense + experts.map(|spec| expert_parameters(&spec)).sum::<u64>();
        Ok(Self { config, tensors, parameters })
    }
}

/// Number of weights of one expert.
pub fn expert_parameters(spec: &ExpertSpec) -> u64 {
    3 * spec.hidden_size as u64 * spec.intermediate_size as u64
}

/// Rounds a length up to the start of the next record.
pub fn padded(len: u64) -> u64 {
    len.next_multiple_of(ALIGNMENT)
}

/// A tensor of the file and its contents.
#[derive(Clone, Debug)]
pub enum Item {
    /// A tensor and its type.
    Tensor(TensorSpec, BlockType),
    /// The record of an expert and the types of its projections.
    Expert(ExpertSpec, [BlockType; 3]),
}

impl Item {
    /// Name in the file.
    pub fn name(&self) -> String {
        match self {
            Self::Tensor(spec, _) => spec.name.clone(),
            Self::Expert(spec, _) => spec.record_name(),
        }
    }

    /// Layer; `None` for embedding and output head.
    pub fn layer(&self) -> Option<usize> {
        match self {
            Self::Tensor(spec, _) => spec.layer(),
            Self::Expert(spec, _) => Some(spec.layer.0),
        }
    }

    /// Type, or those of gate, up and down if they differ.
    pub fn type_name(&self) -> String {
        match self {
            Self::Tensor(_, ty) => ty.name().into(),
            Self::Expert(_, [gate, up, down]) if gate == up && up == down => gate.name().into(),
            Self::Expert(_, types) => types.map(BlockType::name).join(" "),
        }
    }

    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        match self {
            Self::Tensor(spec, _) => spec.rows as u64 * spec.cols as u64,
            Self::Expert(spec, _) => expert_parameters(spec),
        }
    }
}

/// Layout of a file to be written.
pub struct Layout {
    /// All metadata; checksums are still zero.
    pub metadata: Metadata,
    /// Entries of the header for each tensor.
    pub tensors: Vec<TensorPlan>,
    /// Contents of each tensor.
    pub items: Vec<Item>,
    /// Bytes of the whole file.
    pub file_bytes: u64,
}

impl Layout {
    /// Lays out the file that a plan describes.
    pub fn new(
        inventory: &Inventory,
        identity: &Identity,
        tokenizer: &Metadata,
        plan: &Plan,
    ) -> Result<Self, ContainerError> {
        let config = inventory.config;
        let (mut items, mut tensors, mut coded) = (Vec::new(), Vec::new(), Coded::default());
        let layers = (0..config.num_layers_stored()).map(Some);
        // Tensors without a layer come last, like the output head in the forward pass.
        for layer in layers.chain([None]) {
            for spec in inventory.tensors.iter().filter(|spec| spec.layer() == layer) {
                let ty = plan.tensor_type(spec);
                let (rows, cols) = (spec.rows, spec.cols);
                let bytes = ty.byte_len(rows, cols).ok_or_else(|| unfit(&spec.name))?;
                let (dims, ggml) = match GgmlType::of(ty) {
                    Some(plain) if rows == 1 => (vec![cols as u64], plain),
                    Some(plain) => (vec![cols as u64, rows as u64], plain),
                    None => {
                        coded.names.push(spec.name.clone());
                        coded.types.push(ty.name().to_string());
                        coded.shapes.extend([rows as u64, cols as u64]);
                        (vec![bytes as u64], GGML_I8)
                    }
                };
                tensors.push(TensorPlan { name: spec.name.clone(), dims, ty: ggml });
                items.push(Item::Tensor(spec.clone(), ty));
            }
            let Some(layer) = layer.filter(|layer| config.is_moe(*layer)).map(LayerId) else {
                continue;
            };
            for spec in expert_specs(config, layer) {
                let name = spec.record_name();
                let types = plan.expert_types(layer, spec.expert).ok_or_else(|| unfit(&name))?;
                let shapes = Projection::ALL.map(|projection| spec.shape(projection));
                let (_, len) = record_layout(types, shapes).ok_or_else(|| unfit(&name))?;
                coded.experts.extend(types.map(|ty| ty as u8));
                tensors.push(TensorPlan { name, dims: vec![len as u64], ty: GGML_I8 });
                items.push(Item::Expert(spec, types));
            }
        }
        let mut metadata = metadata(inventory, identity, tokenizer, plan, coded, tensors.len());
        metadata.insert("general.file_type", labels::file_type(prevailing(&items)));
        let file_bytes = file_bytes(&metadata, &tensors)?;
        Ok(Self { metadata, tensors, items, file_bytes })
    }

    /// Fingerprint of everything but the weights: jobs whose files may differ have different
    /// fingerprints.
    pub fn fingerprint(&self) -> Result<String, ContainerError> {
        fingerprint(&self.metadata, &self.tensors)
    }

    /// Writes a file that has the header and the length of the whole, and holes instead of weights:
    /// enough to plan how the file would run.
    pub fn write_header(&self, path: &Path) -> Result<(), ContainerError> {
        let io = |source| GgufError::Io { path: path.into(), source };
        let file = File::create(path).map_err(io)?;
        let mut writer = GgufWriter::new(file, path, &self.metadata, self.tensors.clone())?;
        writer.skip(self.tensors.len())?;
        Ok(writer.finish()?.set_len(self.file_bytes).map_err(io)?)
    }

    /// Offset at which the first `items` items end, including padding and header; `None` if there
    /// are fewer items.
    pub fn end_of(&self, items: usize) -> Option<u64> {
        let rest = self.tensors.get(items..)?.iter();
        let rest = rest.map(|tensor| tensor.ty.byte_len(&tensor.dims).map_or(0, padded));
        Some(self.file_bytes.saturating_sub(rest.sum()))
    }
}

fn unfit(name: &str) -> ContainerError {
    ContainerError::Layout { found: format!("{name} does not fit its type") }
}

/// Metadata lists that describe the opaque tensors.
#[derive(Default)]
struct Coded {
    names: Vec<String>,
    types: Vec<String>,
    shapes: Vec<u64>,
    experts: Vec<u8>,
}

/// The type of most weights.
fn prevailing(items: &[Item]) -> BlockType {
    let mut weights = [0u64; u8::MAX as usize + 1];
    for item in items {
        match item {
            Item::Tensor(_, ty) => weights[*ty as usize] += item.parameters(),
            Item::Expert(_, types) => {
                types.iter().for_each(|ty| weights[*ty as usize] += item.parameters() / 3);
            }
        }
    }
    BlockType::ALL.into_iter().max_by_key(|ty| weights[*ty as usize]).unwrap_or(BlockType::F32)
}

fn metadata(
    inventory: &Inventory,
    identity: &Identity,
    tokenizer: &Metadata,
    plan: &Plan,
    coded: Coded,
    tensors: usize,
) -> Metadata {
    let config = inventory.config;
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", config.family.architecture());
    metadata.insert("general.name", identity.name.as_str());
    metadata.insert("general.size_label", labels::size_label(config, inventory.parameters));
    metadata.insert("general.quantized_by", labels::QUANTIZED_BY);
    metadata.insert(ALIGNMENT_KEY, ALIGNMENT as u32);
    config.family.write_metadata(config, &mut metadata);
    // Even without a tokenizer, the source names the tokens at which texts begin and end.
    if let Some(bos) = config.bos_token_id {
        metadata.insert("tokenizer.ggml.bos_token_id", bos);
    }
    if let Some(eos) = config.eos_token_ids.first() {
        metadata.insert("tokenizer.ggml.eos_token_id", *eos);
    }
    for (key, value) in tokenizer.iter() {
        metadata.insert(key, value.clone());
    }
    metadata.insert("vaquita.version", LAYOUT_VERSION);
    metadata.insert(HEADER_CHECKSUM_KEY, 0u32); // the writer computes it
    metadata.insert("vaquita.quantizer", labels::QUANTIZED_BY);
    metadata.insert("vaquita.plan", plan.name());
    if let Some(calibration) = &identity.calibration {
        metadata.insert("vaquita.calibration", calibration.as_str());
    }
    metadata.insert("vaquita.source.name", identity.name.as_str());
    metadata.insert("vaquita.source.bytes", identity.bytes);
    metadata.insert("vaquita.source.fingerprint", identity.fingerprint.as_str());
    metadata.insert("vaquita.tensor.names", coded.names);
    metadata.insert("vaquita.tensor.types", coded.types);
    metadata.insert("vaquita.tensor.shapes", coded.shapes);
    metadata.insert("vaquita.expert.types", coded.experts);
    metadata.insert(CHECKSUMS_KEY, vec![0u32; tensors]);
    metadata
}

/// Checksum of a header.
pub(crate) fn fingerprint(
    metadata: &Metadata,
    tensors: &[TensorPlan],
) -> Result<String, ContainerError> {
    let header = header(metadata, tensors)?;
    Ok(format!("crc32:{:08x} of {} bytes", crc32fast::hash(&header), header.len()))
}

/// Bytes of a whole file.
pub(crate) fn file_bytes(
    metadata: &Metadata,
    tensors: &[TensorPlan],
) -> Result<u64, ContainerError> {
    let header = header(metadata, tensors)?.len() as u64;
    let mut sizes = tensors.iter().map(|tensor| tensor.ty.byte_len(&tensor.dims).map(padded));
    let sum = sizes.try_fold(header, |sum, len| sum.checked_add(len?));
    sum.ok_or_else(|| unfit("the file"))
}

/// The bytes before the first tensor.
fn header(metadata: &Metadata, tensors: &[TensorPlan]) -> Result<Vec<u8>, GgufError> {
    let mut header = Cursor::new(Vec::new());
    GgufWriter::new(&mut header, Path::new("header"), metadata, tensors.to_vec())?;
    Ok(header.into_inner())
}
