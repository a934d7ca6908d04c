//! A content that is being fetched: a file with holes, and a journal of the ranges that are on disk.
//!
//! Both lie beside the contents of the cache, under names that the hub's own tools do not use:
//! theirs (`.incomplete`) are files without holes.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::HubError;
use crate::ranges::Ranges;

/// Longest journal that is read.
const JOURNAL_BYTES: u64 = 64 << 20;

/// An unfinished content.
pub(crate) struct Partial {
    path: PathBuf,
    journal_path: PathBuf,
    state: Mutex<State>,
}

struct State {
    done: Ranges,
    journal: File,
}

/// Ranges of an unfinished content that are on disk, without opening it for writing.
pub(crate) fn done(blob: &Path, len: u64) -> Ranges {
    read_journal(&journal_path(blob), &data_path(blob), len)
}

fn data_path(blob: &Path) -> PathBuf {
    blob.with_added_extension("vaquita")
}

fn journal_path(blob: &Path) -> PathBuf {
    blob.with_added_extension("vaquita-journal")
}

impl Partial {
    /// Opens what is there of a content of `len` bytes, or begins it. The caller holds its lock.
    pub fn open(blob: &Path, len: u64) -> Result<Self, HubError> {
        let (path, journal_path) = (data_path(blob), journal_path(blob));
        let done = read_journal(&journal_path, &path, len);
        Self::with(path, journal_path, done)
    }

    fn with(path: PathBuf, journal_path: PathBuf, done: Ranges) -> Result<Self, HubError> {
        let mut options = File::options();
        let data = options.create(true).write(true).truncate(false).open(&path);
        data.map_err(HubError::io(&path))?;
        // Written again whole: a line that a kill has cut off would spoil the next.
        let next = journal_path.with_added_extension("new");
        let text: String = done.iter().map(|range| line(&range)).collect();
        fs::write(&next, text).map_err(HubError::io(&next))?;
        fs::rename(&next, &journal_path).map_err(HubError::io(&journal_path))?;
        let journal = File::options().append(true).open(&journal_path);
        let journal = journal.map_err(HubError::io(&journal_path))?;
        Ok(Self { path, journal_path, state: Mutex::new(State { done, journal }) })
    }

    /// Forgets what is there.
    pub fn restart(self) -> Result<Self, HubError> {
        let Self { path, journal_path, .. } = self;
        fs::remove_file(&path).map_err(HubError::io(&path))?;
        Self::with(path, journal_path, Ranges::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ranges that are on disk.
    pub fn done(&self) -> Ranges {
        self.state().done.clone()
    }

    /// A handle of its own for writing from `at` on.
    pub fn writer(&self, at: u64) -> Result<Writer<'_>, HubError> {
        let file = File::options().write(true).open(&self.path);
        let mut file = file.map_err(HubError::io(&self.path))?;
        file.seek(SeekFrom::Start(at)).map_err(HubError::io(&self.path))?;
        Ok(Writer { partial: self, file, unrecorded: at..at })
    }

    /// A handle for reading.
    pub fn reader(&self) -> Result<File, HubError> {
        File::open(&self.path).map_err(HubError::io(&self.path))
    }

    /// Turns the whole file into the content `blob`.
    pub fn keep(self, blob: &Path) -> Result<(), HubError> {
        let file = File::options().write(true).open(&self.path);
        file.and_then(|file| file.sync_all()).map_err(HubError::io(&self.path))?;
        fs::rename(&self.path, blob).map_err(HubError::io(blob))?;
        fs::remove_file(&self.journal_path).map_err(HubError::io(&self.journal_path))
    }

    /// Deletes it.
    pub fn delete(self) -> Result<(), HubError> {
        fs::remove_file(&self.journal_path).map_err(HubError::io(&self.journal_path))?;
        fs::remove_file(&self.path).map_err(HubError::io(&self.path))
    }
}

/// Writes a range of an unfinished content.
pub(crate) struct Writer<'a> {
    partial: &'a Partial,
    file: File,
    /// Written, and not in the journal yet.
    unrecorded: Range<u64>,
}

impl Writer<'_> {
    /// Appends to the range.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(HubError::io(&self.partial.path))?;
        self.unrecorded.end += bytes.len() as u64;
        Ok(())
    }

    /// Bytes of the content that are on disk.
    pub fn done_bytes(&self) -> u64 {
        self.partial.state().done.bytes()
    }

    /// Bytes that are written and not recorded yet.
    pub fn unrecorded_bytes(&self) -> u64 {
        self.unrecorded.end - self.unrecorded.start
    }

    /// Records what is written, once it is on disk. Returns its end.
    pub fn record(&mut self) -> Result<u64, HubError> {
        if !self.unrecorded.is_empty() {
            self.file.sync_data().map_err(HubError::io(&self.partial.path))?;
            let mut state = self.partial.state();
            let written = state.journal.write_all(line(&self.unrecorded).as_bytes());
            written.map_err(HubError::io(&self.partial.journal_path))?;
            state.done.insert(self.unrecorded.clone());
            self.unrecorded.start = self.unrecorded.end;
        }
        Ok(self.unrecorded.end)
    }
}

fn line(range: &Range<u64>) -> String {
    format!("{} {}\n", range.start, range.end)
}

/// Reads a journal up to its first line that makes no sense, as the last one after a kill.
fn read_journal(path: &Path, data: &Path, len: u64) -> Ranges {
    let mut done = Ranges::default();
    let there = fs::metadata(data).map_or(0, |file| file.len()).min(len);
    let short = fs::metadata(path).is_ok_and(|file| file.len() <= JOURNAL_BYTES);
    let text = short.then(|| fs::read_to_string(path).ok()).flatten().unwrap_or_default();
    for line in text.split_inclusive('\n') {
        let range = line.strip_suffix('\n').and_then(|line| line.split_once(' '));
        let range = range.and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
        match range {
            Some(range) if range.start < range.end && range.end <= there => done.insert(range),
            _ => break,
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_tells_what_is_on_disk_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("blob");
        let partial = Partial::open(&blob, 100).unwrap();
        let mut writer = partial.writer(10).unwrap();
        writer.write(&[1; 20]).unwrap();
        assert_eq!(partial.done(), Ranges::default());
        assert_eq!((writer.unrecorded_bytes(), writer.record().unwrap()), (20, 30));
        writer.write(&[1; 5]).unwrap();
        drop(writer);
        drop(partial);
        // As a kill leaves it: a line that is cut off, and one beyond the file.
        let journal = journal_path(&blob);
        for torn in ["30 3", "90 95\n", "30 30\n", "x\n"] {
            let whole = fs::read_to_string(&journal).unwrap();
            fs::write(&journal, whole + torn).unwrap();
            let partial = Partial::open(&blob, 100).unwrap();
            assert_eq!(
                (partial.done().bytes(), partial.done().gaps(100, 99)),
                (20, vec![0..10, 30..100]),
                "{torn:?}"
            );
            assert_eq!(fs::read_to_string(&journal).unwrap(), "10 30\n");
        }
        let partial = Partial::open(&blob, 100).unwrap().restart().unwrap();
        assert_eq!(partial.done(), Ranges::default());
        partial.delete().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
