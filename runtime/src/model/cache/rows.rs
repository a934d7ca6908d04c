//! Entries of positions, all of them or those of a window, in pages of [`PAGE`] positions.

use crate::kernels::attention::{Entries, PAGE};
use crate::kernels::cached::EntryFormat;

/// Positions that a window keeps in addition to those that the next token needs, so that a sequence
/// can be rolled back a little.
pub(super) const KEPT_BEHIND: usize = 64;

/// The cached entries of one layer, `[positions, width]`.
#[derive(Clone, Debug)]
pub struct RowCache {
    width: usize,
    format: EntryFormat,
    /// Positions that the next token needs, where it does not need all.
    needed: Option<usize>,
    /// Positions before the first page, which are no longer kept.
    dropped: usize,
    /// Pages of [`PAGE`] entries each; the last page may hold fewer. Every page has the capacity of
    /// a whole one.
    pages: Vec<Vec<u8>>,
}

impl RowCache {
    /// An empty cache for entries of `width` numbers, of which the next token needs all or the
    /// last `needed`.
    pub(super) fn new(width: usize, format: EntryFormat, needed: Option<usize>) -> Self {
        Self { width, format, needed, dropped: 0, pages: Vec::new() }
    }

    /// Number of positions in the sequence.
    pub fn len(&self) -> usize {
        self.dropped + self.kept()
    }

    fn kept(&self) -> usize {
        self.kept_bytes() / self.entry_bytes()
    }

    fn entry_bytes(&self) -> usize {
        self.format.bytes(self.width)
    }

    fn page_bytes(&self) -> usize {
        PAGE * self.entry_bytes()
    }

    pub(super) fn capacity(&self) -> usize {
        self.pages.iter().map(Vec::capacity).sum()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the entries of new positions, `[tokens, width]`.
    pub fn push(&mut self, entries: &[f32]) {
        let page_bytes = self.page_bytes();
        for entry in entries.chunks_exact(self.width) {
            if self.pages.last().is_none_or(|page| page.len() == page_bytes) {
                self.pages.push(Vec::with_capacity(page_bytes));
            }
            let page = self.pages.last_mut().expect("there is a page with room");
            self.format.encode(entry, page);
        }
    }

    /// Bytes of the kept entries.
    pub fn kept_bytes(&self) -> usize {
        let before = self.pages.len().saturating_sub(1) * self.page_bytes();
        self.pages.last().map_or(0, |last| before + last.len())
    }

    /// The kept entries, page by page, for [`RowCache::restore`].
    pub fn pages(&self) -> &[Vec<u8>] {
        &self.pages
    }

    /// Replaces the entries by those of a sequence of `positions` positions, of which `len` bytes
    /// were kept; `read` fills one page at a time. Returns whether the bytes are whole entries and
    /// as many as the next token needs; if not, nothing is read.
    ///
    /// # Errors
    /// Errors of `read`, after which the cache is incomplete.
    pub fn restore<E>(
        &mut self,
        positions: usize,
        len: usize,
        mut read: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let kept = len / self.entry_bytes();
        let needed = self.needed.map_or(positions, |needed| needed.min(positions));
        if !len.is_multiple_of(self.entry_bytes()) || !(needed..=positions).contains(&kept) {
            return Ok(false);
        }
        (self.dropped, self.pages) = (positions - kept, Vec::new());
        for at in (0..len).step_by(self.page_bytes()) {
            let mut page = Vec::with_capacity(self.page_bytes());
            page.resize(self.page_bytes().min(len - at), 0);
            read(&mut page)?;
            self.pages.push(page);
        }
        Ok(true)
    }

    /// Entries of all positions, for layers that keep all.
    pub fn entries(&self) -> Entries<'_> {
        Entries { format: self.format, pages: &self.pages }
    }

    /// Reads the entry of one position, `[width]`.
    ///
    /// # Panics
    /// If the position is not kept.
    pub fn read(&self, position: usize, entry: &mut [f32]) {
        let (len, at) = (self.entry_bytes(), position - self.dropped);
        self.format.decode(&self.pages[at / PAGE][at % PAGE * len..][..len], entry);
    }

