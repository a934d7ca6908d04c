//! Which entry is evicted: the oldest among the clients that use more than an equal share.

use std::collections::BTreeMap;

/// An entry that takes room.
pub(super) struct Entry<N, T> {
    pub owner: N,
    pub bytes: u64,
    /// When it was used last.
    pub used: T,
    /// Whether it may be evicted now.
    pub free: bool,
}

/// Index of the entry to evict; `None` if all fit into `limit` bytes, or none may be evicted. So a
/// client that keeps little loses nothing to one that keeps a lot.
pub(super) fn victim<N: Ord + Copy, T: Ord + Copy>(
    entries: &[Entry<N, T>],
    limit: u64,
) -> Option<usize> {
    let mut owners = BTreeMap::<N, u64>::new();
    for entry in entries {
        *owners.entry(entry.owner).or_default() += entry.bytes;
    }
    if owners.values().sum::<u64>() <= limit {
        return None;
    }
    let share = limit / owners.len() as u64;
    let free = entries.iter().enumerate().filter(|(_, entry)| entry.free);
    let above = free.filter(|(_, entry)| owners[&entry.owner] > share);
    above.min_by_key(|(_, entry)| entry.used).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(owner: &str, bytes: u64, used: u32) -> Entry<&str, u32> {
        Entry { owner, bytes, used, free: true }
    }

    #[test]
    fn the_oldest_of_those_above_their_share_goes() {
        let entries = [entry("a", 10, 1), entry("b", 60, 2), entry("b", 30, 3)];
        assert_eq!(victim(&entries, 100), None);
        assert_eq!(victim(&entries, 99), Some(1), "`a` is older, but below its share of 49");
        assert_eq!(victim(&entries[..1], 5), Some(0));
        let held = [Entry { free: false, ..entry("a", 10, 1) }, entry("a", 10, 2)];
        assert_eq!(victim(&held, 15), Some(1));
        assert_eq!(victim(&held[..1], 5), None);
    }
}
