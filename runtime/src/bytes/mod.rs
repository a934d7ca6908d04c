//! Shared, read-only bytes that are sliced without copying: a mapped file or owned memory; and
//! [`Pages`], memory that is filled before it is shared. [`mod@file`] opens what is read.

pub mod file;

use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

/// A cheaply cloned view of reference-counted bytes.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    range: Range<usize>,
}

#[derive(Clone)]
enum Owner {
    Mapped(Arc<Mmap>),
    Heap(Arc<Vec<u8>>),
    Pages(Arc<Pages>),
}

/// Anonymous memory in whole pages, as direct reads require; unmapped when dropped.
pub struct Pages(MmapMut);

impl Pages {
    /// Alignment for direct reads; the system's page size is a multiple of it.
    pub const SIZE: usize = 4096;

    /// Allocates zeroed pages; they occupy no memory before they are written to.
    pub fn new(len: usize) -> io::Result<Self> {
        let len = Self::rounded(len).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self(MmapMut::map_anon(len)?))
    }

    /// `len` rounded up to whole pages of the system; `None` on overflow.
    pub fn rounded(len: usize) -> Option<usize> {
        let page = rustix::param::page_size().max(Self::SIZE);
        len.max(1).checked_next_multiple_of(page)
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Bytes {
    /// Maps a whole file, read-only; where its file system cannot map, reads it.
    pub fn map(file: &File) -> io::Result<Self> {
        if let Some(mapped) = Self::try_map(file)? {
            return Ok(mapped);
        }
        let mut bytes = Vec::new();
        let mut file = file;
        file.read_to_end(&mut bytes)?;
        Ok(Self::from(bytes))
    }

    /// Maps a whole file, read-only; `None` where its file system cannot map, as some that are
    /// shared or in user space.
    pub fn try_map(file: &File) -> io::Result<Option<Self>> {
        if file.metadata()?.len() == 0 {
            return Ok(Some(Self::from(Vec::new()))); // an empty mapping is an error on some systems
        }
        // SAFETY: the mapping is private and read-only, and this code refers to it only as plain
        // bytes. If another process truncates the file while it is mapped, this process ends with
        // SIGBUS, which docs/security.md documents.
        let map = match unsafe { Mmap::map(file) } {
            Ok(map) => map,
            Err(error) if cannot_map(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let range = 0..map.len();
        Ok(Some(Self { owner: Owner::Mapped(Arc::new(map)), range }))
    }

    /// Advises the system that these bytes are not needed soon: mapped pages stop counting as this
    /// process's memory, and are read from the file again if they are accessed. No effect on owned
    /// memory.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Owner::Mapped(map) = &self.owner {
            // SAFETY: the mapping is read-only and backed by a file, so a dropped page is read back
            // with the same bytes.
            let released = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    self.range.start,
                    self.range.len(),
                )
            };
            // This is advice: a system that ignores it keeps the pages until it needs the memory.
            let _ = released;
        }
    }

    /// The sub-slice at `range`; `None` if it is out of bounds.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Self { owner: self.owner.clone(), range: start..self.range.start + range.end })
    }
}

/// Whether the error of a mapping says that the file system has none (ENODEV, EOPNOTSUPP, EINVAL,
/// EACCES of a file that is open for reading), rather than that memory is short.
fn cannot_map(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
        || matches!(
            error.kind(),
            io::ErrorKind::Unsupported
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::PermissionDenied
        )
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Owner::Heap(Arc::new(bytes)), range }
    }
}

impl From<Arc<Pages>> for Bytes {
    fn from(pages: Arc<Pages>) -> Self {
        let range = 0..pages.len();
        Self { owner: Owner::Pages(pages), range }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.owner {
            Owner::Mapped(map) => &map[self.range.clone()],
            Owner::Heap(bytes) => &bytes[self.range.clone()],
            Owner::Pages(pages) => &pages[self.range.clone()],
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_cannot_be_mapped_is_read() {
        // sysfs has no mappings; its files state a length of one page.
        let Ok(file) = File::open("/sys/devices/system/cpu/online") else {
            vaquita_skips::skipped("no sysfs");
            return;
        };
        if file.metadata().unwrap().len() == 0 {
            vaquita_skips::skipped("this sysfs states no lengths");
            return;
        }
        assert!(Bytes::try_map(&file).unwrap().is_none());
        assert!(Bytes::map(&file).unwrap().starts_with(b"0"));
    }

    #[test]
    fn slices_stay_within_their_range_and_keep_their_owner_alive() {
        let mut pages = Pages::new(10).unwrap();
        assert!(pages.len() >= Pages::SIZE && pages.iter().all(|byte| *byte == 0));
        pages[..10].copy_from_slice(b"0123456789");
        for whole in [Bytes::from(Arc::new(pages)), Bytes::from(b"0123456789".to_vec())] {
            let middle = whole.slice(2..8).unwrap();
            drop(whole);
            assert_eq!(middle.slice(1..3).unwrap()[..], *b"34");
            assert!(middle.slice(3..7).is_none());
            let reversed = std::ops::Range { start: 4, end: 3 };
            assert!(middle.slice(reversed).is_none());
        }
    }
}
