//! Fetches one content: several ranges at once, over as many connections as that takes, and checks
//! it while it arrives.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha1::Digest as _;

use crate::address::Address;
use crate::curl::Response;
use crate::error::HubError;
use crate::http::{Http, Retry, check_range};
use crate::listing::{Digest, RemoteFile};
use crate::partial::{Partial, Writer};

/// How files are fetched.
#[derive(Clone, Copy, Debug)]
pub struct FetchOptions {
    /// Ranges that are fetched at the same time.
    pub connections: usize,
    /// Length of a range in bytes: one request.
    pub range_bytes: u64,
    /// Bytes after which a range's progress is recorded; at most these are fetched again after a
    /// kill, for each connection.
    pub record_bytes: u64,
    /// When to try again.
    pub retry: Retry,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            connections: 4,
            range_bytes: 64 << 20,
            record_bytes: 4 << 20,
            retry: Retry::default(),
        }
    }
}

/// Event of a download.
#[derive(Clone, Debug)]
pub enum Notice<'a> {
    /// Bytes of all files that are here, and their total.
    Progress {
        /// Bytes that are here.
        done: u64,
        /// Bytes of all files.
        total: u64,
    },
    /// Another process fetches this file: it is waited for.
    Locked(&'a str),
    /// Another attempt follows after a pause.
    Pause(&'a HubError, Duration),
}

/// Receives [`Notice`]s, from several threads.
pub type Progress<'a> = &'a (dyn Fn(Notice<'_>) + Sync);

/// A content to fetch.
pub(crate) struct Download<'a> {
    pub http: &'a Http,
    pub options: &'a FetchOptions,
    pub address: Address,
    pub file: &'a RemoteFile,
    /// Receives the bytes of this file that are here.
    pub progress: &'a (dyn Fn(u64) + Sync),
    pub notice: Progress<'a>,
}

/// Work that remains, shared by the connections.
struct Work {
    state: Mutex<State>,
    /// Signalled when bytes were recorded, and when work ends.
    changed: Condvar,
    stopped: AtomicBool,
}

struct State {
    /// Ranges to fetch, the last one first.
    gaps: Vec<Range<u64>>,
    /// Connections at work, or waiting for the first one.
    working: usize,
    /// Whether a range was served: others may be asked for at the same time.
    serves_ranges: bool,
    failure: Option<HubError>,
    /// Address that served a range last: the hub's redirect need not be asked for again.
    direct: Option<Address>,
}

impl Work {
    fn new(mut gaps: Vec<Range<u64>>, working: usize) -> Self {
        gaps.reverse();
        let state = State { gaps, working, serves_ranges: false, failure: None, direct: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), stopped: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all connections' work for a failure. Of several, the first counts.
    fn fail(&self, error: HubError) {
        let mut state = self.state();
        self.stopped.store(true, Ordering::Relaxed);
        state.failure.get_or_insert(error);
        self.changed.notify_all();
    }

    /// Waits until the first connection knows whether ranges are served.
    fn wait_for_first(&self, connection: usize) {
        let mut state = self.state();
        while connection > 0 && !state.serves_ranges && !self.stopped.load(Ordering::Relaxed) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait(&self, time: Duration) {
        let state = self.state();
        if !self.stopped.load(Ordering::Relaxed) {
            let _ = self.changed.wait_timeout(state, time);
        }
    }
}

/// A connection at work, until dropped: also when what the caller does with a notice panics, so that
/// nobody waits for it.
struct AtWork<'a>(&'a Work);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.working -= 1;
        if std::thread::panicking() {
            self.0.stopped.store(true, Ordering::Relaxed);
        }
        self.0.changed.notify_all();
    }
}

impl Download<'_> {
    /// Fetches into `blob`. The caller holds its lock.
    pub fn run(&self, blob: &Path) -> Result<(), HubError> {
        let mut partial = Partial::open(blob, self.file.bytes)?;
        let mut result = self.fetch(&partial, self.options.range_bytes);
        if let Err(HubError::NoRanges { .. }) = result {
            partial = partial.restart()?;
            result = self.fetch(&partial, u64::MAX);
        }
        let found = result?;
        if found != self.file.digest {
            partial.delete()?;
            let (found, expected) = (found.to_string(), self.file.digest.to_string());
            return Err(HubError::Checksum { file: self.file.path.clone(), found, expected });
        }
        partial.keep(blob)
    }

    /// Fetches all that is missing and returns the checksum of the whole.
    fn fetch(&self, partial: &Partial, range_bytes: u64) -> Result<Digest, HubError> {
        let gaps = partial.done().gaps(self.file.bytes, range_bytes);
        let connections = self.options.connections.clamp(1, 64).min(gaps.len());
        let work = Work::new(gaps, connections);
        std::thread::scope(|scope| {
            for connection in 0..connections {
                let work = &work;
                scope.spawn(move || {
                    let _at_work = AtWork(work);
                    work.wait_for_first(connection);
                    if let Err(error) = self.connection(partial, work) {
                        work.fail(error);
                    }
                });
            }
            self.checksum(partial, &work)
        })
    }

    /// Computes the checksum of the file's beginning, as far as it is there, until all of it is.
    fn checksum(&self, partial: &Partial, work: &Work) -> Result<Digest, HubError> {
        let mut hasher = Hasher::new(self.file);
        let (mut file, mut at) = (partial.reader()?, 0);
        let mut buffer = vec![0; 1 << 20];
        let failed = HubError::io(&self.file.path);
        loop {
            let (prefix, ended) = {
                let mut state = work.state();
                loop {
                    if let Some(failure) = state.failure.take() {
                        return Err(failure);
                    }
                    let (prefix, ended) = (partial.done().prefix(), state.working == 0);
                    if prefix > at || ended {
                        break (prefix, ended);
                    }
                    state = work.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            if let Err(error) = hash(&mut file, prefix - at, &mut buffer, &mut hasher) {
                work.stopped.store(true, Ordering::Relaxed);
                work.changed.notify_all();
                return Err(failed(error));
            }
            at = prefix;
            match at == self.file.bytes {
                true if ended => return Ok(hasher.finish()),
                // A connection has panicked, as the caller of this will.
                false if ended => return Err(failed(ErrorKind::UnexpectedEof.into())),
                _ => {}
            }
        }
    }

    /// The work of one connection: one range after the other.
    fn connection(&self, partial: &Partial, work: &Work) -> Result<(), HubError> {
        loop {
            let gap = work.state().gaps.pop();
            let Some(mut gap) = gap.filter(|_| !work.stopped.load(Ordering::Relaxed)) else {
                return Ok(());
            };
            let mut failures = 0;
            while !gap.is_empty() {
                let before = gap.start;
                let Err(error) = self.stream(partial, work, &mut gap) else { continue };
                failures = if gap.start > before { 1 } else { failures + 1 };
                let Some(pause) = self.options.retry.pause_after(&error, failures) else {
                    return Err(error);
                };
                (self.notice)(Notice::Pause(&error, pause));
                let until = Instant::now() + pause;
                while let Some(left) = until.checked_duration_since(Instant::now()) {
                    work.wait(left);
                    if work.stopped.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Requests a range and writes what arrives; `gap` becomes what is still missing of it.
    fn stream(&self, partial: &Partial, work: &Work, gap: &mut Range<u64>) -> Result<(), HubError> {
        let (at, mut response) = self.request(work, gap)?;
        let whole = 0..self.file.bytes;
        check_range(&at, &response, gap, self.file.bytes)?;
        if response.status == 206 {
            let mut state = work.state();
            (state.serves_ranges, state.direct) = (true, Some(at.clone()));
            work.changed.notify_all();
        } else if *gap != whole {
            return Err(HubError::NoRanges { url: at.shown() });
        }
        let mut writer = partial.writer(gap.start)?;
        let mut copied = self.copy(&at, &mut response, &mut writer, gap.end - gap.start, work);
        // What arrived before an error is worth keeping, unless it cannot be asked for in parts.
        let recorded = writer.record();
        if response.status == 206 || copied.is_ok() {
            gap.start = recorded?;
        } else {
            recorded?;
        }
        (self.progress)(partial.done().bytes());
        work.changed.notify_all();
        if copied.is_ok() && !gap.is_empty() && !work.stopped.load(Ordering::Relaxed) {
            let problem = "the connection ended early".into();
            copied = Err(HubError::Connection { url: at.shown(), problem });
        }
        if work.stopped.load(Ordering::Relaxed) {
            gap.start = gap.end;
        }
        copied
    }

    /// Requests a range from the address that served one last, or from the hub.
    fn request(&self, work: &Work, gap: &Range<u64>) -> Result<(Address, Response), HubError> {
        let direct = work.state().direct.clone();
        if let Some(direct) = direct {
            match self.http.get(&direct, Some(gap)) {
                Ok(found) => return Ok(found),
                // The address of the storage has expired: the hub gives another.
                Err(HubError::Status { .. }) => work.state().direct = None,
                Err(error) => {
                    work.state().direct = None;
                    return Err(error);
                }
            }
        }
        self.http.get(&self.address, Some(gap))
    }

    fn copy(
        &self,
        at: &Address,
        response: &mut Response,
        writer: &mut Writer<'_>,
        mut left: u64,
        work: &Work,
    ) -> Result<(), HubError> {
        let mut buffer = vec![0; 1 << 17];
        while left > 0 && !work.stopped.load(Ordering::Relaxed) {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = response.read(at, &mut buffer[..most])?;
            if read == 0 {
                return Ok(());
            }
            writer.write(&buffer[..read])?;
            left -= read as u64;
            if writer.unrecorded_bytes() >= self.options.record_bytes {
                writer.record()?;
                (self.progress)(writer.done_bytes());
                work.changed.notify_all();
            }
        }
        Ok(())
    }
}

fn hash(
    file: &mut File,
    mut bytes: u64,
    buffer: &mut [u8],
    hasher: &mut Hasher,
) -> std::io::Result<()> {
    while bytes > 0 {
        let most = buffer.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        file.read_exact(&mut buffer[..most])?;
        hasher.update(&buffer[..most]);
        bytes -= most as u64;
    }
    Ok(())
}

/// Computes the kind of checksum that a file is published with.
enum Hasher {
    Sha256(sha2::Sha256),
    Git(sha1::Sha1),
}

impl Hasher {
    fn new(file: &RemoteFile) -> Self {
        match file.digest {
            Digest::Sha256(_) => Self::Sha256(sha2::Sha256::new()),
            Digest::Git(_) => {
                let head = format!("blob {}\0", file.bytes);
                Self::Git(sha1::Sha1::new().chain_update(head))
            }
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hex(&hasher.finalize())),
            Self::Git(hasher) => Digest::Git(hex(&hasher.finalize())),
        }
    }
}

/// Bytes of a content that are here: all of it, or what its journal says.
pub(crate) fn bytes_here(blob: &Path, file: &RemoteFile) -> u64 {
    match fs::metadata(blob) {
        Ok(found) if found.len() == file.bytes => file.bytes,
        _ => crate::partial::done(blob, file.bytes).bytes(),
    }
}
