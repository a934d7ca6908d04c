//! A file with the tokens of a part of a sequence and their entries in the cache.
//!
//! Little-endian: magic, version, type of the cache, fingerprint of the model, the hash of the
//! client, the name of the segment that it goes on from (zeros: none), the number of positions
//! before it, of its tokens and of layers; the tokens; a CRC-32 of all of this. Then per layer the
//! first of its positions, the number of bytes of its entries, the entries, and their CRC-32. A
//! segment is written once and never changed. Whatever is odd about a file makes it unusable, which
//! costs time and nothing else.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::model::cache::{CacheType, KvCache};

const MAGIC: [u8; 8] = *b"VAQROWS\0";
const VERSION: u32 = 1;
/// Most tokens of one segment: a file claims no more memory than this.
const MOST_TOKENS: u64 = 1 << 20;
/// Ending of the files.
pub(super) const ENDING: &str = "rows";

/// Keyed hash of what a file or a client is called.
pub(super) type Name = [u8; 16];

/// Properties that all segments of a folder's model share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Kind {
    pub model: u64,
    pub cache: CacheType,
}

/// A segment without its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub client: Name,
    /// The segment with the positions before it.
    pub parent: Option<Name>,
    /// Number of positions before it.
    pub base: usize,
    pub tokens: Vec<u32>,
}

impl Head {
    /// Number of positions with it.
    pub fn end(&self) -> usize {
        self.base + self.tokens.len()
    }
}

pub(super) fn path(folder: &Path, name: Name) -> PathBuf {
    let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(name).with_extension(ENDING)
}

/// The name in a path; `None` for other files.
pub(super) fn name(path: &Path) -> Option<Name> {
    let stem = path.file_stem()?.to_str()?;
    if path.extension()? != ENDING || stem.len() != 32 || !stem.is_ascii() {
        return None;
    }
    let mut name = [0; 16];
    for (byte, digits) in name.iter_mut().zip(stem.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(name)
}

/// Writes a segment under a temporary name first, and returns its size.
pub(super) fn write(path: &Path, kind: Kind, head: &Head, cache: &KvCache) -> io::Result<u64> {
    let temporary = path.with_extension("part");
    let written = write_to(&temporary, kind, head, cache);
    let done = written.and_then(|bytes| fs::rename(&temporary, path).map(|()| bytes));
    done.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn write_to(path: &Path, kind: Kind, head: &Head, cache: &KvCache) -> io::Result<u64> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = Checked::new(BufWriter::new(options.open(path)?));
    out.put(&MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    out.put(&kind.cache.code().to_le_bytes())?;
    out.put(&kind.model.to_le_bytes())?;
    out.put(&head.client)?;
    out.put(&head.parent.unwrap_or_default())?;
    for number in [head.base, head.tokens.len(), cache.layers()] {
        out.put(&(number as u64).to_le_bytes())?;
    }
    for token in &head.tokens {
        out.put(&token.to_le_bytes())?;
    }
    out.put_checksum()?;
    for (first, pieces) in cache.parts(head.base) {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        out.put(&(first as u64).to_le_bytes())?;
        out.put(&(bytes as u64).to_le_bytes())?;
        pieces.iter().try_for_each(|piece| out.put(piece))?;
        out.put_checksum()?;
    }
    let bytes = out.bytes;
    out.inner.into_inner().map_err(|error| error.into_error())?.sync_all()?;
    Ok(bytes)
}

/// Reads the head of a segment; `None` if it is of another kind or damaged.
pub(super) fn read_head(path: &Path, kind: Kind) -> Option<Head> {
    Some(Reader::open(path)?.head(kind)?.0)
}

/// Appends the entries of the positions before `len` to a cache that holds those before the
/// segment. `None` if the file is not the segment `head`, or damaged; the cache is then useless.
pub(super) fn read_rows(
    path: &Path,
    kind: Kind,
    head: &Head,
    len: usize,
    cache: &mut KvCache,
) -> Option<()> {
    let mut file = Reader::open(path)?;
    let (found, layers) = file.head(kind)?;
    if found != *head || layers != cache.layers() as u64 {
        return None;
    }
    for layer in 0..cache.layers() {
        let layer = cache.layer(layer);
        let (first, bytes) = (usize::try_from(file.u64()?).ok()?, file.u64()?);
        let rows = file.bytes(bytes)?;
        file.check()?;
        layer.append_part(first, head.end(), len, &rows)?;
    }
    (file.left == 0).then_some(())
}

/// Writes bytes and their checksums.
struct Checked<T> {
    inner: T,
    hasher: crc32fast::Hasher,
    bytes: u64,
}

impl<T: Write> Checked<T> {
    fn new(inner: T) -> Self {
        Self { inner, hasher: crc32fast::Hasher::new(), bytes: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.inner.write_all(bytes)
    }

    /// The checksum of what was written since the last one.
    fn put_checksum(&mut self) -> io::Result<()> {
        let checksum = std::mem::take(&mut self.hasher).finalize();
        self.bytes += 4;
        self.inner.write_all(&checksum.to_le_bytes())
    }
}

/// Reads a segment; lengths in the file are limited to the bytes that are left.
struct Reader {
    file: BufReader<File>,
    hasher: crc32fast::Hasher,
    left: u64,
}

impl Reader {
    fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let left = file.metadata().ok()?.len();
        Some(Self { file: BufReader::new(file), hasher: crc32fast::Hasher::new(), left })
    }

    /// The head, and the number of layers.
    fn head(&mut self, kind: Kind) -> Option<(Head, u64)> {
        let magic = self.array()? == MAGIC && self.u32()? == VERSION;
        if !magic || self.u32()? != kind.cache.code() || self.u64()? != kind.model {
            return None;
        }
        let (client, parent): (Name, Name) = (self.array()?, self.array()?);
        let (base, count, layers) = (self.u64()?, self.u64()?, self.u64()?);
        if count == 0 || count > MOST_TOKENS {
            return None;
        }
        let tokens = self.bytes(count * 4)?;
        self.check()?;
        let tokens = tokens.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)).collect();
        let parent = (parent != Name::default()).then_some(parent);
        let base = usize::try_from(base).ok().filter(|base| (*base == 0) == parent.is_none())?;
        base.checked_add(usize::try_from(count).ok()?)?;
        Some((Head { client, parent, base, tokens }, layers))
    }

    fn bytes(&mut self, len: u64) -> Option<Vec<u8>> {
        self.left = self.left.checked_sub(len)?;
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        self.file.read_exact(&mut bytes).ok()?;
        self.hasher.update(&bytes);
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N as u64)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    /// Checks the checksum of what was read since the last one.
    fn check(&mut self) -> Option<()> {
        let computed = std::mem::take(&mut self.hasher).finalize();
        let found = self.u32()?;
        self.hasher = crc32fast::Hasher::new();
        (found == computed).then_some(())
    }
}
