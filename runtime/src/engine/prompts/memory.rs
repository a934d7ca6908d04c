//! Caches of sequences that have ended, or of the prompts of those that run.

use super::quota::{Entry, victim};
use super::{Owner, miss};
use crate::engine::request::{CacheSource, CacheUse};
use crate::model::cache::KvCache;

/// Kept sequences, of at most as many bytes. Pages that several share are counted for each, so that
/// the limit holds whatever is evicted.
pub(super) struct Memory {
    most: u64,
    /// The limit now, at most `most`.
    limit: u64,
    kept: Vec<Kept>,
    /// Number of uses so far.
    clock: u64,
}

struct Kept {
    owner: Owner,
    tokens: Vec<u32>,
    cache: KvCache,
    /// When it was used last.
    used: u64,
}

impl Memory {
    pub fn new(most: u64) -> Self {
        Self { most, limit: most, kept: Vec::new(), clock: 0 }
    }

    /// Keeps at most as many bytes from now on; takes effect with [`make_room`](Self::make_room).
    pub fn bound(&mut self, bytes: u64) {
        self.limit = bytes.min(self.most);
    }

    /// Whether this many bytes are within the limit.
    pub fn fits(&self, bytes: u64) -> bool {
        bytes <= self.limit
    }

    pub fn bytes(&self) -> u64 {
        self.kept.iter().map(|kept| kept.cache.bytes() as u64).sum()
    }

    /// A cache with the longest part of `wanted` that a sequence of the owner begins with.
    pub fn find(&mut self, owner: &Owner, wanted: &[u32]) -> (Option<KvCache>, CacheUse) {
        self.clock += 1;
        let own = self.kept.iter_mut().filter(|kept| kept.owner == *owner);
        let mut found: Vec<(usize, &mut Kept)> =
            own.map(|kept| (common(&kept.tokens, wanted), kept)).collect();
        found.sort_by_key(|(common, _)| std::cmp::Reverse(*common));
        let closest = found.first().map(|(common, kept)| (*common, kept.tokens.len()));
        let mut best: Option<(usize, KvCache)> = None;
        for (common, kept) in found {
            if common == 0 || best.as_ref().is_some_and(|(tokens, _)| *tokens >= common) {
                break;
            }
            let mut cache = kept.cache.clone();
            let tokens = cache.truncate(common); // fewer if a state cannot go back that far
            if tokens > best.as_ref().map_or(0, |(tokens, _)| *tokens) {
                kept.used = self.clock;
                best = Some((tokens, cache));
            }
        }
        let tokens = best.as_ref().map_or(0, |(tokens, _)| *tokens);
        let source = if tokens > 0 { CacheSource::Memory } else { CacheSource::Nothing };
        let miss = miss(wanted.len(), tokens, closest);
        (best.map(|(_, cache)| cache), CacheUse { tokens, source, miss })
    }

    /// Keeps a sequence in place of those that it goes on from, and of all others in its slot.
    pub fn keep(&mut self, owner: &Owner, tokens: &[u32], cache: KvCache) {
        self.clock += 1;
        let used = self.clock;
        let goes_back = |cache: &KvCache, len: usize| cache.clone().truncate(len) == len;
        self.kept.retain(|kept| {
            let replaced = match tokens.starts_with(&kept.tokens) {
                true => goes_back(&cache, kept.tokens.len()),
                false => owner.slot.is_some(),
            };
            kept.owner != *owner || !replaced
        });
        let longer = self.kept.iter_mut().find(|kept| {
            let is_longer = kept.owner == *owner && kept.tokens.starts_with(tokens);
            is_longer && goes_back(&kept.cache, tokens.len())
        });
        match longer {
            Some(kept) => kept.used = used,
            None if cache.bytes() as u64 > self.limit => {}
            None => {
                let (owner, tokens) = (owner.clone(), tokens.to_vec());
                self.kept.push(Kept { owner, tokens, cache, used });
            }
        }
    }

    /// The sequence of an owner that was used last.
    pub fn last(&self, owner: &Owner) -> Option<(Vec<u32>, KvCache)> {
        let own = self.kept.iter().filter(|kept| kept.owner == *owner);
        let last = own.max_by_key(|kept| kept.used)?;
        Some((last.tokens.clone(), last.cache.clone()))
    }

    /// Forgets the sequences of an owner; returns the number of their tokens.
    pub fn erase(&mut self, owner: &Owner) -> usize {
        let erased = self.kept.extract_if(.., |kept| kept.owner == *owner);
        erased.map(|kept| kept.tokens.len()).sum()
    }

    /// Evicts until there is room for `others` bytes in the limit; returns whether there is.
    pub fn make_room(&mut self, others: u64) -> bool {
        loop {
            let entries: Vec<_> = self.kept.iter().map(Kept::entry).collect();
            match victim(&entries, self.limit.saturating_sub(others)) {
                Some(at) => drop(self.kept.swap_remove(at)),
                None => return others <= self.limit,
            }
        }
    }
}

impl Kept {
    fn entry(&self) -> Entry<&str, u64> {
        let (owner, bytes) = (self.owner.client.as_str(), self.cache.bytes() as u64);
        Entry { owner, bytes, used: self.used, free: true }
    }
}

/// Number of tokens that both begin with.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
