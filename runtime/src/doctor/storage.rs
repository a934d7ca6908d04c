//! Measures how fast the storage of a folder reads, with a file written for the purpose.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::bytes::Pages;
use crate::checkpoint::source::{forget, open_direct};
use crate::experts::probe::{Rate, best_lanes, read_for};

/// Bounds on the size of the test file, in bytes.
const MOST_BYTES: u64 = 256 << 20;
const LEAST_BYTES: u64 = 16 << 20;
/// Limit on the time for writing beyond the minimum size.
const WRITING: Duration = Duration::from_secs(3);
/// Duration of the reads for each number of lanes.
const READING: Duration = Duration::from_millis(400);
/// Bytes per read, about one expert.
const READ_BYTES: usize = 1 << 20;
/// Bytes per write, each followed by a sync so that the time limit is kept.
const WRITE_BYTES: usize = 8 << 20;
/// A prime, so that successive reads are far apart.
const STRIDE: usize = 7919;

/// Result of the measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Storage {
    /// Folder of the test file.
    pub folder: PathBuf,
    /// Bytes of the test file.
    pub file_bytes: u64,
    /// Whether reads bypassed the page cache; if they could not, the rates may be those of memory.
    pub direct: bool,
    /// Rates by number of parallel reads.
    pub rates: Vec<LaneRate>,
    /// The smallest number of lanes whose rate is within 10% of the best.
    pub best_lanes: usize,
}

/// Read rate at a number of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LaneRate {
    /// Parallel reads.
    pub lanes: usize,
    /// Bytes per second, all lanes together.
    pub bytes_per_second: f64,
}

impl Storage {
    /// The rate at the best number of lanes.
    pub fn best_rate(&self) -> Option<f64> {
        let best = self.rates.iter().find(|rate| rate.lanes == self.best_lanes);
        best.map(|rate| rate.bytes_per_second)
    }
}

/// Writes a file in `folder`, reads it on 1, 2 and 4 lanes, and removes it. Uses at most a tenth of
/// the free space.
pub fn probe(folder: &Path) -> io::Result<Storage> {
    let free = rustix::fs::statvfs(folder)?;
    let bytes = free.f_bavail.saturating_mul(free.f_frsize) / 10;
    if bytes < LEAST_BYTES {
        return Err(io::Error::other("less than 160 MiB are free"));
    }
    let file = Scratch::write(folder, bytes.min(MOST_BYTES))?;
    let reads = file.bytes as usize / READ_BYTES;
    let read = |i: usize, slot: &mut Pages| {
        let at = (i.wrapping_mul(STRIDE) % reads * READ_BYTES) as u64;
        let from = file.direct.as_ref().unwrap_or(&file.buffered);
        from.read_exact_at(&mut slot[..READ_BYTES], at)?;
        if file.direct.is_none() {
            forget(&file.buffered, at, READ_BYTES);
        }
        Ok(READ_BYTES as u64)
    };
    let rates = [1, 2, 4].map(|lanes| read_for(lanes, READING, READ_BYTES, &read));
    let rates = rates.into_iter().collect::<io::Result<Vec<Rate>>>()?;
    Ok(Storage {
        folder: folder.into(),
        file_bytes: file.bytes,
        direct: file.direct.is_some(),
        best_lanes: best_lanes(&rates),
        rates: rates
            .iter()
            .map(|rate| LaneRate { lanes: rate.lanes, bytes_per_second: rate.bytes_per_second() })
            .collect(),
    })
}

/// An unlinked file, which the system removes however this process ends.
struct Scratch {
    buffered: File,
    direct: Option<File>,
    bytes: u64,
}

impl Scratch {
    fn write(folder: &Path, most: u64) -> io::Result<Self> {
        let path = folder.join(format!(".vaquita-doctor-{}.partial", std::process::id()));
        let mut buffered = File::options().read(true).write(true).create_new(true).open(&path)?;
        let direct = open_direct(&path);
        std::fs::remove_file(&path)?;
        let noise = noise(WRITE_BYTES);
        let (since, mut bytes) = (Instant::now(), 0);
        while bytes < most && (bytes < LEAST_BYTES || since.elapsed() < WRITING) {
            buffered.write_all(&noise)?;
            buffered.sync_data()?;
            bytes += WRITE_BYTES as u64;
        }
        forget(&buffered, 0, bytes as usize);
        let mut page = Pages::new(READ_BYTES)?;
        // Some file systems accept the flag on open and then refuse to read.
        let direct = direct.filter(|file| file.read_exact_at(&mut page[..READ_BYTES], 0).is_ok());
        Ok(Self { buffered, direct, bytes })
    }
}

/// Incompressible bytes (xorshift64).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len / 8).flat_map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_finds_rates_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let found = probe(folder.path()).unwrap();
        assert!(found.rates.iter().all(|rate| rate.bytes_per_second > 0.0), "{found:?}");
        assert!(found.best_rate().is_some() && found.file_bytes >= LEAST_BYTES);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(probe(Path::new("/nowhere")).is_err());
    }
}
