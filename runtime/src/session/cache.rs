//! What a sequence leaves behind: per layer and position, what later tokens need of it. For MLA that is the
//! latent and its rotary key, for grouped-query attention keys and values, for a short convolution the last few
//! inputs.

use half::f16;

use crate::kernels::attention::Entries;
use crate::model::Config;
use crate::model::config::{AttentionConfig, LayerType};

/// Positions of a convolution that are kept besides those that the next token needs, so that a sequence can be
/// taken back a little.
const KEPT_FOR_CONV: usize = 64;

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
    /// Positions that the next token needs, where it does not need all.
    needed: Option<usize>,
    /// Positions that are no longer kept.
    dropped: usize,
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
        let layer = |layer| {
            let data = match ty {
                CacheType::F32 => Data::F32(Vec::new()),
                CacheType::F16 => Data::F16(Vec::new()),
            };
            let needed = needed_positions(config, layer);
            LayerCache { width: entry_width(config, layer), needed, dropped: 0, data }
        };
        Self { layers: (0..config.num_hidden_layers).map(layer).collect() }
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

    /// Forgets positions from `len` on, and gives how many remain: `len`, or none where a layer no longer has what
    /// the next token would need.
    pub fn truncate(&mut self, len: usize) -> usize {
        let possible = self.layers.iter().all(|layer| layer.can_go_on_from(len));
        let len = if possible { len } else { 0 };
        for layer in &mut self.layers {
            layer.truncate(len);
        }
        len
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The entries of one layer.
    pub fn layer(&mut self, layer: usize) -> &mut LayerCache {
        &mut self.layers[layer]
    }
}

/// Numbers that a layer keeps of a position.
pub fn entry_width(config: &Config, layer: usize) -> usize {
    match (&config.attention, config.layer_type(layer)) {
        (AttentionConfig::Mla(mla), _) => mla.kv_lora_rank + mla.qk_rope_head_dim,
        (AttentionConfig::Grouped(_), LayerType::Conv) => config.hidden_size,
        (AttentionConfig::Grouped(gqa), _) => 2 * gqa.num_key_value_heads * gqa.head_dim,
    }
}

/// Positions that a layer keeps of a sequence of `context` tokens that is read `chunk` tokens at a time.
pub fn kept_positions(config: &Config, layer: usize, context: usize, chunk: usize) -> usize {
    let kept = needed_positions(config, layer).map(|needed| 2 * (needed + KEPT_FOR_CONV) + chunk);
    context.min(kept.unwrap_or(context))
}

fn needed_positions(config: &Config, layer: usize) -> Option<usize> {
    match (&config.attention, config.layer_type(layer)) {
        (AttentionConfig::Grouped(conv), LayerType::Conv) => Some(conv.conv_l_cache - 1),
        _ => None,
    }
}

impl LayerCache {
    /// Positions of the sequence.
    pub fn len(&self) -> usize {
        self.dropped + self.kept()
    }

    fn kept(&self) -> usize {
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

    /// What the layer holds as bytes, to be taken back by [`LayerCache::restore`].
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::F32(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F16(data) => data.as_flattened().to_vec(),
        }
    }

    /// Takes back what [`LayerCache::to_bytes`] gave after `positions` positions; says whether the bytes are as many
    /// as the next token needs.
    pub fn restore(&mut self, positions: usize, bytes: &[u8]) -> bool {
        let whole = match &mut self.data {
            Data::F32(data) => {
                let (found, rest) = bytes.as_chunks();
                *data = found.iter().map(|x| f32::from_le_bytes(*x)).collect();
                rest.is_empty() && data.len().is_multiple_of(self.width)
            }
            Data::F16(data) => {
                let (found, rest) = bytes.as_chunks();
                *data = found.to_vec();
                rest.is_empty() && data.len().is_multiple_of(self.width)
            }
        };
        let kept = self.kept();
        let needed = self.needed.map_or(positions, |needed| needed.min(positions));
        self.dropped = positions.saturating_sub(kept);
        whole && (needed..=positions).contains(&kept)
    }

    /// All positions, for layers that keep all.
    pub fn entries(&self) -> Entries<'_> {
        match &self.data {
            Data::F32(data) => Entries::F32(data),
            Data::F16(data) => Entries::F16(data),
        }
    }

    /// One position's entry, `[width]`.
    ///
    /// # Panics
    /// Where the position is not kept.
    pub fn read(&self, position: usize, entry: &mut [f32]) {
        let at = (position - self.dropped) * self.width;
        match &self.data {
            Data::F32(data) => entry.copy_from_slice(&data[at..][..self.width]),
            Data::F16(data) => {
                for (x, half) in entry.iter_mut().zip(&data[at..][..self.width]) {
                    *x = f16::from_le_bytes(*half).to_f32();
                }
            }
        }
    }

    /// Lets go of what no token to come will need. Not within a forward pass: it may have to be taken back.
    pub(crate) fn drop_old(&mut self) {
        let Some(needed) = self.needed else { return };
        let keep = needed + KEPT_FOR_CONV;
        let kept = self.kept();
        if kept >= 2 * keep {
            let old = (kept - keep) * self.width;
            match &mut self.data {
                Data::F32(data) => drop(data.drain(..old)),
                Data::F16(data) => drop(data.drain(..old)),
            }
            self.dropped += kept - keep;
        }
    }

    fn can_go_on_from(&self, len: usize) -> bool {
        self.dropped == 0 || len >= self.dropped + self.needed.unwrap_or(0)
    }

    fn truncate(&mut self, len: usize) {
        self.dropped = self.dropped.min(len);
        let kept = (len - self.dropped) * self.width;
        match &mut self.data {
            Data::F32(data) => data.truncate(kept),
            Data::F16(data) => data.truncate(kept),
        }
    }
}
