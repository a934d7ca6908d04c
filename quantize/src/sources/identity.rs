//! Identity of a source: name, size, and a checksum of its contents. Files record it, so that
//! parts, resumed work and calibrations of another source are refused.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use vaquita_runtime::bytes::{Bytes, file};

use super::SourceError;

/// Sources up to this many bytes are read whole for their fingerprint.
pub const READ_WHOLE: u64 = 4 << 30;
/// Bytes at both ends of a file that the fingerprint always covers.
const END_BYTES: usize = 1 << 16;
/// Bytes that are read of every stretch in larger sources: any run of changed bytes as long as a
/// stretch is detected.
const SAMPLE_BYTES: usize = 4096;
/// Length of a stretch; see [`SAMPLE_BYTES`].
const STRETCH: usize = 2 << 20;

/// Name, size and fingerprint of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name of the folder or file.
    pub name: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// `crc32:` and eight digits, over names, sizes and contents of all files: all bytes of sources
    /// of up to 4 GiB; of larger ones both ends of every file and 4 KiB of every 2 MiB.
    pub fingerprint: String,
    /// Fingerprint of earlier versions, over the ends of files only; calibration files may refer to
    /// it.
    pub ends: String,
    /// Description of the calibration texts, if a calibration is used.
    pub calibration: Option<String>,
    /// Files of the source, which a quantizer must not overwrite.
    pub files: Vec<PathBuf>,
}

impl Identity {
    /// The identity of a source that consists of these files.
    pub fn new(source: &Path, files: Vec<PathBuf>) -> Result<Self, SourceError> {
        let mapped = files.iter().map(|path| {
            let io = |source| SourceError::Io { path: path.clone(), source };
            Bytes::map(&file::open(path).map_err(io)?).map_err(io)
        });
        let mapped: Vec<Bytes> = mapped.collect::<Result<_, _>>()?;
        let bytes = mapped.iter().map(|file| file.len() as u64).fold(0, u64::saturating_add);
        let step = if bytes <= READ_WHOLE { 1 } else { STRETCH / SAMPLE_BYTES };
        let contents: Vec<u32> = mapped.par_iter().map(|file| contents(file, step)).collect();
        let ends: Vec<u32> = mapped.iter().map(ends).collect();

        let (mut whole, mut of_ends) = (crc32fast::Hasher::new(), crc32fast::Hasher::new());
        for (((path, file), contents), ends) in files.iter().zip(&mapped).zip(contents).zip(ends) {
            let len = (file.len() as u64).to_le_bytes();
            for hasher in [&mut whole, &mut of_ends] {
                hasher.update(file_name(path).as_bytes());
                hasher.update(&len);
            }
            whole.update(&contents.to_le_bytes());
            whole.update(&ends.to_le_bytes());
            of_ends.combine(&head(file));
            of_ends.combine(&tail(file));
        }
        let checksum = |hasher: crc32fast::Hasher| format!("crc32:{:08x}", hasher.finalize());
        let (fingerprint, ends) = (checksum(whole), checksum(of_ends));
        Ok(Self { name: name(source), bytes, fingerprint, ends, calibration: None, files })
    }

    /// Whether a file that records this fingerprint was made from this source, as far as the
    /// fingerprint can tell.
    pub fn is(&self, fingerprint: &str) -> bool {
        fingerprint == self.fingerprint || fingerprint == self.ends
    }
}

/// Name of a folder or file, however its path is written. In the cache of the Hugging Face hub,
/// whose folders are called by commits and whose contents by checksums, it is the name of the model
/// or of the published file.
pub fn name(source: &Path) -> String {
    if let Some(id) = hub_id(source) {
        return match source.is_dir() {
            true => id.split('/').next_back().unwrap_or(&id).to_string(),
            false => file_name(source),
        };
    }
    let absolute = source.canonicalize();
    file_name(absolute.as_deref().unwrap_or(source))
}

/// The model of the Hugging Face hub, `ORG/MODEL`, of which a path in the hub's cache is a snapshot,
/// `models--ORG--MODEL/snapshots/COMMIT`, or a file in one.
pub fn hub_id(source: &Path) -> Option<String> {
    let mut folders = source.ancestors().skip_while(|path| !path.ends_with("snapshots"));
    let model = folders.nth(1)?.file_name()?.to_str()?.strip_prefix("models--")?;
    Some(model.replacen("--", "/", 1)).filter(|id| id.contains('/'))
}

/// Checksum of every `step`-th piece of [`SAMPLE_BYTES`] of a file.
fn contents(file: &Bytes, step: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    if step == 1 {
        for at in (0..file.len()).step_by(STRETCH) {
            if let Some(piece) = file.slice(at..file.len().min(at + STRETCH)) {
                hasher.update(&piece);
                piece.release();
            }
        }
    } else {
        for at in (0..file.len()).step_by(step * SAMPLE_BYTES) {
            hasher.update(&file[at..file.len().min(at + SAMPLE_BYTES)]);
        }
        file.release();
    }
    hasher.finalize()
}

fn ends(file: &Bytes) -> u32 {
    let mut hasher = head(file);
    hasher.combine(&tail(file));
    hasher.finalize()
}

fn head(file: &Bytes) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&file[..file.len().min(END_BYTES)]);
    hasher
}

fn tail(file: &Bytes) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&file[file.len().saturating_sub(END_BYTES)..]);
    hasher
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_in_the_cache_of_the_hub_have_the_names_that_they_are_published_under() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = folder.path().join("models--org--Model-1.5/snapshots/0123");
        std::fs::create_dir_all(&snapshot).unwrap();
        assert_eq!(name(&snapshot), "Model-1.5");
        assert_eq!(name(&snapshot.join("a/Model-Q4_0.gguf")), "Model-Q4_0.gguf");
        assert_eq!(name(&folder.path().join("x/../plain")), "plain");
    }
}
