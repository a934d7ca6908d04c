//! What a sequence leaves behind: per layer and position, what later tokens need of it. For MLA that is the
//! latent and its rotary key, for grouped-query attention keys and values.

use half::f16;

use crate::kernels::attention::Entries;
use crate::model::Config;
use crate::model::config::AttentionConfig;

/// Precision of cached entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheType {
    /// 4 bytes a number: for comparisons with full precision.
    F32,
    /// 2 bytes a number.
    F16,
}

impl CacheType {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// The cached entries of all layers.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
}

/// The cached entries of one layer, `[positions, width]`.
#[derive(Clone, Debug)]
pub struct LayerCache {
    width: usize,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    F32(Vec<f32>),
    F16(Vec<[u8; 2]>),
}

impl KvCache {
    /// An empty cache for a model.
    pub fn new(config: &Config, ty: CacheType) -> Self {
        let width = entry_width(config);
        let data = match ty {
            CacheType::F32 => Data::F32(Vec::new()),
            CacheType::F16 => Data::F16(Vec::new()),
        };
        Self { layers: vec![LayerCache { width, data }; config.num_hidden_layers] }
    }

    /// Positions cached.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, LayerCache::len)
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the entries take.
    pub fn bytes(&self) -> usize {
        let bytes = |layer: &LayerCache| match &layer.data {
            Data::F32(data) => data.capacity() * 4,
            Data::F16(data) => data.capacity() * 2,
        };
        self.layers.iter().map(bytes).sum()
    }

    /// Forgets all positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            match &mut layer.data {
                Data::F32(data) => data.truncate(len * layer.width),
                Data::F16(data) => data.truncate(len * layer.width),
            }
        }
    }

    /// The entries of one layer.
    pub fn layer(&mut self, layer: usize) -> &mut LayerCache {
        &mut self.layers[layer]
    }
}

/// Numbers that a layer keeps of a position.
pub fn entry_width(config: &Config) -> usize {
    match &config.attention {
        AttentionConfig::Mla(mla) => mla.kv_lora_rank + mla.qk_rope_head_dim,
        AttentionConfig::Grouped(gqa) => 2 * gqa.num_key_value_heads * gqa.head_dim,
    }
}

impl LayerCache {
    /// Positions cached.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::F32(data) => data.len() / self.width,
            Data::F16(data) => data.len() / self.width,
        }
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds positions, `[tokens, width]`.
    pub fn push(&mut self, entries: &[f32]) {
        match &mut self.data {
            Data::F32(data) => data.extend_from_slice(entries),
            Data::F16(data) => data.extend(entries.iter().map(|&x| f16::from_f32(x).to_le_bytes())),
        }
    }

    /// All positions.
    pub fn entries(&self) -> Entries<'_> {
        match &self.data {
            Data::F32(data) => Entries::F32(data),
            Data::F16(data) => Entries::F16(data),
        }
    }
}
