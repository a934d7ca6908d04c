//! Entries of positions, all of them or those of a window, in pages of [`PAGE`] positions. A clone
//! shares its pages, and copies a page when it changes it: at most the last one.

use std::ops::Range;
use std::sync::Arc;

use crate::kernels::attention::{Entries, PAGE, Page};
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
    pages: Vec<Arc<Page>>,
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
        self.pages.iter().map(|page| page.capacity()).sum()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the entries of new positions, `[tokens, width]`.
    pub fn push(&mut self, entries: &[f32]) {
        let page_bytes = self.page_bytes();
        for entry in entries.chunks_exact(self.width) {
            self.format.encode(entry, last_with_room(&mut self.pages, page_bytes));
        }
    }

    /// Whether all positions are kept.
    pub(super) fn keeps_all(&self) -> bool {
        self.needed.is_none()
    }

    /// The first position whose entry is needed to restore the positions from `from` on, and the
    /// bytes of the entries from there on, page by page.
    pub(super) fn part(&self, from: usize) -> (usize, impl Iterator<Item = &[u8]>) {
        let first = self.needed.map_or(from, |_| self.dropped);
        let (start, page_bytes) = ((first - self.dropped) * self.entry_bytes(), self.page_bytes());
        let pages = self.pages.iter().enumerate().filter_map(move |(i, page)| {
            let from = start.saturating_sub(i * page_bytes);
            page.get(from..).filter(|bytes| !bytes.is_empty())
        });
        (first, pages)
    }

    /// Appends those of the `entries` of the positions in `part` that are before `len`. A window
    /// takes them instead of its own. `None` if the bytes are not those of these positions, or the
    /// positions do not follow.
    pub(super) fn append(&mut self, part: Range<usize>, len: usize, entries: &[u8]) -> Option<()> {
        let (entry_bytes, page_bytes) = (self.entry_bytes(), self.page_bytes());
        let count = entries.len() / entry_bytes;
        let is_part = entries.len().is_multiple_of(entry_bytes)
            && part.start.checked_add(count) == Some(part.end);
        match self.needed {
            _ if !is_part => return None,
            None if part.start != self.len() => return None,
            None => {}
            Some(_) => (self.dropped, self.pages) = (part.start.min(len), Vec::new()),
        }
        for entry in entries.chunks_exact(entry_bytes).take(len.saturating_sub(part.start)) {
            last_with_room(&mut self.pages, page_bytes).extend_from_slice(entry);
        }
        Some(())
    }

    /// Bytes of the kept entries.
    pub fn kept_bytes(&self) -> usize {
        let before = self.pages.len().saturating_sub(1) * self.page_bytes();
        self.pages.last().map_or(0, |last| before + last.len())
    }

    /// The kept entries, page by page, for [`RowCache::restore`].
    pub fn pages(&self) -> &[Arc<Page>] {
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
            let mut page = Page::with_capacity(self.page_bytes());
            page.resize(self.page_bytes().min(len - at), 0);
            read(&mut page)?;
            self.pages.push(Arc::new(page));
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
        if let Some(last) = self.pages.last_mut().filter(|last| last.len() > len - before) {
            Arc::make_mut(last).truncate(len - before);
        }
    }
}

/// The last page if there is room in it, or else a new one.
fn last_with_room(pages: &mut Vec<Arc<Page>>, page_bytes: usize) -> &mut Page {
    if pages.last().is_none_or(|page| page.len() == page_bytes) {
        pages.push(Arc::new(Page::with_capacity(page_bytes)));
    }
    Arc::make_mut(pages.last_mut().expect("there is a page with room"))
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
        let bytes: Vec<u8> = cache.pages().iter().flat_map(|page| page.to_vec()).collect();
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

    #[test]
    fn a_clone_shares_its_pages_until_it_changes_them() {
        let mut cache = layer(None);
        push(&mut cache, 0..2 * PAGE + 5);
        let mut other = cache.clone();
        let shared = |a: &RowCache, b: &RowCache| {
            a.pages.iter().zip(&b.pages).filter(|(a, b)| Arc::ptr_eq(a, b)).count()
        };
        assert_eq!(shared(&cache, &other), 3);
        push(&mut other, 1000..1001);
        assert_eq!(shared(&cache, &other), 2, "the last one was copied");
        assert_eq!(other.capacity(), cache.capacity(), "with room for a whole page");
        assert_eq!((cache.len(), other.len()), (2 * PAGE + 5, 2 * PAGE + 6));
        other.truncate(PAGE + 1);
        push(&mut other, 2000..2001);
        assert_eq!(shared(&cache, &other), 1);
        assert!((0..cache.len()).all(|position| first_number(&cache, position) == position));
        assert_eq!(first_number(&other, PAGE + 1), 2000);
    }

    #[test]
    fn entries_come_back_in_parts_and_odd_ones_are_refused() {
        let mut cache = layer(None);
        push(&mut cache, 0..2 * PAGE + 9);
        let end = cache.len();
        let part = |from| cache.part(from).1.collect::<Vec<_>>().concat();
        let mut back = layer(None);
        back.append(0..end, 60, &part(0)).unwrap();
        assert_eq!(back.len(), 60, "the others were not wanted");
        back.append(60..end, 2 * PAGE, &part(60)).unwrap();
        assert_eq!(back.pages, cache.pages[..2]);
        assert!(back.append(2 * PAGE + 1..2 * PAGE + 2, 999, &[0; 16]).is_none(), "a gap");
        assert!(back.append(2 * PAGE..2 * PAGE + 2, 999, &[0; 16]).is_none(), "one is missing");
        assert!(back.append(2 * PAGE..2 * PAGE + 1, 999, &[0; 17]).is_none());

        let mut window = layer(Some(3));
        for position in 0..5 * PAGE {
            window.drop_old();
            push(&mut window, position..position + 1);
        }
        let (first, rows) = window.part(7);
        let (end, rows) = (window.len(), rows.collect::<Vec<_>>().concat());
        assert!(first > 7);
        let restored = |len| {
            let mut back = layer(Some(3));
            back.append(first..end, len, &rows).unwrap();
            assert_eq!(back.len(), len);
            back.can_go_on_from(len)
        };
        assert!(restored(end) && restored(first + 3));
        assert!(!restored(first + 2) && !restored(first - 1));
    }
}
