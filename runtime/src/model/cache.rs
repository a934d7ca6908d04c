//! State of a sequence: per layer, what later tokens need. Attention keeps an entry for each
//! position: MLA the latent and its rotary key, grouped-query attention keys and values. A short
//! convolution keeps its last few inputs, a recurrent mixer a state of fixed size. Entries grow by
//! pages of [`PAGE`] positions and no page is ever moved, so that the memory use is the planned
//! memory. Clones share their pages.

mod rows;
mod state;

use std::borrow::Cow;

use crate::checkpoint::Config;
use crate::checkpoint::config::{AttentionConfig, HeadShape, LayerType};
use crate::kernels::attention::{Entries, PAGE};
use crate::kernels::cached::EntryFormat;
use rows::KEPT_BEHIND;
pub use rows::RowCache;
pub use state::{StateCache, StateShape};

/// Precision of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheType {
    /// 4 bytes per number, for comparisons with full precision.
    F32,
    /// 2 bytes per number.
    F16,
    /// 1 byte per number, with one scale per 32 numbers; rotary keys of MLA and inputs of
    /// convolutions as in [`F16`](Self::F16).
    Q8,
}

impl CacheType {
    /// All cache types, most precise first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8];

    /// Name of the type, as `--cache` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }

    /// Code in files: bytes per number.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Q8 => 1,
        }
    }

    /// Parses `f32`, `f16` or `q8`.
    pub fn parse(text: &str) -> Result<Self, CacheTypeError> {
        let found = Self::ALL.into_iter().find(|ty| ty.name() == text);
        found.ok_or_else(|| CacheTypeError { found: text.into() })
    }
}

/// A text that is not a cache type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a type of cache; allowed: {}", CacheType::ALL.map(CacheType::name).join(", "))]
pub struct CacheTypeError {
    /// The text.
    pub found: String,
}

/// Cache of a sequence, over all layers.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
}

/// Cache of a sequence in one layer.
#[derive(Clone, Debug)]
pub enum LayerCache {
    /// Entries of positions.
    Rows(RowCache),
    /// A state.
    State(StateCache),
}

impl KvCache {
    /// An empty cache for a model.
    pub fn new(config: &Config, ty: CacheType) -> Self {
        let layers = 0..config.num_cached_layers();
        Self { layers: layers.map(|layer| LayerCache::new(config, layer, ty)).collect() }
    }

    /// Takes the cache out of its place, where one without layers remains.
    pub(crate) fn take(&mut self) -> Self {
        Self { layers: std::mem::take(&mut self.layers) }
    }

    /// Number of cached positions.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, LayerCache::len)
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory of the entries, in bytes.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::capacity).sum()
    }

    /// Removes the positions from `len` on and returns how many remain: `len`, or as many as all
    /// layers can go back to, where one no longer keeps what the next token would need.
    pub fn truncate(&mut self, len: usize) -> usize {
        let len = self.nearest(len);
        for layer in &mut self.layers {
            layer.truncate(len);
        }
        len
    }

    /// The last position up to `len` that [`truncate`](Self::truncate) can go back to.
    pub fn nearest(&self, mut len: usize) -> usize {
        // A layer's answer may be none of another layer's positions.
        loop {
            let all = self.layers.iter().map(|layer| layer.nearest(len)).min().unwrap_or(0);
            if all >= len {
                return len;
            }
            len = all;
        }
    }

    /// Whether a few of the last positions can always be removed: not where a layer keeps a state.
    pub fn goes_back(&self) -> bool {
        self.layers.iter().all(|layer| matches!(layer, LayerCache::Rows(_)))
    }

    /// Whether every layer has `len` positions, and what the next token needs.
    pub fn holds(&self, len: usize) -> bool {
        self.layers.iter().all(|layer| layer.len() == len && layer.nearest(len) == len)
    }

    /// Whether [`truncate`](Self::truncate) can go back to every position.
    pub fn keeps_all(&self) -> bool {
        let all = |layer: &LayerCache| matches!(layer, LayerCache::Rows(rows) if rows.keeps_all());
        self.layers.iter().all(all)
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The entries of one layer.
    pub fn layer(&mut self, layer: usize) -> &mut LayerCache {
        &mut self.layers[layer]
    }

    /// What each layer keeps of the positions from `from` on, for [`LayerCache::append_part`].
    pub fn parts(&self, from: usize) -> impl Iterator<Item = (usize, Vec<Cow<'_, [u8]>>)> {
        self.layers.iter().map(move |layer| layer.part(from))
    }
}

