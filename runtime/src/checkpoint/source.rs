//! Where bytes of a model are read from, past the page cache where the file system allows it.
//!
//! [`Source`] is what the expert store reads through; tests put one in between that fails or stalls on
//! demand. [`Files`] are the model's own.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bytes::Pages;
use crate::gguf::Gguf;

/// Reads bytes of a model's files.
pub trait Source: Send + Sync {
    /// Reads from `offset` of file number `part` into `into`; at least the first `needed` bytes must come,
    /// the others only where the file has them. `offset` and `into` are made of whole [`Pages`].
    fn read(&self, part: usize, offset: u64, into: &mut [u8], needed: usize) -> io::Result<()>;
}

/// The files of a model.
pub struct Files {
    parts: Vec<Part>,
}

struct Part {
    path: PathBuf,
    buffered: File,
    /// Opened for reads past the page cache; `None` where the file system refuses that.
    direct: Option<File>,
    /// A direct read was refused, so no further ones are tried.
    refused: AtomicBool,
    /// Length and time of change when it was opened.
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
    /// Opens the files that `gguf` was read from. `direct` asks for reads past the page cache.
    pub fn open(gguf: &Gguf, direct: bool) -> Result<Arc<Self>, (PathBuf, io::Error)> {
        let open = |(path, len): (&Path, u64)| {
            Part::open(path, len, direct).map_err(|error| (path.to_path_buf(), error))
        };
        Ok(Arc::new(Self { parts: gguf.files().map(open).collect::<Result<_, _>>()? }))
    }

    /// Whether all reads still go past the page cache.
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
            // The name may stand for another file by now.
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
        // A page that is overwritten after it was verified would be computed with.
        if FileState::of(&self.buffered)? == self.state { Ok(()) } else { Err(changed(&self.path)) }
    }

    fn read_buffered(&self, offset: u64, into: &mut [u8], needed: usize) -> io::Result<()> {
        read_at_least(&self.buffered, offset, &mut into[..needed], needed, 1)?;
        forget(&self.buffered, offset, needed);
        Ok(())
    }
}

fn changed(path: &Path) -> io::Error {
    let problem = "the file was changed while it is in use; load the model again";
    io::Error::other(format!("{}: {problem}", path.display()))
}

/// Reads until `needed` bytes are there. A read that stops short goes on from the last whole `unit`.
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
            // Direct reads end within a unit only where the file does.
            Ok(read) if read < unit => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read / unit * unit,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Opens a file for reads past the page cache, where system and file system have them.
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

/// Says that the page cache need not keep what was read: that copy is of no use, and would count against a
/// cgroup's limit. It is advice; where it is not taken, the system drops the pages when it needs them.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn forget(file: &File, offset: u64, len: usize) {
    let len = std::num::NonZeroU64::new(len as u64);
    let _ = rustix::fs::fadvise(file, offset, len, rustix::fs::Advice::DontNeed);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn forget(_file: &File, _offset: u64, _len: usize) {}

impl Source for Files {
    fn read(&self, part: usize, offset: u64, into: &mut [u8], needed: usize) -> io::Result<()> {
        let part = self.parts.get(part).ok_or(io::ErrorKind::NotFound)?;
        part.read(offset, into, needed.min(into.len()))
    }
}
