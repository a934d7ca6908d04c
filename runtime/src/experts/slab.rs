//! Memory of streamed experts.
//!
//! Every expert has a slot of whole pages, of exactly its own size, so that experts of different
//! block types waste nothing. A slot that is returned is kept for the next expert of the same size,
//! which then causes no page faults; for an expert of another size it is unmapped. The slab never
//! lets the slots in use and the kept ones exceed the limit.

use std::collections::BTreeMap;
use std::io;

use crate::bytes::Pages;

/// Slots within a memory limit.
#[derive(Default)]
pub struct Slab {
    limit: usize,
    /// Bytes of all slots, in use and free.
    committed: usize,
    /// Free slots, by size.
    free: BTreeMap<usize, Vec<Pages>>,
}

impl Slab {
    /// An empty slab with a limit of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Limit on the bytes of all slots.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes of all slots, in use and free.
    pub fn committed(&self) -> usize {
        self.committed
    }

    /// Changes the limit. Free slots are unmapped at once, slots in use when they are returned.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.shrink_to(limit);
    }

    /// Bytes that must be returned before [`Slab::take`] can give a slot of `len` bytes, where
    /// `len` is a multiple of the page size ([`Pages::rounded`]).
    pub fn missing(&self, len: usize) -> usize {
        if self.committed <= self.limit && self.free.contains_key(&len) {
            return 0;
        }
        let free: usize = self.free.iter().map(|(len, slots)| len * slots.len()).sum();
        (self.committed - free + len).saturating_sub(self.limit)
    }

    /// Takes a slot of `len` bytes with arbitrary contents; `None` if the limit does not allow it.
    pub fn take(&mut self, len: usize) -> io::Result<Option<Pages>> {
        if self.missing(len) > 0 {
            return Ok(None);
        }
        if let Some(slots) = self.free.get_mut(&len) {
            let slot = slots.pop();
            if slots.is_empty() {
                self.free.remove(&len);
            }
            if slot.is_some() {
                return Ok(slot);
            }
        }
        self.shrink_to(self.limit - len);
        let slot = Pages::new(len)?;
        self.committed += slot.len();
        Ok(Some(slot))
    }

    /// Returns a slot.
    pub fn give(&mut self, slot: Pages) {
        self.free.entry(slot.len()).or_default().push(slot);
        self.shrink_to(self.limit);
    }

    /// Records that a slot of `len` bytes will not be returned.
    pub fn lose(&mut self, len: usize) {
        self.committed = self.committed.saturating_sub(len);
    }

    /// Unmaps free slots, the largest first, until at most `bytes` are committed.
    fn shrink_to(&mut self, bytes: usize) {
        while self.committed > bytes {
            let Some(mut slots) = self.free.last_entry() else { return };
            let len = *slots.key();
            slots.get_mut().pop();
            if slots.get().is_empty() {
                slots.remove();
            }
            self.committed -= len;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Pages of the system may be larger than those of direct reads.
    const PAGE: usize = 16 * Pages::SIZE;

    #[test]
    fn a_slot_of_the_same_size_is_used_again_and_one_of_another_size_makes_room() {
        let mut slab = Slab::new(4 * PAGE);
        let three = slab.take(3 * PAGE).unwrap().unwrap();
        let address = three.as_ptr();
        slab.give(three);
        let three = slab.take(3 * PAGE).unwrap().unwrap();
        assert_eq!(three.as_ptr(), address);
        assert_eq!(slab.missing(2 * PAGE), PAGE);
        assert!(slab.take(2 * PAGE).unwrap().is_none());
        slab.give(three);
        assert_eq!(slab.missing(2 * PAGE), 0);
        let two = slab.take(2 * PAGE).unwrap().unwrap();
        assert_eq!((two.len(), slab.committed()), (2 * PAGE, 2 * PAGE));
    }

    #[test]
    fn a_lower_limit_takes_effect_as_slots_come_back() {
        let mut slab = Slab::new(4 * PAGE);
        let slots: Vec<_> = (0..4).map(|_| slab.take(PAGE).unwrap().unwrap()).collect();
        slab.set_limit(2 * PAGE);
        assert_eq!((slab.committed(), slab.missing(PAGE)), (4 * PAGE, 3 * PAGE));
        slots.into_iter().for_each(|slot| slab.give(slot));
        assert_eq!(slab.committed(), 2 * PAGE);
    }

    proptest! {
        #[test]
        fn slots_never_exceed_the_limit_and_missing_says_what_is_missing(
            steps in proptest::collection::vec((0usize..3, 1usize..6), 1..200),
        ) {
            let mut slab = Slab::new(16 * PAGE);
            let mut used: Vec<Pages> = Vec::new();
            for (what, pages) in steps {
                if what == 0 && !used.is_empty() {
                    slab.give(used.swap_remove(pages % used.len()));
                } else {
                    let missing = slab.missing(pages * PAGE);
                    let slot = slab.take(pages * PAGE).unwrap();
                    prop_assert_eq!(slot.is_none(), missing > 0);
                    used.extend(slot);
                }
                let in_use: usize = used.iter().map(|slot| slot.len()).sum();
                prop_assert!(in_use <= slab.committed() && slab.committed() <= 16 * PAGE);
            }
        }
    }
}
