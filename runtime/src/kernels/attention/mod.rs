//! Attention of queries over cached entries. An entry holds the keys and values of one position. In
//! absorbed MLA these are the latent and the shared rotary key, which together are the key of all
//! heads, with the latent as the value; in grouped-query attention, the keys of all groups followed
//! by their values.
//!
//! ```text
//! for each block of 32 positions, in order
//!     s = scale * (query . entry)          m = max s
//!     p = exp(s - m)                       l = sum p        o = sum p * value
//!     merge (m, l, o) into the running (M, L, O) by rescaling both to the larger maximum
//! out = O / L
//! ```
//!
//! The partial result of a block does not depend on earlier blocks, so blocks can be computed in
//! any order. Under a sliding window, the first block starts with the window. A sink is a score
//! without a value: the running (M, L) start with it instead of being empty.

mod heads;
mod scores;
mod values;

use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use super::cached::EntryFormat;
use super::disjoint::Disjoint;
use crate::isa::Tier;
use crate::threads::Pool;
use heads::{Attend, HEADS_TOGETHER};

/// Positions per block.
pub const BLOCK: usize = 32;

/// Positions of a page of cached entries: a multiple of [`BLOCK`].
pub const PAGE: usize = 2 * BLOCK;

/// The bytes of a page. Sequences that begin alike share pages; a copy has room for a whole page,
/// too.
#[derive(Debug, PartialEq, Eq)]
pub struct Page(Vec<u8>);

impl Page {
    /// An empty page with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        let mut page = Self::with_capacity(self.capacity());
        page.extend_from_slice(self);
        page
    }
}

impl From<Vec<u8>> for Page {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for Page {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Page {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

/// Cached entries, `[positions, width]`, in pages (paged attention: arXiv 2309.06180).
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    /// Element format.
    pub format: EntryFormat,
    /// Pages of [`PAGE`] entries; the last one may have fewer.
    pub pages: &'a [Arc<Page>],
}

impl<'a> Entries<'a> {
    /// The entries of at most [`BLOCK`] positions, of `len` bytes each, in one piece: copied to `scratch`
    /// where they lie in two pages, as they may under a sliding window.
    #[inline(always)]
    fn block<'s>(self, positions: Range<usize>, len: usize, scratch: &'s mut Vec<u8>) -> &'s [u8]
    where
        'a: 's,
    {
        let (page, from) = (positions.start / PAGE, positions.start % PAGE);
        let here = positions.len().min(PAGE - from);
        let first = &self.pages[page][from * len..(from + here) * len];
        if here == positions.len() {
            return first;
        }
        scratch.clear();
        scratch.extend_from_slice(first);
        scratch.extend_from_slice(&self.pages[page + 1][..(positions.len() - here) * len]);
        scratch
    }
}

/// Layout of keys and values in an entry.
#[derive(Clone, Copy, Debug)]
pub struct EntryLayout {
    /// Elements per entry.
    pub width: usize,
    /// Number of keys, each shared by an equal number of heads. Keys come first in an entry.
    pub key_value_heads: usize,
    /// Width of a key.
    pub key_width: usize,
    /// Offset of the values, in elements.
    pub values_at: usize,
    /// Width of a value.
    pub value_width: usize,
}

/// Causal attention of the heads of several tokens over a sequence's cached entries.
pub struct CausalAttention<'a> {
    /// Queries, `[tokens, heads, key_width]`.
    pub queries: &'a [f32],
    /// Entries, `[positions, width]`, of which the last `tokens` belong to the tokens themselves.
    pub entries: Entries<'a>,
    /// Number of positions before the first token.
    pub past: usize,
    /// Heads per token.
    pub heads: usize,
    /// Layout of an entry.
    pub layout: EntryLayout,
    /// Factor on the scores.
    pub scale: f32,
    /// Positions in the sliding window, including the token's own; `None` if all are visible.
    pub window: Option<usize>,
    /// Score of each head's sink, `[heads]`.
    pub sinks: Option<&'a [f32]>,
}

impl CausalAttention<'_> {
    /// Computes the outputs, `[tokens, heads, value_width]`; a token attends to positions up to its
    /// own.
    ///
    /// # Panics
    /// Panics if the shapes do not match.
    pub fn run(&self, tier: Tier, pool: &Pool, out: &mut [f32]) {
        attend_all(tier, pool, std::slice::from_ref(self), out);
    }

    fn outputs(&self) -> usize {
        self.queries.len() / self.layout.key_width * self.layout.value_width
    }

    /// Tasks per key: groups of heads that process an entry together.
    fn runs(&self) -> usize {
        (self.heads / self.layout.key_value_heads).div_ceil(HEADS_TOGETHER)
    }

    fn tasks(&self) -> usize {
        let tokens = self.queries.len() / self.layout.key_width / self.heads;
        tokens * self.layout.key_value_heads * self.runs()
    }

    /// Computes one of the tasks; each writes only the outputs of its own queries.
    fn task(&self, tier: Tier, i: usize, out: Disjoint) {
        let EntryLayout { width, key_value_heads, key_width, values_at, value_width } = self.layout;
        let (heads_per_key, runs) = (self.heads / key_value_heads, self.runs());
        let (token, pair, run) =
            (i / (key_value_heads * runs), i / runs % key_value_heads, i % runs);
        let end = self.past + token + 1;
        let start = self.window.map_or(0, |window| end.saturating_sub(window));
        let head = pair * heads_per_key + run * HEADS_TOGETHER;
        let heads = HEADS_TOGETHER.min(heads_per_key - run * HEADS_TOGETHER);
        let query = token * self.heads + head;
        // SAFETY: each task writes only the outputs of its own queries.
        let out = unsafe { out.slice(query * value_width, heads * value_width) };
        tier.run(Attend {
            queries: &self.queries[query * key_width..][..heads * key_width],
            key_width,
            entries: self.entries,
            positions: start..end,
            width,
            key_at: pair * key_width,
            value_at: values_at + pair * value_width,
            scale: self.scale,
            sinks: self.sinks.map(|sinks| &sinks[head..head + heads]),
            out,
        });
    }
}

/// Attention of several sequences as one parallel job; `out` has the outputs of one after the
/// other, `[sequences, tokens, heads, value_width]`.
///
/// # Panics
/// Panics if the shapes do not match.
pub fn attend_all(tier: Tier, pool: &Pool, sequences: &[CausalAttention], out: &mut [f32]) {
    let (mut tasks, mut left) = (0, out);
    let mut jobs = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        let out = left.split_off_mut(..sequence.outputs()).expect("room for all outputs");
        jobs.push((tasks, sequence, Disjoint::new(out)));
        tasks += sequence.tasks();
    }
    assert!(left.is_empty());
    pool.run(tasks, &|i| {
        let at = jobs.partition_point(|(first, ..)| *first <= i) - 1;
        let (first, sequence, out) = jobs[at];
        sequence.task(tier, i - first, out);
    });
}
