//! A Hugging Face folder as a source of weights: `config.json` and safetensors.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::Value as Json;
use vaquita_runtime::blocks::{BlockType, Matrix};
use vaquita_runtime::bytes::{Bytes, file};
use vaquita_runtime::checkpoint::accounting::account;
use vaquita_runtime::checkpoint::families::{config_from_hf, text_config};
use vaquita_runtime::checkpoint::{
    Axis, Config, Expert, ExpertId, ExpertSpec, HfExpert, HfTensor, LayerId, Picked, Projection,
    TensorSpec, Weights, WeightsError,
};

use super::quantized::{self, Method, Quantized, check_shape, type_error};
use super::shards::{Shards, Stored};
use super::{Identity, SourceError, rearrange};

mod stacks;

/// Largest config.json that is read, in bytes.
pub const CONFIG_BYTES: u64 = 16 << 20;

/// The output head.
const OUTPUT: &str = "lm_head.weight";

const ALLOWED: &str = "F64, F32, F16, BF16, and codes with scales beside them";

/// An open checkpoint folder: headers are read and checked, weights are mapped and read on demand.
pub struct HfFolder {
    path: PathBuf,
    config: Config,
    method: Method,
    shards: Shards,
    left_out: Vec<String>,
}

impl HfFolder {
    /// Opens a folder and checks that every tensor of the model is present with the right shape and
    /// a readable type, so that long work does not fail late.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SourceError> {
        let path = path.as_ref().to_path_buf();
        let config_path = path.join("config.json");
        if let Some(first) = first_gguf(&path).filter(|_| !config_path.exists()) {
            return Err(SourceError::GgufFolder { folder: path, first });
        }
        let text = file::read(&config_path, CONFIG_BYTES)
            .map_err(|source| SourceError::Io { path: config_path.clone(), source })?;
        let json: Json = serde_json::from_slice(&text)
            .map_err(|source| SourceError::Json { path: config_path.clone(), source })?;
        let in_config = |source| SourceError::Config { path: config_path.clone(), source };
        let mut config = config_from_hf(&json).map_err(in_config)?;
        let method = Method::of(&json).map_err(in_config)?;
        let mut shards = Shards::open(&path)?;
        let mut left_out = shards.use_usual_names();
        if std::ptr::eq(text_config(&json), &json) {
            left_out.clear(); // nothing around the language model
        }
        // Where the configuration does not say whether the output head is the embedding, the head
        // does.
        if !states_ties(&json) {
            config.tie_word_embeddings = !quantized::is_stored(&shards, OUTPUT);
        }
        // transformers does not save MTP layers, but leaves their number in the configuration.
        let layers = config.num_hidden_layers..config.num_layers_stored();
        let prefix = |layer: &usize| config.family.layer_prefix(&config, *layer);
        let stored = layers.take_while(|layer| shards.has_prefix(&prefix(layer)));
        config.num_nextn_predict_layers = stored.count();
        let mut folder = Self { path, config, method, shards, left_out };
        let mut used = folder.used()?;
        folder.left_out.retain(|name| !used.contains(name));
        used.extend(folder.left_out.iter().cloned());
        folder.check_unused(&used)?;
        Ok(folder)
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors outside of the language model, which are left out: those of a tower
    /// that sees, for example.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Size of configuration and weights in bytes.
    pub fn file_bytes(&self) -> u64 {
        let config = std::fs::metadata(self.path.join("config.json")).map_or(0, |file| file.len());
        config + self.shards.bytes()
    }

    /// Identity of the folder, for files made from it.
    pub fn identity(&self) -> Result<Identity, SourceError> {
        let mut files = vec![self.path.join("config.json")];
        files.extend(self.shards.paths());
        Identity::new(&self.path, files)
    }

    /// Checks that every tensor of the model is there; returns the names of all that are used.
    fn used(&self) -> Result<HashSet<String>, WeightsError> {
        let config = &self.config;
        let mut used = HashSet::new();
        for spec in config.family.tensors(config) {
            let Some((name, shape)) = stored_as(&spec) else { continue };
            if quantized::is_stored(&self.shards, name) || !spec.optional {
                used.extend(self.stored(name, &shape)?.names(name));
            }
        }
        for layer in (0..config.num_layers_stored()).filter(|layer| config.is_moe(*layer)) {
            for expert in 0..config.moe.n_routed_experts {
                let spec = config.family.expert(config, LayerId(layer), ExpertId(expert));
                let names = match &spec.hf {
                    HfExpert::Separate(names) => names,
                    HfExpert::Joined(names) => {
                        used.extend(self.checked_joined(names, &spec)?);
                        continue;
                    }
                    HfExpert::Stacked(prefix) => {
                        used.extend(self.names_of_stacks(prefix, &spec)?);
                        continue;
                    }
                };
                if let Some(joined) = self.joined_instead(names, spec.expert) {
                    used.extend(self.checked_joined(&joined, &spec)?);
                    continue;
                }
                for (name, projection) in names.iter().zip(Projection::ALL) {
                    let (rows, cols) = spec.shape(projection);
                    used.extend(self.stored(name, &[rows, cols])?.names(name));
                }
            }
        }
        Ok(used)
    }

