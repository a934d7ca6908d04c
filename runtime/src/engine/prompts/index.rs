//! The segments of a folder: a tree, in which each goes on from a part of its parent.

use std::collections::HashMap;
use std::time::SystemTime;

use super::memory::common;
use super::quota::{Entry, victim};
use super::segment::{Head, Name};

/// A file of the folder.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// `None` for what belongs to another model or is damaged: it takes room and is of no use.
    pub head: Option<Head>,
    pub bytes: u64,
    pub used: SystemTime,
}

/// A segment of a sequence, and how many positions to take up to its end.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub name: Name,
    pub head: Head,
    pub len: usize,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    segments: HashMap<Name, Segment>,
}

impl Index {
    pub fn contains(&self, name: Name) -> bool {
        self.segments.contains_key(&name)
    }

    pub fn insert(&mut self, name: Name, segment: Segment) {
        self.segments.insert(name, segment);
    }

    /// The longest part of `wanted` that a sequence of the client begins with, as the segments that
    /// hold it, first to last. With `whole`, the last one must be used to its end, or up to one token
    /// before, as for a prompt that is asked again.
    pub fn find(&self, client: Name, wanted: &[u32], whole: bool) -> Vec<Link> {
        let mut children = HashMap::<Option<Name>, Vec<(Name, &Head)>>::new();
        for (name, segment) in &self.segments {
            if let Some(head) = segment.head.as_ref().filter(|head| head.client == client) {
                children.entry(head.parent).or_default().push((*name, head));
            }
        }
        let mut best: Vec<Link> = Vec::new();
        let mut open: Vec<Vec<Link>> = vec![Vec::new()];
        while let Some(path) = open.pop() {
            let last = path.last();
            let reached = last.map_or(0, |link| link.len);
            let is_end = last.is_none_or(|link| !whole || link.len + 1 >= link.head.end());
            if is_end && reached > best.last().map_or(0, |link| link.len) {
                best.clone_from(&path);
            }
            for (name, head) in children.get(&last.map(|link| link.name)).into_iter().flatten() {
                let first = last.map_or(0, |link| link.head.base + 1);
                if !(first..=reached).contains(&head.base) {
                    continue;
                }
                let len = head.base + common(&head.tokens, &wanted[head.base..]);
                if len == head.base {
                    continue;
                }
                let mut path = path.clone();
                if let Some(parent) = path.last_mut() {
                    parent.len = head.base;
                }
                path.push(Link { name: *name, head: (*head).clone(), len });
                open.push(path);
            }
        }
        best
    }

    /// Notes that segments were used.
    pub fn touch(&mut self, links: &[Link], now: SystemTime) {
        for link in links {
            if let Some(segment) = self.segments.get_mut(&link.name) {
                segment.used = now;
            }
        }
    }

    /// Removes a segment and those that go on from it.
    pub fn remove(&mut self, name: Name) -> Vec<Name> {
        let mut removed = vec![name];
        let mut at = 0;
        while let Some(name) = removed.get(at).copied() {
            self.segments.remove(&name);
            let children = self.segments.iter().filter(|(_, segment)| {
                segment.head.as_ref().is_some_and(|head| head.parent == Some(name))
            });
            removed.extend(children.map(|(name, _)| *name));
            at += 1;
        }
        removed
    }

    /// Removes all segments of a client.
    pub fn remove_client(&mut self, client: Name) -> Vec<Name> {
        let own =
            |segment: &Segment| segment.head.as_ref().is_some_and(|head| head.client == client);
        let of_client = self.segments.extract_if(|_, segment| own(segment));
        of_client.map(|(name, _)| name).collect()
    }

    /// Removes what goes on from a segment that is not there, or not from within it.
    pub fn remove_orphans(&mut self) -> Vec<Name> {
        let mut removed = Vec::new();
        loop {
            let orphan = self.segments.iter().find_map(|(name, segment)| {
                let head = segment.head.as_ref()?;
                let parent =
                    self.segments.get(&head.parent?).and_then(|parent| parent.head.as_ref());
                let is_sound = parent.is_some_and(|parent| {
                    parent.client == head.client
                        && (parent.base + 1..=parent.end()).contains(&head.base)
                });
                (!is_sound).then_some(*name)
            });
            let Some(orphan) = orphan else { return removed };
            removed.extend(self.remove(orphan));
        }
    }

