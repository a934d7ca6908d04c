//! The `vaquita.*` metadata of an expert-major file: types and checksums (docs/format.md).

use std::collections::HashMap;
use std::path::Path;

use super::gguf_weights::OpenError;
use super::{Config, ExpertId, LayerId};
use crate::blocks::BlockType;
use crate::gguf::Gguf;

/// Contents of the `vaquita.*` metadata.
pub(super) struct StoredLayout {
    /// Type, rows and columns of coded tensors other than routed experts.
    pub tensors: HashMap<String, (BlockType, usize, usize)>,
    /// Types of gate, up and down by layer and expert.
    pub experts: HashMap<(LayerId, ExpertId), [BlockType; 3]>,
    /// CRC-32 of each tensor, in file order; empty if the file has none.
    pub checksums: Vec<u32>,
}

impl StoredLayout {
    /// Reads it, and compares it with the configuration and the tensors of the file.
    pub fn read(path: &Path, config: &Config, gguf: &Gguf) -> Result<Self, OpenError> {
        let metadata = gguf.metadata();
        let problem = |key: &str, problem: String| OpenError::Layout {
            path: path.to_path_buf(),
            key: key.into(),
            problem,
        };
        let names = metadata.strings("vaquita.tensor.names")?.unwrap_or_default();
        let types = metadata.strings("vaquita.tensor.types")?.unwrap_or_default();
        let shapes = metadata.u64s("vaquita.tensor.shapes")?.unwrap_or_default();
        if names.len() != types.len() || names.len() * 2 != shapes.len() {
            let found = format!(
                "lists {} names, {} types, {} extents",
                names.len(),
                types.len(),
                shapes.len()
            );
            return Err(problem("vaquita.tensor.names", found));
        }
        let mut tensors = HashMap::new();
        for ((name, ty), shape) in names.iter().zip(types).zip(shapes.chunks_exact(2)) {
            let ty = BlockType::from_name(ty).ok_or_else(|| {
                problem("vaquita.tensor.types", format!("names the unknown type {ty:?}"))
            })?;
            tensors.insert(name.clone(), (ty, shape[0] as usize, shape[1] as usize));
        }

        let ids = metadata.bytes("vaquita.expert.types")?.unwrap_or_default();
        let layers: Vec<usize> =
            (0..config.num_layers_stored()).filter(|&l| config.is_moe(l)).collect();
        let expected = layers.len() * config.moe.n_routed_experts * 3;
        if ids.len() != expected {
            let found = format!("has {} entries; the model needs {expected}", ids.len());
            return Err(problem("vaquita.expert.types", found));
        }
        let mut experts = HashMap::new();
        for (i, ids) in ids.chunks_exact(3).enumerate() {
            let layer = LayerId(layers[i / config.moe.n_routed_experts]);
            let expert = ExpertId(i % config.moe.n_routed_experts);
            let mut types = [BlockType::F32; 3];
            for (ty, &id) in types.iter_mut().zip(ids) {
                *ty = BlockType::from_id(id).ok_or_else(|| {
                    problem("vaquita.expert.types", format!("has the unknown type {id}"))
                })?;
            }
            experts.insert((layer, expert), types);
        }

        let checksums = metadata.u32s("vaquita.record.crc32")?.unwrap_or_default();
        if !checksums.is_empty() && checksums.len() != gguf.tensors().len() {
            let found =
                format!("has {} entries for {} tensors", checksums.len(), gguf.tensors().len());
            return Err(problem("vaquita.record.crc32", found));
        }
        Ok(Self { tensors, experts, checksums })
    }
}
