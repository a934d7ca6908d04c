//! A folder of prompts without an engine, for sessions that read their prompts themselves.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{Disk, Kind, Loading, PromptCacheOptions, PromptFolderError, WORTH_READING};
use crate::model::Model;
use crate::model::cache::{CacheType, KvCache};
use crate::session::recall::Recall;

/// Prompts and answers in a folder. Clones share it.
#[derive(Clone)]
pub struct PromptFolder(Arc<Inner>);

struct Inner {
    disk: Mutex<Disk>,
    read: Arc<Read>,
}

/// Notified after a read.
#[derive(Default)]
struct Read {
    reads: Mutex<u64>,
    changed: Condvar,
}

impl PromptFolder {
    /// Opens or creates the folder that `options` name, for caches of type `ty` of a model with a
    /// fingerprint. `None` if they name none.
    pub fn open(
        options: &PromptCacheOptions,
        model: &Model,
        fingerprint: u64,
        ty: CacheType,
    ) -> Result<Option<Self>, PromptFolderError> {
        let Some(folder) = &options.folder else { return Ok(None) };
        let read = Arc::new(Read::default());
        let notified = read.clone();
        let notify = Box::new(move || {
            *notified.reads.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            notified.changed.notify_all();
        });
        let kind = Kind { model: fingerprint, cache: ty };
        let empty = KvCache::new(model.config(), ty);
        let disk = Disk::open(options, folder, kind, empty, notify)?;
        Ok(Some(Self(Arc::new(Inner { disk: Mutex::new(disk), read }))))
    }

    fn wait(&self, loading: &Loading) -> Option<KvCache> {
        let mut reads = self.0.read.reads.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = loading.get() {
                return found;
            }
            let waited = self.0.read.changed.wait(reads);
            reads = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Recall for PromptFolder {
    fn find(&self, tokens: &[u32], known: usize) -> Option<KvCache> {
        let enough = known + WORTH_READING;
        let disk = self.0.disk.lock().unwrap_or_else(PoisonError::into_inner);
        disk.flush(); // so that pages that wait to be written are not kept beside new ones
        let loading = (tokens.len() >= enough).then(|| disk.find("", tokens, enough))??;
        drop(disk);
        self.wait(&loading)
    }

    fn keep(&self, tokens: &[u32], cache: &KvCache) {
        let disk = self.0.disk.lock().unwrap_or_else(PoisonError::into_inner);
        disk.write("", &tokens[..cache.len().min(tokens.len())], cache.clone());
    }
}
