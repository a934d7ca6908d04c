//! Prompts that were read before: a request goes on from the longest part of its prompt that a kept
//! sequence of the same client begins with.
//!
//! [`memory`] keeps caches, whose pages are shared with the sequences that go on from them.
//! [`disk`] writes and reads them on a thread of its own, as [`segment`] files that an [`index`]
//! arranges as a tree. A [`folder`] is the same for sessions without an engine.

mod disk;
mod folder;
mod index;
mod memory;
mod quota;
mod segment;

use std::path::PathBuf;
use std::time::Duration;

pub use disk::PromptFolderError;
pub(super) use disk::{Disk, Loading};
pub use folder::PromptFolder;
pub(super) use segment::Kind;

use super::options::EngineModel;
use super::request::CacheUse;
use super::slots::Order;
use crate::model::cache::KvCache;
use memory::Memory;

/// Tokens that a file must know in addition to memory, so that it is read.
const WORTH_READING: usize = 32;

/// Where and how much of prompts is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptCacheOptions {
    /// Bytes of memory for sequences that have ended; 0 keeps none. Where memory is planned, they
    /// are taken from what running sequences have not reserved.
    pub memory: u64,
    /// Folder for files; `None` keeps none. It holds what was said, so that only its owner may have
    /// access.
    pub folder: Option<PathBuf>,
    /// Bytes of all files.
    pub disk: u64,
    /// Time after which a file that was not used is deleted.
    pub max_age: Duration,
}

impl Default for PromptCacheOptions {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            folder: None,
            disk: 2 << 30,
            max_age: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl PromptCacheOptions {
    /// Prompts are kept in `folder`, if one is given, as files of so many bytes; 0 takes the default.
    pub fn in_folder(folder: Option<PathBuf>, bytes: u64) -> Self {
        let options = Self::default();
        let disk = if bytes == 0 { options.disk } else { bytes };
        Self { folder, disk, ..options }
    }
}

/// Whose prompts: those of a client, or of one of its slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub client: String,
    /// Prompts of a slot are kept in memory only, the last one of each.
    pub slot: Option<usize>,
}

/// Cached part of a prompt.
pub(super) enum Known {
    /// A cache, empty if nothing is known.
    Cache(KvCache, CacheUse),
    /// Files, which are being read. If that fails, the cache is what is known.
    Reading(Loading, KvCache, CacheUse),
}

impl Known {
    /// An empty cache, for a request that wants none.
    pub fn nothing(model: &EngineModel) -> Self {
        let miss = Some("the request wants nothing cached".into());
        Self::Cache(model.new_cache(), CacheUse { miss, ..CacheUse::default() })
    }
}

/// Prompts in memory and on disk.
pub(super) struct Prompts {
    memory: Memory,
    disk: Option<Disk>,
}

impl Prompts {
    pub fn new(options: &PromptCacheOptions, disk: Option<Disk>) -> Self {
        Self { memory: Memory::new(options.memory), disk }
    }

    /// Keeps at most as many bytes in memory from now on.
    pub fn bound(&mut self, bytes: u64) {
        self.memory.bound(bytes);
        self.make_room();
    }

    /// Bytes of memory that are kept, those that wait to be written included.
    pub fn bytes(&self) -> u64 {
        self.memory.bytes() + self.disk.as_ref().map_or(0, Disk::waiting_bytes)
    }

    /// Finds what is known of a prompt; its last token is read in any case, for its logits.
    pub fn find(&mut self, model: &EngineModel, owner: &Owner, prompt: &[u32]) -> Known {
        let wanted = &prompt[..prompt.len() - 1];
        let (cache, cache_use) = self.memory.find(owner, wanted);
        let cache = cache.unwrap_or_else(|| model.new_cache());
        let enough = cache_use.tokens + WORTH_READING;
        let disk = self.disk_of(owner).filter(|_| wanted.len() >= enough);
        match disk.and_then(|disk| disk.find(&owner.client, wanted, enough)) {
            Some(loading) => Known::Reading(loading, cache, cache_use),
            None => Known::Cache(cache, cache_use),
        }
    }