    /// Removes what was not used since `oldest`, and what exceeds `limit` bytes.
    pub fn evict(&mut self, limit: u64, oldest: SystemTime) -> Vec<Name> {
        let mut removed = Vec::new();
        loop {
            let names: Vec<Name> = self.segments.keys().copied().collect();
            let parents =
                self.segments.values().filter_map(|segment| segment.head.as_ref()?.parent);
            let parents: std::collections::HashSet<Name> = parents.collect();
            let entry = |name: &Name| {
                let Segment { head, bytes, used } = &self.segments[name];
                let owner = head.as_ref().map_or([0; 16], |head| head.client);
                Entry { owner, bytes: *bytes, used: *used, free: !parents.contains(name) }
            };
            let entries: Vec<_> = names.iter().map(entry).collect();
            let aged = entries.iter().position(|entry| entry.free && entry.used < oldest);
            let Some(at) = aged.or_else(|| victim(&entries, limit)) else { return removed };
            self.segments.remove(&names[at]);
            removed.push(names[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn segment(parent: Option<u8>, base: usize, tokens: &[u32], used: u64) -> Segment {
        let (client, parent) = ([7; 16], parent.map(|name| [name; 16]));
        let head = Some(Head { client, parent, base, tokens: tokens.to_vec() });
        let used = SystemTime::UNIX_EPOCH + Duration::from_secs(used);
        Segment { head, bytes: 10, used }
    }

    fn index() -> Index {
        let mut index = Index::default();
        index.insert([1; 16], segment(None, 0, &[1, 2, 3, 4], 5));
        index.insert([2; 16], segment(Some(1), 4, &[5, 6], 5));
        index.insert([3; 16], segment(Some(1), 2, &[9, 9, 9], 6));
        index.insert([4; 16], segment(None, 0, &[8], 1));
        index
    }

    fn found(index: &Index, wanted: &[u32], whole: bool) -> Vec<(u8, usize)> {
        let links = index.find([7; 16], wanted, whole);
        links.iter().map(|link| (link.name[0], link.len)).collect()
    }

    #[test]
    fn the_longest_path_through_the_tree_is_found() {
        let index = index();
        assert_eq!(found(&index, &[1, 2, 3, 4, 5, 7], false), [(1, 4), (2, 5)]);
        assert_eq!(found(&index, &[1, 2, 9, 9, 1], false), [(1, 2), (3, 4)]);
        assert_eq!(found(&index, &[1, 2], false), [(1, 2)]);
        assert_eq!(found(&index, &[2], false), []);
        assert_eq!(found(&index, &[1, 2, 3, 4, 5, 7], true), [(1, 4), (2, 5)]);
        assert_eq!(found(&index, &[1, 2, 3, 4, 7], true), [(1, 4)]);
        assert_eq!(found(&index, &[1, 2, 9, 1], true), []);
        assert_eq!(found(&index, &[1, 2, 9, 9, 9], true), [(1, 2), (3, 5)]);
        assert_eq!(found(&index, &[1, 2], true), []);
        assert!(index.find([8; 16], &[1, 2], false).is_empty(), "another client's");
    }

    #[test]
    fn leaves_are_evicted_before_what_they_go_on_from() {
        let mut index = index();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(index.evict(40, at(0)), Vec::<Name>::new());
        assert_eq!(index.evict(40, at(2)), [[4; 16]], "too old");
        assert_eq!(index.evict(25, at(2)), [[2; 16]], "1 is as old, but 3 goes on from it");
        let mut left = index.evict(0, at(2));
        left.sort_unstable();
        assert_eq!(left, [[1; 16], [3; 16]]);
    }

    #[test]
    fn what_goes_on_from_nothing_is_removed() {
        let mut index = index();
        index.insert([5; 16], segment(Some(3), 9, &[1], 5)); // beyond the end of its parent
        index.insert([6; 16], segment(Some(5), 10, &[1], 5));
        index.insert([8; 16], segment(Some(8), 1, &[1], 5)); // of itself
        let mut removed = index.remove_orphans();
        removed.sort_unstable();
        assert_eq!(removed, [[5; 16], [6; 16], [8; 16]]);
        let mut removed = index.remove([1; 16]);
        removed.sort_unstable();
        assert_eq!(removed, [[1; 16], [2; 16], [3; 16]]);
    }
    #[test]
    fn the_segments_of_a_client_are_removed_together() {
        let mut index = index();
        let other = Segment { head: None, bytes: 1, used: SystemTime::UNIX_EPOCH };
        index.insert([5; 16], other);
        assert_eq!(index.remove_client([7; 16]).len(), 4);
        assert!(index.contains([5; 16]) && !index.contains([1; 16]));
    }
}
