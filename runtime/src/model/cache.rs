//! What a sequence leaves behind: per layer and position, what later tokens need of it. For MLA that is the
//! latent and its rotary key, for grouped-query attention keys and values, for a short convolution the last few
//! inputs.

use crate::checkpoint::Config;
use crate::checkpoint::config::{AttentionConfig, LayerType};
use crate::kernels::attention::Entries;
use crate::kernels::cached::EntryFormat;

/// Positions of a convolution that are kept besides those that the next token needs, so that a sequence can be
/// taken back a little.
const KEPT_FOR_CONV: usize = 64;

/// Precision of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheType {
    /// 4 bytes a number: for comparisons with full precision.
    F32,
    /// 2 bytes a number.
    F16,
    /// A byte a number, with a scale per 32; rotary keys of MLA and the inputs of convolutions as in [`F16`](Self::F16).
    Q8,
}

impl CacheType {
    /// All of them, the most precise first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8];

    /// Its name, as `--cache` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.name() == name)
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
    format: EntryFormat,
    /// Positions that the next token needs, where it does not need all.
    needed: Option<usize>,
    /// Positions that are no longer kept.
    dropped: usize,
    data: Vec<u8>,
}

impl KvCache {
    /// An empty cache for a model.
    pub fn new(config: &Config, ty: CacheType) -> Self {
        let layers = 0..config.num_hidden_layers;
        Self { layers: layers.map(|layer| LayerCache::new(config, layer, ty)).collect() }
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
        self.layers.iter().map(|layer| layer.data.capacity()).sum()
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

/// Bytes that a layer keeps of a position.
pub fn entry_bytes(config: &Config, layer: usize, ty: CacheType) -> usize {
    entry_format(config, layer, ty).bytes(entry_width(config, layer))
}

/// Numbers that a layer keeps of a position.
fn entry_width(config: &Config, layer: usize) -> usize {
    match (&config.attention, config.layer_type(layer)) {
        (AttentionConfig::Mla(mla), _) => mla.kv_lora_rank + mla.qk_rope_head_dim,
        (AttentionConfig::Grouped(_), LayerType::Conv) => config.hidden_size,
        (AttentionConfig::Grouped(gqa), _) => 2 * gqa.num_key_value_heads * gqa.head_dim,
    }
}

/// How a layer keeps a position. Two parts stay in half precision: rotary keys of MLA, which are a ninth of an entry and
/// most of what rounding them costs, and what a convolution keeps, which is little.
fn entry_format(config: &Config, layer: usize, ty: CacheType) -> EntryFormat {
    match (ty, &config.attention, config.layer_type(layer)) {
        (CacheType::F32, ..) => EntryFormat::F32,
        (CacheType::F16, ..) | (CacheType::Q8, _, LayerType::Conv) => EntryFormat::F16,
        (CacheType::Q8, AttentionConfig::Mla(mla), _) => {
            EntryFormat::Q8 { halves: mla.qk_rope_head_dim }
        }
        (CacheType::Q8, AttentionConfig::Grouped(_), _) => EntryFormat::Q8 { halves: 0 },
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
    /// An empty cache for one layer of a model.
    pub fn new(config: &Config, layer: usize, ty: CacheType) -> Self {
        Self {
            width: entry_width(config, layer),
            format: entry_format(config, layer, ty),
            needed: needed_positions(config, layer),
            dropped: 0,
            data: Vec::new(),
        }
    }

    /// Positions of the sequence.
    pub fn len(&self) -> usize {
        self.dropped + self.kept()
    }

    fn kept(&self) -> usize {
        self.data.len() / self.entry_bytes()
    }

    fn entry_bytes(&self) -> usize {
        self.format.bytes(self.width)
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds positions, `[tokens, width]`.
    pub fn push(&mut self, entries: &[f32]) {
        for entry in entries.chunks_exact(self.width) {
            self.format.encode(entry, &mut self.data);
        }
    }

    /// What the layer holds, to be taken back by [`LayerCache::restore`].
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Takes back what [`LayerCache::bytes`] gave after `positions` positions; says whether the bytes are as many
    /// as the next token needs.
    pub fn restore(&mut self, positions: usize, bytes: Vec<u8>) -> bool {
        self.data = bytes;
        let kept = self.kept();
        let needed = self.needed.map_or(positions, |needed| needed.min(positions));
        self.dropped = positions.saturating_sub(kept);
        self.data.len().is_multiple_of(self.entry_bytes()) && (needed..=positions).contains(&kept)
    }

    /// All positions, for layers that keep all.
    pub fn entries(&self) -> Entries<'_> {
        Entries { format: self.format, bytes: &self.data }
    }

    /// One position's entry, `[width]`.
    ///
    /// # Panics
    /// Where the position is not kept.
    pub fn read(&self, position: usize, entry: &mut [f32]) {
        let len = self.entry_bytes();
        self.format.decode(&self.data[(position - self.dropped) * len..][..len], entry);
    }

    /// Lets go of what no token to come will need. Not within a forward pass: it may have to be taken back.
    pub(crate) fn drop_old(&mut self) {
        let Some(needed) = self.needed else { return };
        let keep = needed + KEPT_FOR_CONV;
        let kept = self.kept();
        if kept >= 2 * keep {
            self.data.drain(..(kept - keep) * self.entry_bytes());
            self.dropped += kept - keep;
        }
    }

    fn can_go_on_from(&self, len: usize) -> bool {
        self.dropped == 0 || len >= self.dropped + self.needed.unwrap_or(0)
    }

    fn truncate(&mut self, len: usize) {
        self.dropped = self.dropped.min(len);
        self.data.truncate((len - self.dropped) * self.entry_bytes());
    }
}
