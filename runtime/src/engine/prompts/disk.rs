//! Reads and writes segments on a thread of its own, so that running answers do not wait for the
//! disk. Reads go first.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::PromptCacheOptions;
use super::index::{Index, Link, Segment};
use super::segment::{self, Head, Kind, Name};
use crate::model::cache::KvCache;

/// Sequences that wait to be written. If the disk is slower than the model, more are not written.
const MOST_WRITES: usize = 8;
const SECRET: &str = "secret";
const SECRET_BYTES: usize = 32;

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: prompts cannot be kept there: {problem}")]
pub struct PromptFolderError {
    /// The folder.
    pub path: PathBuf,
    /// Description of the problem and its remedy.
    pub problem: String,
}

/// Prompts in a folder.
pub(in crate::engine) struct Disk {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    folder: PathBuf,
    kind: Kind,
    secret: Vec<u8>,
    limit: u64,
    max_age: std::time::Duration,
    /// A cache without positions, to be filled.
    empty: KvCache,
    index: Mutex<Index>,
    jobs: Mutex<Jobs>,
    changed: Condvar,
    /// Called after a read.
    notify: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Jobs {
    reads: VecDeque<Load>,
    writes: VecDeque<Save>,
    /// Bytes of caches that wait to be written or are being written.
    waiting_bytes: u64,
    stop: bool,
}

struct Load {
    links: Vec<Link>,
    result: Arc<OnceLock<Option<KvCache>>>,
}

struct Save {
    client: Name,
    tokens: Vec<u32>,
    cache: KvCache,
}

/// A read that was requested.
pub(in crate::engine) struct Loading {
    result: Arc<OnceLock<Option<KvCache>>>,
}

impl Loading {
    /// The cache, once it has been read; an inner `None` if the files are of no use.
    pub fn get(&self) -> Option<Option<KvCache>> {
        self.result.get().cloned()
    }
}

impl Disk {
    /// Opens or creates a folder. `empty` is a cache of the model without positions.
    pub fn open(
        options: &PromptCacheOptions,
        folder: &Path,
        kind: Kind,
        empty: KvCache,
        notify: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Self, PromptFolderError> {
        let error = |problem: String| PromptFolderError { path: folder.into(), problem };
        let io = |cause: io::Error| error(cause.to_string());
        create(folder).map_err(io)?;
        if !is_private(folder).map_err(io)? {
            return Err(error(
                "other users have access; run chmod 700, or name a new folder".into(),
            ));
        }
        let secret = secret(&folder.join(SECRET)).map_err(io)?;
        let index = scan(folder, kind).map_err(io)?;
        let shared = Arc::new(Shared {
            folder: folder.into(),
            kind,
            secret,
            limit: options.disk,
            max_age: options.max_age,
            empty,
            index: Mutex::new(index),
            jobs: Mutex::default(),
            changed: Condvar::new(),
            notify,
        });
        shared.clean();
        let thread = std::thread::Builder::new().name("vaquita-prompts".into());
        let works = shared.clone();
        let thread = thread.spawn(move || works.work()).map_err(io)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Starts reading the longest part of `wanted` that the client's files hold, if it is at least
    /// `enough` tokens.
    pub fn find(&self, client: &str, wanted: &[u32], enough: usize) -> Option<Loading> {
        let shared = &self.shared;
        let links = lock(&shared.index).find(shared.client(client), wanted, shared.whole());
        links.last().filter(|link| link.len >= enough)?;
        let result = Arc::new(OnceLock::new());
        lock(&shared.jobs).reads.push_back(Load { links, result: result.clone() });
        shared.changed.notify_all();
        Some(Loading { result })
    }

    /// Writes what no file holds yet of a sequence, later.
    pub fn write(&self, client: &str, tokens: &[u32], cache: KvCache) {
        let client = self.shared.client(client);
        let mut jobs = lock(&self.shared.jobs);
        if jobs.writes.len() < MOST_WRITES {
            jobs.waiting_bytes += cache.bytes() as u64;
            jobs.writes.push_back(Save { client, tokens: tokens.to_vec(), cache });
            self.shared.changed.notify_all();
        }
    }

    /// Deletes the files of a client.
    pub fn erase(&self, client: &str) {
        self.flush();
        let removed = lock(&self.shared.index).remove_client(self.shared.client(client));
        self.shared.delete(removed);
    }

    /// Bytes of caches that wait to be written.
    pub fn waiting_bytes(&self) -> u64 {
        lock(&self.shared.jobs).waiting_bytes
    }

    /// Waits until everything is written.
    pub fn flush(&self) {
        let mut jobs = lock(&self.shared.jobs);
        while jobs.waiting_bytes > 0 {
            jobs = self.shared.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        lock(&self.shared.jobs).stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // after a panic there, files are missing
        }
    }
}

impl Shared {
    /// Whether sequences can only be cut where a segment ends.
    fn whole(&self) -> bool {
        !self.empty.keeps_all()
    }

    fn client(&self, client: &str) -> Name {
        self.hash(&[client.as_bytes()])
    }

    /// Keyed hash, so that names tell nothing about clients and texts.
    fn hash(&self, parts: &[&[u8]]) -> Name {
        let mut hash = Sha256::new();
        hash.update(&self.secret);
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut name = [0; 16];
        name.copy_from_slice(&hash.finalize()[..16]);
        name
    }

    fn work(&self) {
        loop {
            let mut jobs = lock(&self.jobs);
            if let Some(Load { links, result }) = jobs.reads.pop_front() {
                drop(jobs);
                let cache = catch_unwind(AssertUnwindSafe(|| self.read(&links)));
                let _ = result.set(cache.unwrap_or(None));
                (self.notify)();
            } else if let Some(Save { client, tokens, cache }) = jobs.writes.pop_front() {
                drop(jobs);
                let bytes = cache.bytes() as u64;
                // A full disk is a miss later.
                let _ = catch_unwind(AssertUnwindSafe(|| self.write(client, &tokens, &cache)));
                drop(cache);
                lock(&self.jobs).waiting_bytes -= bytes;
                self.changed.notify_all();
            } else if jobs.stop {
                return;
            } else {
                drop(self.changed.wait(jobs));
            }
        }
    }

    fn read(&self, links: &[Link]) -> Option<KvCache> {
        let mut cache = self.empty.clone();
        for Link { name, head, len } in links {
            let path = segment::path(&self.folder, *name);
            if segment::read_rows(&path, self.kind, head, *len, &mut cache).is_none() {
                self.delete(lock(&self.index).remove(*name));
                return None;
            }
        }
        let len = links.last()?.len;
        if !cache.holds(len) {
            return None;
        }
        self.touch(links);
        Some(cache)
    }

    fn write(&self, client: Name, tokens: &[u32], cache: &KvCache) -> io::Result<()> {
        let links = lock(&self.index).find(client, tokens, self.whole());
        self.touch(&links);
        let base = links.last().map_or(0, |link| link.len);
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let model = self.kind.model.to_le_bytes();
        let name = self.hash(&[&model, self.kind.cache.name().as_bytes(), &client, &bytes]);
        if base == tokens.len() || lock(&self.index).contains(name) {
            return Ok(());
        }
        let parent = links.last().map(|link| link.name);
        let head = Head { client, parent, base, tokens: tokens[base..].to_vec() };
        let bytes = segment::write(&segment::path(&self.folder, name), self.kind, &head, cache)?;
        let segment = Segment { head: Some(head), bytes, used: SystemTime::now() };
        lock(&self.index).insert(name, segment);
        self.clean();
        Ok(())
    }

    fn touch(&self, links: &[Link]) {
        let now = SystemTime::now();
        lock(&self.index).touch(links, now);
        for link in links {
            let file = File::options().append(true).open(segment::path(&self.folder, link.name));
            let _ = file.and_then(|file| file.set_modified(now)); // it only ages sooner
        }
    }

    /// Deletes what is too old or too much.
    fn clean(&self) {
        let oldest = SystemTime::now().checked_sub(self.max_age);
        let oldest = oldest.unwrap_or(SystemTime::UNIX_EPOCH);
        self.delete(lock(&self.index).evict(self.limit, oldest));
    }

    fn delete(&self, names: Vec<Name>) {
        for name in names {
            let _ = fs::remove_file(segment::path(&self.folder, name)); // another process may have
        }
    }
}

/// Files of the folder. Temporary files of a process that was killed are deleted.
fn scan(folder: &Path, kind: Kind) -> io::Result<Index> {
    let mut index = Index::default();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "part") {
            let _ = fs::remove_file(&path);
        }
        let (Some(name), Ok(metadata)) = (segment::name(&path), fs::symlink_metadata(&path)) else {
            continue;
        };
        if metadata.is_file() {
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let head = segment::read_head(&path, kind);
            index.insert(name, Segment { head, bytes: metadata.len(), used });
        }
    }
    for name in index.remove_orphans() {
        let _ = fs::remove_file(segment::path(folder, name));
    }
    Ok(index)
}

fn create(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Whether only the owner has access.
fn is_private(folder: &Path) -> io::Result<bool> {
    let metadata = fs::metadata(folder)?;
    #[cfg(unix)]
    return Ok(std::os::unix::fs::MetadataExt::mode(&metadata) & 0o077 == 0);
    #[cfg(not(unix))]
    Ok(metadata.is_dir())
}

/// The secret of a folder, which is made of the system's random numbers when it is first needed.
fn secret(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Ok(secret) if secret.len() == SECRET_BYTES => return Ok(secret),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {} // cut short: what it named is lost
    }
    let number = |at: usize| RandomState::new().hash_one(at).to_le_bytes();
    let secret: Vec<u8> = (0..SECRET_BYTES / 8).flat_map(number).collect();
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(&secret)?;
    Ok(secret)
}

/// Values are consistent after each change, so a poisoned lock is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
