//! Safetensors files of a checkpoint: a single file, or an index and shards.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use vaquita_runtime::bytes::{Bytes, file};

use super::SourceError;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Largest index that is read, in bytes.
const INDEX_BYTES: u64 = 256 << 20;

/// All tensors of a checkpoint by name.
pub(super) struct Shards {
    shards: Vec<Shard>,
    tensors: HashMap<String, Entry>,
}

struct Shard {
    path: PathBuf,
    bytes: Bytes,
}

struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// A stored tensor.
pub(super) struct Stored<'a> {
    pub path: &'a Path,
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub bytes: Bytes,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Maps the files of a folder and checks their headers.
    pub fn open(folder: &Path) -> Result<Self, SourceError> {
        let index_path = folder.join(INDEX);
        if index_path.exists() {
            return Self::from_index(folder, &index_path);
        }
        let path = folder.join(SINGLE);
        if !path.exists() {
            return Err(SourceError::NoWeights { folder: folder.to_path_buf() });
        }
        let mut all = Self { shards: Vec::new(), tensors: HashMap::new() };
        all.tensors = all.add(path)?;
        Ok(all)
    }

    fn from_index(folder: &Path, index_path: &Path) -> Result<Self, SourceError> {
        let text = file::read(index_path, INDEX_BYTES)
            .map_err(|source| SourceError::Io { path: index_path.to_path_buf(), source })?;
        let index: Index = serde_json::from_slice(&text)
            .map_err(|source| SourceError::Json { path: index_path.to_path_buf(), source })?;
        let mut by_shard = BTreeMap::<&str, Vec<&str>>::new();
        for (tensor, shard) in &index.weight_map {
            by_shard.entry(shard).or_default().push(tensor);
        }
        let mut all = Self { shards: Vec::new(), tensors: HashMap::new() };
        for (shard, tensors) in by_shard {
            let mut components = Path::new(shard).components();
            if !components.all(|part| matches!(part, Component::Normal(_))) || shard.is_empty() {
                return Err(SourceError::OutsideFolder {
                    index: index_path.to_path_buf(),
                    tensor: tensors[0].into(),
                    shard: shard.into(),
                });
            }
            let path = folder.join(shard);
            if !path.exists() {
                let (index, tensors) = (index_path.to_path_buf(), tensors.len());
                return Err(SourceError::MissingShard { index, path, tensors });
            }
            let mut found = all.add(path.clone())?;
            for tensor in tensors {
                let Some(entry) = found.remove(tensor) else {
                    return Err(SourceError::NotInShard { path, tensor: tensor.into() });
                };
                all.tensors.insert(tensor.into(), entry);
            }
        }
        Ok(all)
    }

    /// Maps one file and returns its tensors.
    fn add(&mut self, path: PathBuf) -> Result<HashMap<String, Entry>, SourceError> {
        let io = |source| SourceError::Io { path: path.clone(), source };
        let bytes = Bytes::map(&file::open(&path).map_err(io)?).map_err(io)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes)
            .map_err(|source| SourceError::Shard { path: path.clone(), source })?;
        // The crate has checked that the header and all extents lie within the file.
        let start = header + size_of::<u64>();
        let tensors = metadata.tensors().into_iter().map(|(name, info)| {
            let range = start + info.data_offsets.0..start + info.data_offsets.1;
            let (dtype, shape) = (info.dtype, info.shape.clone());
            (name, Entry { shard: self.shards.len(), dtype, shape, range })
        });
        let tensors = tensors.collect();
        self.shards.push(Shard { path, bytes });
        Ok(tensors)
    }

    /// The tensor with that name, if the checkpoint has it.
    pub fn get(&self, name: &str) -> Option<Stored<'_>> {
        let entry = self.tensors.get(name)?;
        let shard = self.shards.get(entry.shard)?;
        let bytes = shard.bytes.slice(entry.range.clone())?;
        Some(Stored { path: &shard.path, dtype: entry.dtype, shape: &entry.shape, bytes })
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Gives the language model's tensors their usual names where they are below another prefix
    /// than
    /// `model.` (`language_model.model.`, `model.language_model.`, or none). Returns the names of
    /// tensors
    /// outside of it, such as those of a tower that sees.
    pub fn use_usual_names(&mut self) -> Vec<String> {
        const USUAL: &str = "model.";
        const EMBEDDINGS: [&str; 2] = ["embed_tokens.weight", "word_embeddings.weight"];
        let before = |name: &str| {
            let prefix = EMBEDDINGS.iter().find_map(|embedding| name.strip_suffix(embedding))?;
            (prefix.is_empty() || prefix.ends_with('.')).then(|| prefix.to_string())
        };
        let embedding = |name: &&String| {
            let layer = name.starts_with("layers.") || name.contains(".layers.");
            !layer && before(name).is_some()
        };
        let prefix = |name: &String| before(name).unwrap_or_default();
        let mut prefixes: Vec<String> = self.tensors.keys().filter(embedding).map(prefix).collect();
        prefixes.sort_unstable();
        let prefix = match &prefixes[..] {
            [prefix] => prefix.clone(),
            _ => USUAL.into(),
        };
        let usual = |name: &str| match name.strip_prefix(&prefix) {
            _ if name.ends_with(".lm_head.weight") => Some("lm_head.weight".into()),
            _ if name == "lm_head.weight" => Some(name.into()),
            Some(rest) => Some(format!("{USUAL}{}", usual_in_layer(rest))),
            None => None,
        };
        let stored = std::mem::take(&mut self.tensors);
        let free = |usual: &String, name: &String| usual == name || !stored.contains_key(usual);
        let names: Vec<Option<String>> =
            stored.keys().map(|name| usual(name).filter(|usual| free(usual, name))).collect();
        let mut towers = Vec::new();
        for ((name, entry), usual) in stored.into_iter().zip(names) {
            let name = usual.unwrap_or_else(|| {
                towers.push(name.clone());
                name
            });
            self.tensors.insert(name, entry);
        }
        towers
    }

    /// Whether any tensor's name has that prefix.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(prefix))
    }

    /// Size of the files in bytes.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes.len() as u64).sum()
    }

    /// Paths of the files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.shards.iter().map(|shard| shard.path.clone()).collect()
    }
}

/// The usual name of a tensor that has two. transformers saves the feed-forward of Kimi-Linear's
/// layers without experts below the module of experts, and the output projections of Ling 3's
/// recurrent layers under the name of the others.
fn usual_in_layer(name: &str) -> String {
    const PAIRS: [[&str; 2]; 4] = [
        ["block_sparse_moe.gate_proj.weight", "mlp.gate_proj.weight"],
        ["block_sparse_moe.up_proj.weight", "mlp.up_proj.weight"],
        ["block_sparse_moe.down_proj.weight", "mlp.down_proj.weight"],
        [".attention.o_proj.weight", ".attention.dense.weight"],
    ];
    let renamed =
        |[other, usual]: &[&str; 2]| Some(format!("{}{usual}", name.strip_suffix(other)?));
    PAIRS.iter().find_map(renamed).unwrap_or_else(|| name.into())
}