/// Most bytes that a layer keeps of a sequence of `context` tokens that is read `chunk` tokens at a
/// time: entries in whole pages, or a state with its checkpoints.
pub fn layer_bytes(
    config: &Config,
    layer: usize,
    ty: CacheType,
    context: usize,
    chunk: usize,
) -> u64 {
    if let Some(shape) = state_shape(config, layer) {
        return 4 * shape.numbers() as u64;
    }
    let kept = needed_positions(config, layer).map(|needed| needed + KEPT_BEHIND + PAGE + chunk);
    let positions = context.min(kept.unwrap_or(context)).next_multiple_of(PAGE);
    let entry = entry_format(config, layer, ty).bytes(entry_width(config, layer));
    (positions as u64).saturating_mul(entry as u64)
}

/// Most bytes that all layers keep: see [`layer_bytes`].
pub fn sequence_bytes(config: &Config, ty: CacheType, context: usize, chunk: usize) -> u64 {
    let layer = |layer| layer_bytes(config, layer, ty, context, chunk);
    (0..config.num_cached_layers()).map(layer).fold(0, u64::saturating_add)
}

/// The state of a recurrent layer.
fn state_shape(config: &Config, layer: usize) -> Option<StateShape> {
    let recurrence = config.recurrence.as_ref()?;
    (config.layer_type(layer) == LayerType::Recurrent).then(|| recurrence.state_shape())
}

/// Numbers that a layer keeps per position.
fn entry_width(config: &Config, layer: usize) -> usize {
    match (&config.attention, config.layer_type(layer)) {
        (AttentionConfig::Mla(mla), _) => mla.kv_lora_rank + mla.qk_rope_head_dim,
        (AttentionConfig::Grouped(_), LayerType::Conv) => config.hidden_size,
        (AttentionConfig::Grouped(gqa), ty) => {
            let HeadShape { head_dim, num_key_value_heads } = gqa.head_shape(ty);
            2 * num_key_value_heads * head_dim
        }
    }
}

/// Entry format of a layer. Two parts stay in half precision: the rotary keys of MLA, which are a
/// ninth of an entry and account for most of its rounding cost, and the inputs of convolutions,
/// which are small.
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

fn needed_positions(config: &Config, layer: usize) -> Option<usize> {
    match (&config.attention, config.layer_type(layer)) {
        (AttentionConfig::Grouped(conv), LayerType::Conv) => Some(conv.conv_l_cache - 1),
        _ => None,
    }
}

impl LayerCache {
    /// An empty cache for one layer of a model.
    pub fn new(config: &Config, layer: usize, ty: CacheType) -> Self {
        match state_shape(config, layer) {
            Some(shape) => Self::State(StateCache::new(shape)),
            None => Self::Rows(RowCache::new(
                entry_width(config, layer),
                entry_format(config, layer, ty),
                needed_positions(config, layer),
            )),
        }
    }

    /// The entries of a layer with attention or a short convolution.
    ///
    /// # Panics
    /// If the layer keeps a state.
    pub fn rows(&self) -> &RowCache {
        match self {
            Self::Rows(rows) => rows,
            Self::State(_) => unreachable!("the mixer of the layer decides what it keeps"),
        }
    }

    fn rows_mut(&mut self) -> &mut RowCache {
        match self {
            Self::Rows(rows) => rows,
            Self::State(_) => unreachable!("the mixer of the layer decides what it keeps"),
        }
    }