    /// Refuses tensors that the model does not use.
    fn check_unused(&self, used: &HashSet<String>) -> Result<(), WeightsError> {
        let tied = self.config.tie_word_embeddings && self.head_is_embedding();
        account(&self.path, self.shards.names(), |name| {
            used.contains(name)
                || (tied && name == OUTPUT)
                || quantized::is_of_activations(name)
                || self.config.is_spare(name)
                || self.is_uncounted_mtp(name)
        })
    }

    /// Whether the output head that a tied checkpoint holds nevertheless is its embedding.
    fn head_is_embedding(&self) -> bool {
        let bytes = |name| self.shards.get(name).map(|stored| stored.bytes);
        let [head, embedding] = [OUTPUT, "model.embed_tokens.weight"].map(bytes);
        let same = head.is_some() && head.as_deref() == embedding.as_deref();
        head.into_iter().chain(embedding).for_each(|bytes| bytes.release());
        same
    }

    /// Whether a tensor belongs to a multi-token-prediction layer that the configuration does not
    /// count.
    fn is_uncounted_mtp(&self, name: &str) -> bool {
        // ERNIE's are beside the layers, and transformers ignores them, too.
        if name.starts_with("model.mtp_") {
            return true;
        }
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
        let Some(layer) = layer.and_then(|layer| layer.parse::<usize>().ok()) else { return false };
        let projection = format!("model.layers.{layer}.eh_proj.weight");
        layer >= self.config.num_layers_stored() && self.shards.get(&projection).is_some()
    }

    fn missing(&self, name: &str) -> WeightsError {
        WeightsError::Missing { path: self.path.clone(), name: name.into() }
    }

    /// A stored tensor with verified shape and type.
    fn stored(&self, name: &str, expected: &[usize]) -> Result<Found<'_>, WeightsError> {
        if let &[rows, cols] = expected
            && let Some(found) =
                quantized::find(&self.shards, &self.method, &self.path, name, [rows, cols])?
        {
            return Ok(Found::Quantized(found));
        }
        let stored = self.shards.get(name).ok_or_else(|| self.missing(name))?;
        check_shape(&stored, name, expected)?;
        match (block_type(stored.dtype), stored.dtype) {
            (Some(ty), _) => Ok(Found::Plain(stored, ty)),
            (None, Dtype::F64) => Ok(Found::Double(stored)),
            _ => Err(type_error(&stored, name, ALLOWED)),
        }
    }

    /// Reads a stored tensor as block type and bytes: plain types unchanged, F64 as F32, and codes
    /// as the weights that they stand for. With `keep_blocks`, codes that a block type holds stay.
    fn read(
        &self,
        name: &str,
        shape: &[usize],
        keep_blocks: bool,
    ) -> Result<(BlockType, Bytes), WeightsError> {
        Ok(match self.stored(name, shape)? {
            Found::Plain(stored, ty) => (ty, stored.bytes),
            Found::Double(stored) => {
                let eights = stored.bytes.as_chunks::<8>().0.iter();
                let single = |bytes: &[u8; 8]| (f64::from_le_bytes(*bytes) as f32).to_le_bytes();
                let bytes: Vec<u8> = eights.flat_map(single).collect();
                stored.bytes.release();
                (BlockType::F32, bytes.into())
            }
            Found::Quantized(found) => {
                let (ty, bytes) = found.read(keep_blocks);
                (ty, bytes.into())
            }
        })
    }

    fn matrix(
        &self,
        name: &str,
        ty: BlockType,
        [rows, cols]: [usize; 2],
        bytes: Bytes,
    ) -> Result<Matrix, WeightsError> {
        Matrix::new(ty, rows, cols, bytes).map_err(|source| WeightsError::Matrix {
            path: self.path.clone(),
            name: name.into(),
            source,
        })
    }
}

impl Weights for HfFolder {
    fn config(&self) -> &Config {
        &self.config
    }

