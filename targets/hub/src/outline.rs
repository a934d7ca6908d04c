//! The headers of a published model, without its weights: enough to say what it is and how it would
//! run, for a few megabytes instead of all of it.
//!
//! An [`Outline`] is a temporary folder whose files have their published lengths, but beyond their
//! headers they are holes. Whatever opens models from files opens it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use vaquita_runtime::gguf::{Gguf, GgufError};

use crate::error::HubError;
use crate::hub::Hub;
use crate::listing::{Listing, RemoteFile};
use crate::select::Choice;

/// Bytes that are read first of a file.
const FIRST_BYTES: u64 = 1 << 20;
/// Longest header that is read.
const LONGEST_HEADER: u64 = 256 << 20;
/// Files that are read at the same time.
const CONNECTIONS: usize = 4;

/// The headers of a choice. Dropping it deletes them.
pub struct Outline {
    folder: TempDir,
    open: Option<String>,
}

impl Outline {
    /// The file or folder to open.
    pub fn path(&self) -> PathBuf {
        match &self.open {
            Some(open) => self.folder.path().join(open),
            None => self.folder.path().into(),
        }
    }
}

impl Hub {
    /// Fetches the headers of a choice. They are not checked against the published checksums, which
    /// are of whole files.
    pub fn outline(&self, listing: &Listing, choice: &Choice) -> Result<Outline, HubError> {
        let temporary = std::env::temp_dir();
        let folder = tempfile::Builder::new().prefix("vaquita-outline-").tempdir();
        let folder = folder.map_err(HubError::io(temporary))?;
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), HubError> {
            while let Some(file) = choice.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let done = self.outline_file(listing, file, folder.path());
                // The others end with their current file.
                done.inspect_err(|_| next.store(choice.files.len(), Ordering::Relaxed))?;
            }
            Ok(())
        };
        let results: Vec<Result<(), HubError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        results.into_iter().collect::<Result<(), _>>()?;
        Ok(Outline { folder, open: choice.open.clone() })
    }

    fn outline_file(
        &self,
        listing: &Listing,
        file: &RemoteFile,
        folder: &Path,
    ) -> Result<(), HubError> {
        let path = folder.join(&file.path);
        // Checked when the listing was read; a mistake there must not write elsewhere.
        debug_assert!(
            Path::new(&file.path).components().all(|c| matches!(c, Component::Normal(_)))
        );
        let len = |head: &[u8]| -> Result<Option<u64>, HubError> {
            if file.path.ends_with(".gguf") {
                return Ok(gguf_header(head, &path));
            }
            Ok(safetensors_header(head))
        };
        let is_weights = file.path.ends_with(".gguf") || file.path.ends_with(".safetensors");
        // Configuration and tokenizer are read whole; texts for people are not.
        if file.path.ends_with(".md") || file.path.starts_with("LICENSE") {
            return Ok(());
        }
        let mut head = Vec::new();
        let mut wanted = if is_weights { FIRST_BYTES } else { file.bytes };
        loop {
            wanted = wanted.min(file.bytes).min(LONGEST_HEADER);
            let more = head.len() as u64..wanted;
            if !more.is_empty() {
                head.extend(self.read(listing, file, more)?);
            }
            let whole = head.len() as u64 == file.bytes || !is_weights;
            if whole || len(&head)?.is_some_and(|len| len <= head.len() as u64) {
                break;
            }
            if wanted == LONGEST_HEADER {
                return Err(HubError::Answer {
                    url: file.path.clone(),
                    problem: "the header is longer than any that makes sense",
                    found: format!("over {LONGEST_HEADER} bytes"),
                });
            }
            wanted = len(&head)?.unwrap_or(wanted.saturating_mul(2));
        }
        let written = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            let mut out = File::create(&path)?;
            out.write_all(&head)?;
            out.set_len(file.bytes)
        };
        written().map_err(HubError::io(&path))
    }

    /// Reads a range of a file.
    fn read(
        &self,
        listing: &Listing,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Vec<u8>, HubError> {
        let address = self.address(listing, file)?;
        self.http().range(&address, &range, file.bytes, &self.options().retry)
    }
}

/// Length of a GGUF header; `None` if `head` is too short to tell. A header that makes no sense ends
/// where it is: the error is that of whoever opens it.
fn gguf_header(head: &[u8], path: &Path) -> Option<u64> {
    match Gguf::header_len(head, path) {
        Ok(len) => Some(len),
        Err(GgufError::Truncated { .. }) => None,
        Err(_) => Some(head.len() as u64),
    }
}

/// Length of a safetensors header, with the number before it.
fn safetensors_header(head: &[u8]) -> Option<u64> {
    let len = u64::from_le_bytes(*head.first_chunk()?);
    Some(len.saturating_add(8).min(LONGEST_HEADER))
}
