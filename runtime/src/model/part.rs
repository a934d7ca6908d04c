//! The tokens of one sequence among those that a mixer processes side by side.

use std::ops::Range;

use super::cache::LayerCache;

/// Rows of a mixer's input that belong to one sequence, and the sequence's cache in that layer.
#[derive(Debug)]
pub struct Part<'a> {
    /// The rows.
    pub rows: Range<usize>,
    /// The cache, to which a mixer appends these rows' entries.
    pub cache: &'a mut LayerCache,
    /// Position of the first row: what the cache held before.
    pub past: usize,
}

impl<'a> Part<'a> {
    /// The part of `rows` that follow the positions in `cache`.
    pub fn new(rows: Range<usize>, cache: &'a mut LayerCache) -> Self {
        let past = cache.len();
        Self { rows, cache, past }
    }

    /// The part's rows of `x`, `[tokens, width]`.
    pub fn of<'x>(&self, x: &'x [f32], width: usize) -> &'x [f32] {
        &x[self.rows.start * width..self.rows.end * width]
    }

    /// Appends the part's rows of `entries`, `[tokens, width]`, to the cache.
    pub fn push(&mut self, entries: &[f32], width: usize) {
        self.cache.push(self.of(entries, width));
    }
}

/// Position of each row in its sequence, for parts that are in the order of their rows.
pub fn positions(parts: &[Part]) -> Vec<usize> {
    parts.iter().flat_map(|part| (0..part.rows.len()).map(|row| part.past + row)).collect()
}
