//! Identity of a model: a fingerprint of its headers and of samples from every tensor.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Bytes per sample.
const SAMPLE: u64 = 64;
/// Samples per tensor: at its start, at its end, and between.
const PLACES: u64 = 4;

/// A model's headers and the locations of its samples. Samples are read on demand, so that a model
/// with thousands of tensors opens no slower.
#[derive(Debug)]
pub struct Identity {
    headers: u32,
    files: Mutex<Vec<(PathBuf, File)>>,
    /// File, offset and length of each sample, in file order.
    places: Vec<(usize, u64, u64)>,
    known: Mutex<Option<u64>>,
}

impl Identity {
    /// From the CRC-32 of the headers, and the tensors as (file, offset, length).
    pub(super) fn new(
        headers: u32,
        files: impl Iterator<Item = PathBuf>,
        tensors: impl Iterator<Item = (usize, u64, u64)>,
    ) -> io::Result<Self> {
        let open = |path: PathBuf| File::open(&path).map(|file| (path, file));
        let files = Mutex::new(files.map(open).collect::<io::Result<_>>()?);
        let mut places: Vec<_> = tensors
            .flat_map(|(file, at, len)| {
                let last = len.saturating_sub(SAMPLE);
                let place = move |n| (file, at + last * n / (PLACES - 1), SAMPLE.min(len));
                (0..PLACES).map(place)
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        Ok(Self { headers, files, places, known: Mutex::new(None) })
    }

    /// CRC-32 of the headers of all files, which contain the checksums of all weights if `vaquita
    /// quantize` wrote them, and of 256 bytes of every tensor.
    pub fn fingerprint(&self) -> io::Result<u64> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = *known {
            return Ok(known);
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut samples = crc32fast::Hasher::new();
        let mut buffer = [0; SAMPLE as usize];
        for &(file, at, len) in &self.places {
            let bytes = &mut buffer[..len as usize]; // at most `SAMPLE`
            let file = &mut files[file].1;
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(bytes)?;
            samples.update(bytes);
        }
        Ok(*known.insert(u64::from(self.headers) << 32 | u64::from(samples.finalize())))
    }
}