    /// Releases pages that no later token needs. Must not be called within a forward pass, which
    /// may have to be rolled back.
    pub(crate) fn drop_old(&mut self) {
        let Some(needed) = self.needed else { return };
        let pages = self.kept().saturating_sub(needed + KEPT_BEHIND) / PAGE;
        self.pages.drain(..pages);
        self.dropped += pages * PAGE;
    }

    pub(super) fn can_go_on_from(&self, len: usize) -> bool {
        self.dropped == 0 || len >= self.dropped + self.needed.unwrap_or(0)
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.dropped = self.dropped.min(len);
        let kept = len - self.dropped;
        self.pages.truncate(kept.div_ceil(PAGE));
        let len = kept * self.entry_bytes();
        let before = self.pages.len().saturating_sub(1) * self.page_bytes();
        if let Some(last) = self.pages.last_mut() {
            last.truncate(len - before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(needed: Option<usize>) -> RowCache {
        let format = EntryFormat::F16;
        RowCache { width: 8, format, needed, dropped: 0, pages: Vec::new() }
    }

    fn push(cache: &mut RowCache, positions: std::ops::Range<usize>) {
        positions.for_each(|position| cache.push(&[position as f32; 8]));
    }

    fn first_number(cache: &RowCache, position: usize) -> usize {
        let mut entry = [0.0; 8];
        cache.read(position, &mut entry);
        entry[0] as usize
    }

    #[test]
    fn it_grows_by_pages_that_stay_where_they_are() {
        let mut cache = layer(None);
        push(&mut cache, 0..1);
        let first = cache.pages[0].as_ptr();
        for position in 1..10 * PAGE {
            push(&mut cache, position..position + 1);
            assert_eq!(cache.capacity(), cache.len().div_ceil(PAGE) * PAGE * 16);
        }
        assert_eq!(cache.pages[0].as_ptr(), first);
        assert!((0..cache.len()).all(|position| first_number(&cache, position) == position));
    }

    #[test]
    fn it_is_cut_anywhere_and_goes_on() {
        for len in [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE] {
            let mut cache = layer(None);
            push(&mut cache, 0..3 * PAGE);
            cache.truncate(len);
            assert_eq!((cache.len(), cache.kept_bytes()), (len, len * 16));
            push(&mut cache, len..3 * PAGE + 5);
            assert!((0..cache.len()).all(|position| first_number(&cache, position) == position));
        }
    }

    #[test]
    fn a_window_keeps_what_it_needs_and_little_more() {
        let mut cache = layer(Some(3));
        for position in 0..20 * PAGE {
            cache.drop_old();
            push(&mut cache, position..position + 1);
            assert_eq!(cache.len(), position + 1);
            let kept = cache.kept();
            assert!(kept > 3 + KEPT_BEHIND || cache.dropped == 0, "{kept} kept at {position}");
            assert!(kept <= 3 + KEPT_BEHIND + PAGE, "{kept} kept at {position}");
            assert_eq!(first_number(&cache, position), position);
        }
    }

    #[test]
    fn pages_are_restored_as_they_were_and_other_lengths_are_refused() {
        let mut cache = layer(None);
        push(&mut cache, 0..PAGE + 7);
        let bytes: Vec<u8> = cache.pages().concat();
        let restore = |positions, len: usize| {
            let (mut back, mut at) = (layer(None), 0);
            let read = |page: &mut [u8]| {
                page.copy_from_slice(&bytes[at..at + page.len()]);
                at += page.len();
                Ok::<_, ()>(())
            };
            back.restore(positions, len, read).unwrap().then_some(back)
        };
        let mut back = restore(PAGE + 7, bytes.len()).unwrap();
        assert_eq!(back.pages, cache.pages);
        push(&mut back, PAGE + 7..2 * PAGE);
        assert_eq!(first_number(&back, 2 * PAGE - 1), 2 * PAGE - 1);
        assert!(restore(PAGE + 8, bytes.len()).is_none());
        assert!(restore(PAGE + 6, bytes.len()).is_none());
        assert!(restore(PAGE + 7, bytes.len() - 1).is_none());
    }
}
