//! Saves a session to a file: its tokens and the attention state, so that a conversation continues
//! without reading its prompt again.
//!
//! The file is little-endian: magic, version, type of the cache, fingerprint of the model, counts
//! of tokens, of bytes of the note and of layers; the tokens; the note, which belongs to the
//! caller; length and bytes of each layer; and the CRC-32 of all of the above. The file is written
//! atomically, and is validated like any untrusted file.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Session;
use crate::bytes::file;
use crate::model::cache::{CacheType, KvCache};

const MAGIC: [u8; 8] = *b"VAQSESS\0";
const VERSION: u32 = 2; // 1 had too little of the model in its fingerprint
/// Maximum size of a caller's note in bytes.
pub const MAX_NOTE: u64 = 64 << 20;

/// Reason why a session cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The file cannot be written or read.
    #[error("{path}: {}", file::reason(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause of the error.
        source: io::Error,
    },
    /// The file is not a saved session.
    #[error("{path} is not a saved session")]
    Magic {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by another version of this library.
    #[error(
        "{path} has version {found} of the format of sessions; this library reads {VERSION}: start the conversation anew"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Format version of the file.
        found: u32,
    },
    /// The session belongs to another model.
    #[error("{path} was saved with another model; open the one it was saved with")]
    OtherModel {
        /// The file.
        path: PathBuf,
    },
    /// The model's file cannot be read, so that it is unknown whether the session belongs to it.
    #[error("{path}: the model's file cannot be read: {source}")]
    Model {
        /// The session's file.
        path: PathBuf,
        /// Cause of the error.
        source: io::Error,
    },
    /// The cache in the file has another precision.
    #[error("{path} was saved with a cache in {found}; this session's is in {expected}")]
    CacheType {
        /// The file.
        path: PathBuf,
        /// Cache type of the file.
        found: &'static str,
        /// Cache type of the session.
        expected: &'static str,
    },
    /// The saved session exceeds the context.
    #[error("{path} holds {found} tokens; this session's context is {limit}")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Number of tokens in the file.
        found: u64,
        /// Maximum number of tokens.
        limit: usize,
    },
    /// The file is damaged.
    #[error("{path} is damaged: {problem}; start the conversation anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Description of the damage.
        problem: String,
    },
    /// The note is too long.
    #[error("{found} bytes are to be kept beside the session; at most {MAX_NOTE} can be")]
    Note {
        /// Size of the note in bytes.
        found: u64,
    },
}

impl Session {
    /// Replaces the contents of the session by a sequence, of which `cache` holds `tokens`.
    pub(crate) fn put(&mut self, tokens: Vec<u32>, cache: KvCache) {
        self.truncate(0);
        (self.cache, self.tokens) = (cache, tokens);
    }

    /// The tokens and their cache.
    pub(crate) fn into_parts(self) -> (Vec<u32>, KvCache) {
        (self.tokens, self.cache)
    }

    /// Writes the session to a file, with a note from the caller. `model` is the fingerprint of the
    /// model ([`Identity::fingerprint`](crate::gguf::Identity::fingerprint)). Only the user may
    /// read the file.
    pub fn save(&mut self, path: &Path, model: u64, note: &[u8]) -> Result<(), SaveError> {
        if note.len() as u64 > MAX_NOTE {
            return Err(SaveError::Note { found: note.len() as u64 });
        }
        let io = |source| SaveError::Io { path: path.into(), source };
        let name = path.file_name().ok_or_else(|| io(io::ErrorKind::IsADirectory.into()))?;
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut temporary = name.to_os_string();
        temporary.push(format!(".{}-{number}.part", std::process::id()));
        let temporary = path.with_file_name(temporary);
        let written = self.write(&temporary, model, note);
        let done = written.and_then(|()| fs::rename(&temporary, path));
        done.map_err(|error| {
            let _ = fs::remove_file(&temporary); // the first error is the one to tell
            io(error)
        })
    }

