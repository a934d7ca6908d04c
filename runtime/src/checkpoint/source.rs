//! Reads bytes of a model's files, bypassing the page cache if the file system supports it.
//!
//! The expert store reads through [`ByteSource`]; tests substitute one that fails or stalls on
//! demand. [`Files`] are the model's own files.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::WeightsError;
use crate::bytes::Pages;
use crate::gguf::Gguf;

/// Reads bytes of a model's files.
pub trait ByteSource: Send + Sync {
    /// Reads from `offset` of file number `part` into `into`. At least the first `needed` bytes
    /// must be read; the rest only as far as the file extends. `offset` and the length of `into`
    /// are multiples of [`Pages::SIZE`].
    fn read(&self, part: usize, offset: u64, into: &mut [u8], needed: usize) -> io::Result<()>;
}

/// The files of a model.
pub struct Files {
    parts: Vec<Part>,
}

struct Part {
    path: PathBuf,
    buffered: File,
    /// Opened for direct reads; `None` if the file system does not support them.
    direct: Option<File>,
    /// Whether a direct read was refused, after which no more are attempted.
    refused: AtomicBool,
    /// Length and modification time on opening.
    state: FileState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct FileState {
    len: u64,
    modified: (i64, i64),
}

impl FileState {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { len: metadata.len(), modified })
    }
}

impl Files {
    /// Opens the files of `gguf`. `direct` requests reads that bypass the page cache.
    pub fn open(gguf: &Gguf, direct: bool) -> Result<Arc<Self>, (PathBuf, io::Error)> {
        let open = |(path, len): (&Path, u64)| {
            Part::open(path, len, direct).map_err(|error| (path.to_path_buf(), error))
        };
        Ok(Arc::new(Self { parts: gguf.files().map(open).collect::<Result<_, _>>()? }))
    }

    /// Whether all reads still bypass the page cache.
    pub fn is_direct(&self) -> bool {
        let direct = |part: &Part| part.direct.is_some() && !part.refused.load(Ordering::Relaxed);
        self.parts.iter().all(direct)
    }
}

impl Part {
    fn open(path: &Path, len: u64, direct: bool) -> io::Result<Self> {
        let buffered = File::open(path)?;
        let state = FileState::of(&buffered)?;
        if state.len != len {
            return Err(changed(path));
        }
        let direct = direct
            .then(|| open_direct(path))
            .flatten()
            // The name may refer to another file by now.
            .filter(|file| FileState::of(file).is_ok_and(|found| found == state));
        let refused = AtomicBool::new(false);
        Ok(Self { path: path.to_path_buf(), buffered, direct, refused, state })
    }

    fn read(&self, offset: u64, into: &mut [u8], needed: usize) -> io::Result<()> {
        match &self.direct {
            Some(file) if !self.refused.load(Ordering::Relaxed) => {
                match read_at_least(file, offset, into, needed, Pages::SIZE) {
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        self.refused.store(true, Ordering::Relaxed);
                        self.read_buffered(offset, into, needed)
                    }
                    result => result,
                }
            }
            _ => self.read_buffered(offset, into, needed),
        }?;
        // A page that is overwritten after it was verified would be used in computations.
        if FileState::of(&self.buffered)? == self.state { Ok(()) } else { Err(changed(&self.path)) }
    }

    fn read_buffered(&self, offset: u64, into: &mut [u8], needed: usize) -> io::Result<()> {
        read_at_least(&self.buffered, offset, &mut into[..needed], needed, 1)?;
        forget(&self.buffered, offset, needed);
        Ok(())
    }
}

/// The mapped files of a model, watched for changes: a page that changes after it was verified would
/// be used in computations.
pub struct Watch {
    files: Vec<(PathBuf, File, FileState)>,
}

impl Watch {
    /// Watches the files of `gguf`.
    ///
    /// # Errors
    /// With the file that cannot be opened, or has changed since it was mapped.
    pub fn open(gguf: &Gguf) -> Result<Self, WeightsError> {
        let open = |(path, len): (&Path, u64)| {
            let in_io = |source| WeightsError::Io { path: path.into(), source };
            let file = File::open(path).map_err(in_io)?;
            let state = FileState::of(&file).map_err(in_io)?;
            match state.len == len {
                true => Ok((path.to_path_buf(), file, state)),
                false => Err(WeightsError::Changed { path: path.into() }),
            }
        };
        Ok(Self { files: gguf.files().map(open).collect::<Result<_, _>>()? })
    }

    /// Checks that all files have the length and the time of change that they had.
    ///
    /// # Errors
    /// With the file that has changed.
    pub fn check(&self) -> Result<(), WeightsError> {
        for (path, file, state) in &self.files {
            let found = FileState::of(file);
            let found = found.map_err(|source| WeightsError::Io { path: path.clone(), source })?;
            if found != *state {
                return Err(WeightsError::Changed { path: path.clone() });
            }
        }
        Ok(())
    }
}

fn changed(path: &Path) -> io::Error {
    let problem = "the file was changed while it is in use; load the model again";
    io::Error::other(format!("{}: {problem}", path.display()))
}

/// Reads until `needed` bytes have been read. A short read is continued from the last whole `unit`.
fn read_at_least(
    file: &File,
    offset: u64,
    into: &mut [u8],
    needed: usize,
    unit: usize,
) -> io::Result<()> {
    let mut done = 0;
    while done < needed {
        match file.read_at(&mut into[done..], offset + done as u64) {
            Ok(read) if done + read >= needed => return Ok(()),
            // A direct read ends within a unit only at the end of the file.
            Ok(read) if read < unit => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read / unit * unit,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Opens a file for reads that bypass the page cache, if system and file system support them.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
    File::options().read(true).custom_flags(flags).open(path).ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn open_direct(_path: &Path) -> Option<File> {
    None
}

/// Advises the system to drop cached pages of the data read: the cached copy is useless and would
/// count against a cgroup's limit. A system that ignores the advice drops the pages when it needs
/// the memory.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn forget(file: &File, offset: u64, len: usize) {
    let len = std::num::NonZeroU64::new(len as u64);
    let _ = rustix::fs::fadvise(file, offset, len, rustix::fs::Advice::DontNeed);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn forget(_file: &File, _offset: u64, _len: usize) {}

impl ByteSource for Files {
    fn read(&self, part: usize, offset: u64, into: &mut [u8], needed: usize) -> io::Result<()> {
        let part = self.parts.get(part).ok_or(io::ErrorKind::NotFound)?;
        part.read(offset, into, needed.min(into.len()))
    }
}