    /// The state of a recurrent layer.
    ///
    /// # Panics
    /// If the layer keeps entries.
    pub fn state(&mut self) -> &mut StateCache {
        match self {
            Self::State(state) => state,
            Self::Rows(_) => unreachable!("the mixer of the layer decides what it keeps"),
        }
    }

    /// Number of positions in the sequence.
    pub fn len(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.len(),
            Self::State(state) => state.len(),
        }
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the entries of new positions, `[tokens, width]`.
    pub fn push(&mut self, entries: &[f32]) {
        self.rows_mut().push(entries);
    }

    /// Entries of all positions, for layers that keep all.
    pub fn entries(&self) -> Entries<'_> {
        self.rows().entries()
    }

    /// Reads the entry of one position, `[width]`.
    ///
    /// # Panics
    /// If the position is not kept.
    pub fn read(&self, position: usize, entry: &mut [f32]) {
        self.rows().read(position, entry);
    }

    /// Releases what no later token needs. Must not be called within a forward pass, which may have
    /// to be rolled back.
    pub(crate) fn drop_old(&mut self) {
        if let Self::Rows(rows) = self {
            rows.drop_old();
        }
    }

    /// Memory of what is kept, in bytes.
    pub fn capacity(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.capacity(),
            Self::State(state) => state.capacity(),
        }
    }

    fn nearest(&self, len: usize) -> usize {
        match self {
            Self::Rows(rows) if rows.can_go_on_from(len) => len,
            Self::Rows(_) => 0,
            Self::State(state) => state.nearest(len),
        }
    }

    /// Removes the positions from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        match self {
            Self::Rows(rows) => rows.truncate(len),
            Self::State(state) => state.truncate(len),
        }
    }

    /// What is kept, in pieces, for [`LayerCache::restore`].
    pub fn pieces(&self) -> Vec<Cow<'_, [u8]>> {
        match self {
            Self::Rows(rows) => rows.pages().iter().map(|page| page.as_slice().into()).collect(),
            Self::State(state) => vec![state.saved().into()],
        }
    }

    /// Replaces the contents by those of a sequence of `positions` positions, of which `len` bytes
    /// were kept; `read` fills one piece at a time. Returns whether the length is one that the
    /// layer keeps; if not, nothing is read.
    ///
    /// # Errors
    /// Errors of `read`, after which the cache is incomplete.
    pub fn restore<E>(
        &mut self,
        positions: usize,
        len: usize,
        mut read: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let state = match self {
            Self::Rows(rows) => return rows.restore(positions, len, read),
            Self::State(state) => state,
        };
        if !state.can_restore(positions, len) {
            return Ok(false);
        }
        let mut bytes = vec![0; len];
        read(&mut bytes)?;
        state.restore(positions, &bytes);
        Ok(true)
    }

    /// What has to be kept to restore the positions from `from` on, for
    /// [`append_part`](Self::append_part): the first position, and the bytes in pieces.
    fn part(&self, from: usize) -> (usize, Vec<Cow<'_, [u8]>>) {
        match self {
            Self::Rows(rows) => {
                let (first, pieces) = rows.part(from);
                (first, pieces.map(Cow::from).collect())
            }
            Self::State(state) => (state.len(), vec![state.saved().into()]),
        }
    }

    /// Goes on with a part of a sequence that ends at `end`, up to position `len` of it. `None` if
    /// the part does not fit.
    pub fn append_part(
        &mut self,
        first: usize,
        end: usize,
        len: usize,
        bytes: &[u8],
    ) -> Option<()> {
        match self {
            Self::Rows(rows) => rows.append(first..end, len, bytes),
            Self::State(state) => {
                if first != end || !state.can_restore(end, bytes.len()) {
                    return None;
                }
                state.restore(end, bytes);
                // Whether the state can go back that far is known at the end.
                state.truncate(state.nearest(len));
                Some(())
            }
        }
    }
}