    fn write(&mut self, path: &Path, model: u64, note: &[u8]) -> io::Result<()> {
        self.settle();
        let layers = self.cache.layers();
        let mut out = Checked::new(BufWriter::new(private(path)?));
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&self.options.cache.code().to_le_bytes())?;
        for number in [model, self.tokens.len() as u64, note.len() as u64, layers as u64] {
            out.write_all(&number.to_le_bytes())?;
        }
        for token in &self.tokens {
            out.write_all(&token.to_le_bytes())?;
        }
        out.write_all(note)?;
        for layer in 0..layers {
            let layer = self.cache.layer(layer);
            let pieces = layer.pieces();
            let len: usize = pieces.iter().map(|piece| piece.len()).sum();
            out.write_all(&(len as u64).to_le_bytes())?;
            pieces.iter().try_for_each(|piece| out.write_all(piece))?;
        }
        let checksum = out.hasher.finalize().to_le_bytes();
        let mut file = out.inner;
        file.write_all(&checksum)?;
        file.into_inner().map_err(|error| error.into_error())?.sync_all()
    }

    /// Replaces the contents of the session by what [`Session::save`] wrote, and returns the note.
    /// On error, the session is unchanged.
    pub fn restore(&mut self, path: &Path, model: u64) -> Result<Vec<u8>, SaveError> {
        let mut file = Reader::open(path)?;
        if file.array()? != MAGIC {
            return Err(SaveError::Magic { path: path.into() });
        }
        let (found, cache) = (file.u32()?, file.u32()?);
        if found != VERSION {
            return Err(SaveError::Version { path: path.into(), found });
        }
        if file.u64()? != model {
            return Err(SaveError::OtherModel { path: path.into() });
        }
        if cache != self.options.cache.code() {
            let found = CacheType::ALL.into_iter().find(|ty| ty.code() == cache);
            let found = found.map_or("a type unknown here", CacheType::name);
            let expected = self.options.cache.name();
            return Err(SaveError::CacheType { path: path.into(), found, expected });
        }
        let (count, note, layers) = (file.u64()?, file.u64()?, file.u64()?);
        let limit = self.context();
        if count > limit as u64 {
            return Err(SaveError::TooLong { path: path.into(), found: count, limit });
        }
        let mut cache = KvCache::new(self.model.config(), self.options.cache);
        if note > MAX_NOTE || layers != cache.layers() as u64 {
            return Err(file.damaged(format!("a note of {note} bytes and {layers} layers")));
        }
        let tokens = file.bytes(count * 4)?;
        let tokens: Vec<u32> =
            tokens.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)).collect();
        let vocab_size = self.model.config().vocab_size;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(file.damaged(format!("token {token} of a vocabulary of {vocab_size}")));
        }
        let note = file.bytes(note)?;
        for layer in 0..cache.layers() {
            let len = file.u64()?;
            let bytes = usize::try_from(len).unwrap_or(usize::MAX);
            let read = |page: &mut [u8]| file.read(page);
            if !cache.layer(layer).restore(tokens.len(), bytes, read)? {
                return Err(file.damaged(format!("{len} bytes in layer {layer}")));
            }
        }
        file.finish()?;
        self.put(tokens, cache);
        Ok(note)
    }
}

/// Reads the note of a saved session, unchecked: [`Session::restore`] checks the whole file.
pub fn note(path: &Path) -> Result<Vec<u8>, SaveError> {
    let mut file = Reader::open(path)?;
    if file.array()? != MAGIC {
        return Err(SaveError::Magic { path: path.into() });
    }
    let (found, _cache) = (file.u32()?, file.u32()?);
    if found != VERSION {
        return Err(SaveError::Version { path: path.into(), found });
    }
    let (_model, tokens, note, _layers) = (file.u64()?, file.u64()?, file.u64()?, file.u64()?);
    if note > MAX_NOTE {
        return Err(file.damaged(format!("a note of {note} bytes")));
    }
    file.bytes(tokens.saturating_mul(4))?;
    file.bytes(note)
}

/// Creates a file that only its owner may read, since it contains the conversation.
fn private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        // The file was left behind by a killed process with the same ID.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        file => file,
    }
}

/// Computes a checksum of the bytes that pass through.
struct Checked<T> {
    inner: T,
    hasher: crc32fast::Hasher,
}

impl<T> Checked<T> {
    fn new(inner: T) -> Self {
        Self { inner, hasher: crc32fast::Hasher::new() }
    }
}

impl<T: Write> Checked<T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}

/// Reads a saved session; lengths in the file are limited to the bytes that are left.
struct Reader<'a> {
    path: &'a Path,
    file: Checked<BufReader<File>>,
    left: u64,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self, SaveError> {
        let io = |source| SaveError::Io { path: path.into(), source };
        let file = file::open(path).map_err(io)?;
        let left = file.metadata().map_err(io)?.len();
        Ok(Self { path, file: Checked::new(BufReader::new(file)), left })
    }

    fn damaged(&self, problem: impl Into<String>) -> SaveError {
        SaveError::Damaged { path: self.path.into(), problem: problem.into() }
    }

    fn bytes(&mut self, len: u64) -> Result<Vec<u8>, SaveError> {
        if len > self.left {
            return Err(self.damaged("it ends too soon"));
        }
        let mut bytes = vec![0; len as usize];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), SaveError> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| self.damaged("it ends too soon"))?;
        self.file.inner.read_exact(bytes).map_err(|error| self.failed(error))?;
        self.file.hasher.update(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SaveError> {
        let bytes = self.bytes(N as u64)?;
        bytes.try_into().map_err(|_| self.damaged("it ends too soon"))
    }

    fn u32(&mut self) -> Result<u32, SaveError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, SaveError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Checks that only the checksum is left, and that it matches.
    fn finish(mut self) -> Result<(), SaveError> {
        let computed = self.file.hasher.clone().finalize();
        match (self.u32()? == computed, self.left) {
            (true, 0) => Ok(()),
            (false, _) => Err(self.damaged("its checksum is wrong")),
            (true, left) => Err(self.damaged(format!("{left} bytes too many"))),
        }
    }

    fn failed(&self, source: io::Error) -> SaveError {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends too soon"),
            _ => SaveError::Io { path: self.path.into(), source },
        }
    }
}
