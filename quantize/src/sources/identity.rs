//! What a source was: enough for a file to say what it was made from, and to notice another source.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::SourceError;

/// Bytes at either end of a file that the fingerprint covers.
const SAMPLE_BYTES: u64 = 1 << 16;

/// A source's name, size and fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name of the folder or file.
    pub name: String,
    /// Bytes of all its files.
    pub bytes: u64,
    /// `crc32:` and eight digits, over the names, the sizes, and both ends of every file.
    pub fingerprint: String,
    /// What the calibration that is used says of its texts, where one is used.
    pub calibration: Option<String>,
    /// The files, which a quantizer must not overwrite.
    pub files: Vec<PathBuf>,
}

impl Identity {
    /// The identity of a source that consists of these files.
    pub fn new(source: &Path, files: Vec<PathBuf>) -> Result<Self, SourceError> {
        let mut hasher = crc32fast::Hasher::new();
        let mut bytes = 0u64;
        for path in &files {
            let io = |source| SourceError::Io { path: path.clone(), source };
            let mut file = File::open(path).map_err(io)?;
            let len = file.metadata().map_err(io)?.len();
            bytes = bytes.saturating_add(len);
            hasher.update(file_name(path).as_bytes());
            hasher.update(&len.to_le_bytes());
            let mut sample = Vec::new();
            (&mut file).take(SAMPLE_BYTES).read_to_end(&mut sample).map_err(io)?;
            file.seek(SeekFrom::Start(len.saturating_sub(SAMPLE_BYTES))).map_err(io)?;
            file.take(SAMPLE_BYTES).read_to_end(&mut sample).map_err(io)?;
            hasher.update(&sample);
        }
        let fingerprint = format!("crc32:{:08x}", hasher.finalize());
        let absolute = source.canonicalize();
        let name = file_name(absolute.as_deref().unwrap_or(source));
        Ok(Self { name, bytes, fingerprint, calibration: None, files })
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