    fn tensor(&self, spec: &TensorSpec) -> Result<Option<Matrix>, WeightsError> {
        let shape = [spec.rows, spec.cols];
        let Some((name, stored_shape)) = stored_as(spec) else {
            let HfTensor::Made(values) = &spec.hf else { return Err(self.missing(&spec.name)) };
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            return self.matrix(&spec.name, BlockType::F32, shape, bytes.into()).map(Some);
        };
        if spec.optional && !quantized::is_stored(&self.shards, name) {
            return Ok(None);
        }
        let (ty, stored) = self.read(name, &stored_shape, false)?;
        if let HfTensor::Applied(_, function, order) = &spec.hf {
            let numbers = rearrange::in_order(decoded(ty, &stored), order);
            let bytes: Vec<u8> =
                numbers.into_iter().flat_map(|x| function.of(x).to_le_bytes()).collect();
            stored.release();
            return self.matrix(name, BlockType::F32, shape, bytes.into()).map(Some);
        }
        let width = if ty == BlockType::F32 { 4 } else { 2 };
        let bytes = stored.clone();
        let bytes = match &spec.hf {
            HfTensor::Whole(_) | HfTensor::Made(_) | HfTensor::Applied(..) => bytes,
            HfTensor::Picked(_, picked) => {
                let cols = stored_shape[1];
                rearrange::picked(&bytes, picked, cols, width).into()
            }
            HfTensor::KvBKey(_, kv_b) => rearrange::kv_b_key(kv_b, &bytes, width).into(),
            HfTensor::KvBValue(_, kv_b) => rearrange::kv_b_value(kv_b, &bytes, width).into(),
            // A bias is a matrix of one row, but its elements belong to rows.
            HfTensor::Paired(_, head) if spec.rows == 1 => {
                rearrange::paired(&bytes, *head, width).into()
            }
            HfTensor::Paired(_, head) => rearrange::paired(&bytes, *head, spec.cols * width).into(),
            HfTensor::EverySecond(_, first) => {
                rearrange::every_second(&bytes, *first, width).into()
            }
        };
        if !matches!(spec.hf, HfTensor::Whole(_)) {
            stored.release(); // what was made of it is a copy
        }
        self.matrix(name, ty, shape, bytes).map(Some)
    }

    fn expert(&self, spec: &ExpertSpec) -> Result<Expert, WeightsError> {
        let names = match &spec.hf {
            HfExpert::Separate(names) => names,
            HfExpert::Stacked(prefix) => return self.stacked_expert(prefix, spec),
            HfExpert::Joined(names) => return self.joined_expert(names, spec),
        };
        if let Some(joined) = self.joined_instead(names, spec.expert) {
            return self.joined_expert(&joined, spec);
        }
        let projection = |projection| {
            let (rows, cols) = spec.shape(projection);
            let name = &names[projection as usize];
            let (ty, bytes) = self.read(name, &[rows, cols], true)?;
            self.matrix(name, ty, [rows, cols], bytes)
        };
        Ok(Expert {
            gate: projection(Projection::Gate)?,
            up: projection(Projection::Up)?,
            down: projection(Projection::Down)?,
        })
    }

    fn check(&self) -> Result<(), WeightsError> {
        self.used().map(drop)
    }
}

/// A tensor as it is stored.
enum Found<'a> {
    Plain(Stored<'a>, BlockType),
    /// F64, which becomes F32.
    Double(Stored<'a>),
    Quantized(Quantized<'a>),
}

impl Found<'_> {
    /// Names of the tensors that it consists of.
    fn names(self, name: &str) -> Vec<String> {
        match self {
            Self::Plain(..) | Self::Double(_) => vec![name.into()],
            Self::Quantized(found) => found.names,
        }
    }
}

/// Name and shape in the checkpoint of the tensor that `spec` is derived from; `None` if it is not
/// derived from a stored tensor.
fn stored_as(spec: &TensorSpec) -> Option<(&str, Vec<usize>)> {
    match &spec.hf {
        HfTensor::Whole(name) | HfTensor::Paired(name, _) => {
            Some((name, vec![spec.rows, spec.cols]))
        }
        HfTensor::Applied(name, ..) => Some((name, vec![spec.rows * spec.cols])),
        HfTensor::Picked(name, Picked { axis: Axis::Rows, stored, .. }) => {
            Some((name, vec![*stored, spec.cols]))
        }
        HfTensor::Picked(name, Picked { axis: Axis::Columns, stored, .. }) => {
            Some((name, vec![spec.rows, *stored]))
        }
        HfTensor::EverySecond(name, _) => Some((name, vec![spec.rows, 2 * spec.cols])),
        HfTensor::KvBKey(name, kv_b) | HfTensor::KvBValue(name, kv_b) => {
            Some((name, rearrange::kv_b_shape(kv_b).to_vec()))
        }
        HfTensor::Made(_) => None,
    }
}

fn block_type(dtype: Dtype) -> Option<BlockType> {
    match dtype {
        Dtype::F32 => Some(BlockType::F32),
        Dtype::F16 => Some(BlockType::F16),
        Dtype::BF16 => Some(BlockType::BF16),
        _ => None,
    }
}

/// Numbers of a plain type.
fn decoded(ty: BlockType, bytes: &[u8]) -> Vec<f32> {
    let pairs = bytes.as_chunks::<2>().0.iter();
    match ty {
        BlockType::F16 => pairs.map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        BlockType::BF16 => pairs.map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        _ => {
            let fours = bytes.as_chunks::<4>().0.iter();
            fours.map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
    }
}

/// The first GGUF file of a folder, by name.
fn first_gguf(folder: &Path) -> Option<String> {
    let names = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.to_lowercase().ends_with(".gguf")).min()
}

/// Whether `config.json` says whether the output head is the embedding, under any name of the key.
fn states_ties(json: &Json) -> bool {
    let states = |json: &Json, key: &str| json.get(key).is_some_and(|value| !value.is_null());
    let names = ["tie_word_embeddings", "tie_embedding"];
    [json, text_config(json)].iter().any(|json| names.iter().any(|key| states(json, key)))
}