    /// Keeps the tokens of a sequence that are in its cache.
    pub fn keep(&mut self, owner: &Owner, tokens: &[u32], cache: KvCache) {
        let tokens = &tokens[..cache.len()];
        if tokens.is_empty() {
            return;
        }
        self.write(owner, tokens, &cache);
        self.memory.keep(owner, tokens, cache);
        self.make_room();
    }

    /// Writes the tokens of a sequence that are in its cache to disk.
    pub fn write(&mut self, owner: &Owner, tokens: &[u32], cache: &KvCache) {
        if let Some(disk) = self.disk_of(owner) {
            disk.write(&owner.client, &tokens[..cache.len()], cache.clone());
            self.make_room();
        }
    }

    /// The folder, where prompts of this owner are kept in it.
    fn disk_of(&self, owner: &Owner) -> Option<&Disk> {
        self.disk.as_ref().filter(|_| owner.slot.is_none())
    }

    /// Does what is asked of a slot.
    pub fn follow(&mut self, order: Order) {
        // A caller that has left hears nothing.
        match order {
            Order::Find { owner, found } => {
                let _ = found.send(self.memory.last(&owner));
            }
            Order::MakeRoom { bytes, made } => {
                let waiting = self.disk.as_ref().map_or(0, Disk::waiting_bytes);
                let fits = self.memory.fits(bytes);
                let _ = made.send(fits && self.memory.make_room(waiting.saturating_add(bytes)));
            }
            Order::Keep { owner, tokens, cache, kept } => {
                self.keep(&owner, &tokens, cache);
                let _ = kept.send(());
            }
            Order::Erase { owner, erased } => {
                let tokens = self.memory.erase(&owner);
                if let Some(disk) = self.disk_of(&owner) {
                    disk.erase(&owner.client);
                }
                let _ = erased.send(tokens);
            }
        }
    }

    /// Pages that wait to be written count as kept. Returns whether all of them have room.
    fn make_room(&mut self) -> bool {
        let waiting = self.disk.as_ref().map_or(0, Disk::waiting_bytes);
        self.memory.make_room(waiting)
    }

    /// Waits for the disk until what is kept is within its bounds, so that a memory plan holds.
    pub fn settle(&mut self) {
        if !self.make_room()
            && let Some(disk) = &self.disk
        {
            disk.flush();
        }
    }
}

/// Why no more of `wanted` tokens is known than `known`: a kept sequence begins with `common` of
/// them, and has `kept` tokens in all.
fn miss(wanted: usize, known: usize, common: Option<(usize, usize)>) -> Option<String> {
    match common {
        _ if known == wanted => None,
        None => Some("nothing of this client is kept".into()),
        Some((common, kept)) if common < kept.min(wanted) => match common == known {
            true => Some(format!("differs at token {}", grouped(common))),
            false => Some(format!(
                "differs at token {}, and this model's state was kept at {}",
                grouped(common),
                grouped(known)
            )),
        },
        Some((common, _)) if common == known => Some(goes_on_after(known)),
        Some(_) => Some(format!("this model's state was kept at token {}", grouped(known))),
    }
}

/// The reason of a prompt that is longer than what was kept.
pub(super) fn goes_on_after(token: usize) -> String {
    format!("goes on after token {}", grouped(token))
}

/// A number with a comma before each three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_says_why() {
        assert_eq!(miss(9, 9, Some((9, 20))), None);
        assert_eq!(miss(9, 0, None).unwrap(), "nothing of this client is kept");
        let differs = miss(38_925, 3_737, Some((3_737, 5_000)));
        assert_eq!(differs.unwrap(), "differs at token 3,737");
        assert_eq!(miss(9, 4, Some((4, 4))).unwrap(), "goes on after token 4");
        let cut = miss(2_000_000, 64, Some((1_000_000, 1_000_001)));
        assert_eq!(
            cut.unwrap(),
            "differs at token 1,000,000, and this model's state was kept at 64"
        );
        assert_eq!(miss(9, 0, Some((9, 20))).unwrap(), "this model's state was kept at token 0");
    }
}
