//! Sets of byte ranges: which parts of a file are on disk.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint ranges, merged where they touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Ends by starts.
    ends: BTreeMap<u64, u64>,
}

impl Ranges {
    pub fn insert(&mut self, range: Range<u64>) {
        let (mut start, mut end) = (range.start, range.end);
        if start >= end {
            return;
        }
        while let Some((&before, &until)) = self.ends.range(..=end).next_back() {
            if until < start {
                break;
            }
            (start, end) = (start.min(before), end.max(until));
            self.ends.remove(&before);
        }
        self.ends.insert(start, end);
    }

    /// Number of bytes in all ranges.
    pub fn bytes(&self) -> u64 {
        self.ends.iter().map(|(start, end)| end - start).sum()
    }

    /// End of the range that starts at 0.
    pub fn prefix(&self) -> u64 {
        self.ends.get(&0).copied().unwrap_or(0)
    }

    /// The parts of `0..len` that are in no range, in pieces of at most `piece` bytes.
    pub fn gaps(&self, len: u64, piece: u64) -> Vec<Range<u64>> {
        let ends = self.ends.iter().map(|(start, end)| (*start, *end));
        let (mut gaps, mut at) = (Vec::new(), 0);
        for (start, end) in ends.chain([(len, len)]) {
            while at < start {
                let next = start.min(at.saturating_add(piece.max(1)));
                gaps.push(at..next);
                at = next;
            }
            at = end;
        }
        gaps
    }

    /// All ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ends.iter().map(|(start, end)| *start..*end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one_and_gaps_are_what_remains() {
        let mut ranges = Ranges::default();
        for range in [8..10, 2..4, 4..5, 20..20, 3..9] {
            ranges.insert(range);
        }
        assert!(ranges.iter().eq(std::iter::once(2..10)));
        assert_eq!((ranges.bytes(), ranges.prefix()), (8, 0));
        assert_eq!(ranges.gaps(17, 4), [0..2, 10..14, 14..17]);
        ranges.insert(0..2);
        ranges.insert(12..17);
        assert_eq!((ranges.prefix(), ranges.gaps(17, 1)), (10, vec![10..11, 11..12]));
        assert_eq!(Ranges::default().gaps(0, 4), []);
    }
}
