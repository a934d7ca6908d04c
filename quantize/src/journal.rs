//! Work that outlives its process: a file under a temporary name, and beside it a journal of what is durably in it.
//!
//! For `model.gguf` these are `.model.gguf.partial` and `.model.gguf.journal`. The journal's first line names the work by a
//! fingerprint; each further line is a step whose bytes were on disk before it was written. A line that was cut
//! off by a kill does not count. The next run of the same work goes on after the last step; other work begins anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::encoders::Distortion;

/// One item in the file: its checksum, and the bits of its error and energy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry(u32, u64, u64);

impl Entry {
    pub fn new(checksum: u32, distortion: Distortion) -> Self {
        Self(checksum, distortion.squared_error.to_bits(), distortion.energy.to_bits())
    }

    pub fn checksum(self) -> u32 {
        self.0
    }

    pub fn distortion(self) -> Distortion {
        Distortion { squared_error: f64::from_bits(self.1), energy: f64::from_bits(self.2) }
    }
}

/// A file in the making and its journal, both locked against another process.
pub struct Journal {
    target: PathBuf,
    partial: PathBuf,
    path: PathBuf,
    lines: File,
    items: usize,
}

impl Journal {
    /// Opens or creates both, and gives the file and the items that are in it. There are none where the journal
    /// is of other work.
    pub fn open(target: &Path, fingerprint: &str) -> io::Result<(Self, File, Vec<Entry>)> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
        let [partial, path] =
            ["partial", "journal"].map(|end| target.with_file_name(format!(".{name}.{end}")));
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut lines = options.open(&path)?;
        lines.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::ErrorKind::ResourceBusy.into(),
            fs::TryLockError::Error(error) => error,
        })?;
        let text = io::read_to_string(&lines).unwrap_or_default();
        let (entries, len) = read(&text, fingerprint);
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
        let mut journal = Self { target: target.into(), partial, path, lines, items };
        if len == 0 {
            journal.restart(&file, fingerprint)?;
        }
        Ok((journal, file, entries))
    }

    /// Begins anew.
    pub fn restart(&mut self, file: &File, fingerprint: &str) -> io::Result<()> {
        self.items = 0;
        self.lines.set_len(0)?;
        self.lines.rewind()?;
        file.set_len(0)?;
        self.line(&fingerprint)
    }

    /// Whether there is nothing that another run could go on from.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// The file in the making.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Writes down a step whose bytes are on disk.
    pub fn step(&mut self, entries: &[Entry]) -> io::Result<()> {
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

    /// Gives the file its name, durably. It must be on disk already.
    pub fn keep(self) -> io::Result<()> {
        fs::rename(&self.partial, &self.target)?;
        fs::remove_file(&self.path)?;
        crate::partial::sync_folder(&self.target)
    }

    /// Removes both.
    pub fn discard(self) {
        // Nothing is lost if this fails; the error that led here is the one to report.
        let _ = fs::remove_file(&self.partial);
        let _ = fs::remove_file(&self.path);
    }
}

/// The items of a journal, and the bytes of its whole lines; nothing where it is of other work.
fn read(text: &str, fingerprint: &str) -> (Vec<Entry>, u64) {
    let (mut entries, mut len) = (Vec::new(), 0);
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let Some(whole) = line.strip_suffix('\n') else { break };
        if at == 0 {
            if serde_json::from_str::<String>(whole).ok().as_deref() != Some(fingerprint) {
                return (Vec::new(), 0);
            }
        } else {
            let Ok(step) = serde_json::from_str::<Vec<Entry>>(whole) else { break };
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
        Journal::open(target, fingerprint).unwrap().2
    }

    #[test]
    fn steps_are_found_again_and_a_cut_line_is_not_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.gguf");
        let (mut journal, ..) = Journal::open(&target, "a").unwrap();
        journal.step(&[entry(1), entry(2)]).unwrap();
        journal.step(&[entry(3)]).unwrap();
        let path = journal.path.clone();
        drop(journal);
        assert_eq!(entries(&target, "a"), [entry(1), entry(2), entry(3)]);
        assert_eq!(entry(1).distortion().squared_error, 0.1);
        let text = fs::read(&path).unwrap();
        for len in 0..text.len() {
            fs::write(&path, &text[..len]).unwrap();
            assert!([0, 2].contains(&entries(&target, "a").len()), "{len}");
        }
    }

    #[test]
    fn other_work_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.gguf");
        let (mut journal, mut file, _) = Journal::open(&target, "a").unwrap();
        file.write_all(b"bytes").unwrap();
        journal.step(&[entry(1)]).unwrap();
        drop(journal);
        let (journal, file, found) = Journal::open(&target, "b").unwrap();
        assert!(found.is_empty() && file.metadata().unwrap().len() == 0);
        drop(journal);
        assert!(entries(&target, "a").is_empty());
    }

    #[test]
    fn two_processes_cannot_make_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.gguf");
        let held = Journal::open(&target, "a").unwrap();
        let error = Journal::open(&target, "a").map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        drop(held);
    }
}
