//! Resumable work: a file under a temporary name, and a journal of the steps that are durably in
//! it.
//!
//! For `model.gguf` these are `.model.gguf.partial` and `.model.gguf.journal`. The journal's first
//! line identifies the work by a fingerprint and states the total number of entries; each further
//! line is a step whose bytes were on disk before the line was written. A truncated last line is
//! ignored. The next run of the same work resumes after the last step; other work starts over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::encoders::Distortion;
use crate::partial::{beside, lock, sync_folder};

/// One item of the file: its checksum, and the bits of its error and energy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry(u32, u64, u64);

impl Entry {
    /// Records an item that was written.
    pub fn new(checksum: u32, distortion: Distortion) -> Self {
        Self(checksum, distortion.squared_error.to_bits(), distortion.energy.to_bits())
    }

    /// Checksum of the item.
    pub fn checksum(self) -> u32 {
        self.0
    }

    /// Distortion of the item.
    pub fn distortion(self) -> Distortion {
        Distortion { squared_error: f64::from_bits(self.1), energy: f64::from_bits(self.2) }
    }
}

/// First line of a journal.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    fingerprint: String,
    entries: usize,
}

/// A partial file and its journal with entries of type `E`, both locked against other processes.
pub struct Journal<E> {
    target: PathBuf,
    partial: PathBuf,
    path: PathBuf,
    lines: File,
    items: usize,
    entry: PhantomData<E>,
}

/// Progress of the work on `target`, as (entries done, total entries); `None` without a journal.
pub fn progress(target: &Path) -> Option<(usize, usize)> {
    let text = fs::read_to_string(beside(target, "journal").ok()?).ok()?;
    let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let work: Work = serde_json::from_str(lines.next()?).ok()?;
    let steps = lines.map_while(|line| serde_json::from_str::<Vec<serde_json::Value>>(line).ok());
    Some((steps.map(|step| step.len()).sum(), work.entries))
}

impl<E: Serialize + DeserializeOwned> Journal<E> {
    /// Opens or creates file and journal, and returns the file and its entries. There are none if
    /// the journal belongs to other work. `total` is the number of entries of the complete work.
    pub fn open(
        target: &Path,
        fingerprint: &str,
        total: usize,
    ) -> io::Result<(Self, File, Vec<E>)> {
        let [partial, path] = [beside(target, "partial")?, beside(target, "journal")?];
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut lines = options.open(&path)?;
        lock(&lines)?;
        let text = io::read_to_string(&lines).unwrap_or_default();
        let work = Work { fingerprint: fingerprint.into(), entries: total };
        let (entries, len) = read(&text, &work);
        lines.set_len(len)?;
        lines.seek(io::SeekFrom::End(0))?;
        let file = match options.open(&partial) {
            Ok(file) => file,
            Err(error) => {
                let _ = fs::remove_file(&path);
                return Err(error);
            }
        };
        let items = entries.len();
        let mut journal =
            Self { target: target.into(), partial, path, lines, items, entry: PhantomData };
        if len == 0 {
            journal.begin(&file, &work)?;
        }
        Ok((journal, file, entries))
    }

    /// Starts over.
    pub fn restart(&mut self, file: &File, fingerprint: &str, total: usize) -> io::Result<()> {
        self.begin(file, &Work { fingerprint: fingerprint.into(), entries: total })
    }

    fn begin(&mut self, file: &File, work: &Work) -> io::Result<()> {
        self.items = 0;
        self.lines.set_len(0)?;
        self.lines.rewind()?;
        file.set_len(0)?;
        self.line(work)
    }

    /// Whether there are no entries to resume from.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Path of the partial file.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Records a step whose bytes are on disk.
    pub fn step(&mut self, entries: &[E]) -> io::Result<()> {
        self.line(&entries)?;
        self.items += entries.len();
        Ok(())
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.lines.write_all(text.as_bytes())?;
        self.lines.sync_data()
    }

    /// Renames the file durably. Its contents must be on disk already.
    pub fn keep(self) -> io::Result<()> {
        fs::rename(&self.partial, &self.target)?;
        fs::remove_file(&self.path)?;
        sync_folder(&self.target)
    }

    /// Removes file and journal.
    pub fn discard(self) {
        // Nothing is lost if this fails; the error that led here is the one to report.
        let _ = fs::remove_file(&self.partial);
        let _ = fs::remove_file(&self.path);
    }
}

/// The entries of a journal and the length of its complete lines; empty if it belongs to other
/// work.
fn read<E: DeserializeOwned>(text: &str, work: &Work) -> (Vec<E>, u64) {
    let (mut entries, mut len) = (Vec::new(), 0);
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let Some(whole) = line.strip_suffix('\n') else { break };
        if at == 0 {
            if serde_json::from_str::<Work>(whole).ok().as_ref() != Some(work) {
                return (Vec::new(), 0);
            }
        } else {
            let Ok(step) = serde_json::from_str::<Vec<E>>(whole) else { break };
            entries.extend(step);
        }
        len += line.len() as u64;
    }
    (entries, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(checksum: u32) -> Entry {
        Entry::new(checksum, Distortion { squared_error: 0.1, energy: 2.0 })
    }

    fn entries(target: &Path, fingerprint: &str) -> Vec<Entry> {
        Journal::open(target, fingerprint, 3).unwrap().2
    }

    #[test]
    fn steps_are_found_again_and_a_cut_line_is_not_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.gguf");
        let (mut journal, ..) = Journal::<Entry>::open(&target, "a", 3).unwrap();
        journal.step(&[entry(1), entry(2)]).unwrap();
        journal.step(&[entry(3)]).unwrap();
        let path = journal.path.clone();
        drop(journal);
        assert_eq!(progress(&target), Some((3, 3)));
        assert_eq!(entries(&target, "a"), [entry(1), entry(2), entry(3)]);
        assert_eq!(entry(1).distortion().squared_error, 0.1);
        let text = fs::read(&path).unwrap();
        for len in 0..text.len() {
            fs::write(&path, &text[..len]).unwrap();
            assert!([0, 2].contains(&entries(&target, "a").len()), "{len}");
        }
    }

    #[test]
    fn other_work_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.gguf");
        let (mut journal, mut file, _) = Journal::<Entry>::open(&target, "a", 3).unwrap();
        file.write_all(b"bytes").unwrap();
        journal.step(&[entry(1)]).unwrap();
        drop(journal);
        let (journal, file, found) = Journal::<Entry>::open(&target, "b", 3).unwrap();
        assert!(found.is_empty() && file.metadata().unwrap().len() == 0);
        drop(journal);
        assert!(entries(&target, "a").is_empty());
    }

    #[test]
    fn two_processes_cannot_make_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.gguf");
        let held = Journal::<Entry>::open(&target, "a", 3).unwrap();
        let error = Journal::<Entry>::open(&target, "a", 3).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        drop(held);
    }
}
