//! Hidden states of all tokens between two layers, in memory, or in an unlinked file if they are
//! large.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

/// Number of tokens that are copied at a time.
const AT_ONCE: usize = 1024;

/// Hidden states, `[tokens, width]`, read and written a few tokens at a time.
pub(super) struct HiddenStates {
    tokens: usize,
    width: usize,
    place: Place,
}

enum Place {
    Memory(Vec<f32>),
    File(File),
}

impl HiddenStates {
    /// Zeros. Above `most_in_memory` bytes they are kept in a file in `folder`, which is removed
    /// when this is dropped.
    pub fn new(
        tokens: usize,
        width: usize,
        folder: &Path,
        most_in_memory: usize,
    ) -> io::Result<Self> {
        let bytes = tokens.saturating_mul(width).saturating_mul(4);
        let place = if bytes <= most_in_memory {
            Place::Memory(vec![0.0; tokens * width])
        } else {
            let file = tempfile::tempfile_in(folder)?;
            file.set_len(bytes as u64)?;
            Place::File(file)
        };
        Ok(Self { tokens, width, place })
    }

    /// The states of a range of tokens.
    pub fn read(&mut self, tokens: Range<usize>) -> io::Result<Vec<f32>> {
        let range = tokens.start * self.width..tokens.end * self.width;
        match &mut self.place {
            Place::Memory(states) => Ok(states[range].to_vec()),
            Place::File(file) => {
                let mut bytes = vec![0; range.len() * 4];
                file.seek(SeekFrom::Start(range.start as u64 * 4))?;
                file.read_exact(&mut bytes)?;
                let fours = bytes.as_chunks::<4>().0.iter();
                Ok(fours.map(|bytes| f32::from_le_bytes(*bytes)).collect())
            }
        }
    }

    /// Writes all states to a file, durably, and returns their checksum.
    pub fn save(&mut self, path: &Path) -> io::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        let mut out = File::create(path)?;
        let tokens = self.tokens;
        for first in (0..tokens).step_by(AT_ONCE) {
            let states = self.read(first..tokens.min(first + AT_ONCE))?;
            let bytes: Vec<u8> = states.iter().flat_map(|x| x.to_le_bytes()).collect();
            hasher.update(&bytes);
            out.write_all(&bytes)?;
        }
        out.sync_all()?;
        Ok(hasher.finalize())
    }

    /// Reads all states from such a file. On an error, of kind `InvalidData` if the file is
    /// damaged, nothing changes.
    pub fn load(&mut self, path: &Path, checksum: u32) -> io::Result<()> {
        let mut input = File::open(path)?;
        let bytes = self.tokens as u64 * self.width as u64 * 4;
        let mut hasher = Checksum(crc32fast::Hasher::new());
        let read = io::copy(&mut (&mut input).take(bytes), &mut hasher)?;
        if read != bytes || hasher.0.finalize() != checksum {
            return Err(io::ErrorKind::InvalidData.into());
        }
        input.rewind()?;
        for first in (0..self.tokens).step_by(AT_ONCE) {
            let mut bytes = vec![0; AT_ONCE.min(self.tokens - first) * self.width * 4];
            input.read_exact(&mut bytes)?;
            let fours = bytes.as_chunks::<4>().0.iter();
            let states: Vec<f32> = fours.map(|bytes| f32::from_le_bytes(*bytes)).collect();
            self.write(first, &states)?;
        }
        Ok(())
    }

    /// Replaces the states of the tokens from `first` on.
    pub fn write(&mut self, first: usize, states: &[f32]) -> io::Result<()> {
        let start = first * self.width;
        match &mut self.place {
            Place::Memory(all) => all[start..][..states.len()].copy_from_slice(states),
            Place::File(file) => {
                let bytes: Vec<u8> = states.iter().flat_map(|x| x.to_le_bytes()).collect();
                file.seek(SeekFrom::Start(start as u64 * 4))?;
                file.write_all(&bytes)?;
            }
        }
        Ok(())
    }
}

/// Computes a checksum of the data written.
struct Checksum(crc32fast::Hasher);

impl Write for Checksum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
