//! Read throughput of the storage, for expert-sized reads: the bound for a store's read rate, and
//! the basis for choosing the number of lanes.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::index::ExpertIndex;
use super::policies::ExpertKey;
use crate::bytes::Pages;
use crate::checkpoint::source::ByteSource;
use crate::checkpoint::{ExpertId, LayerId};

/// A prime, so that successive reads are far apart and no expert repeats for a long time.
const STRIDE: usize = 7919;

/// Result of a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Parallel reads.
    pub lanes: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Duration of the probe.
    pub elapsed: Duration,
}

impl Rate {
    /// Bytes per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Reads experts from all over the file for about `time` on `lanes` lanes. Stops at the first
/// error.
pub fn probe(
    source: &dyn ByteSource,
    index: &ExpertIndex,
    lanes: usize,
    time: Duration,
) -> io::Result<Rate> {
    read_for(lanes, time, index.largest_bytes(), &|i, slot| {
        let at = i.wrapping_mul(STRIDE) % index.shape.len().max(1);
        let (layer, expert) = (at / index.shape.experts, at % index.shape.experts);
        let key = ExpertKey { layer: LayerId(layer), expert: ExpertId(expert) };
        let Some(extent) = index.get(key) else { return Ok(0) };
        extent.record.read(source, slot)?;
        Ok(extent.record.bytes() as u64)
    })
}

/// Calls `read` with 0, 1, 2, ... and a slot of `slot_bytes` for about `time` on `lanes` lanes;
/// `read` returns the number of bytes that it read. Stops at the first error.
pub fn read_for(
    lanes: usize,
    time: Duration,
    slot_bytes: usize,
    read: &(dyn Fn(usize, &mut Pages) -> io::Result<u64> + Sync),
) -> io::Result<Rate> {
    let since = Instant::now();
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let lane = || -> io::Result<()> {
        let mut slot = Pages::new(slot_bytes)?;
        while since.elapsed() < time {
            let read = read(next.fetch_add(1, Ordering::Relaxed), &mut slot)?;
            bytes.fetch_add(read, Ordering::Relaxed);
        }
        Ok(())
    };
    let panicked = || Err(io::Error::other("the reader panicked"));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..lanes.max(1)).map(|_| scope.spawn(lane)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| panicked()))
    })?;
    Ok(Rate { lanes: lanes.max(1), bytes: bytes.into_inner(), elapsed: since.elapsed() })
}

/// Probes 1, 2 and 4 lanes.
pub fn probe_lanes(
    source: &dyn ByteSource,
    index: &ExpertIndex,
    time: Duration,
) -> io::Result<[Rate; 3]> {
    let probe = |lanes| probe(source, index, lanes, time);
    Ok([probe(1)?, probe(2)?, probe(4)?])
}

/// The smallest number of lanes whose rate is within 10% of the best.
pub fn best_lanes(rates: &[Rate]) -> usize {
    let best = rates.iter().map(Rate::bytes_per_second).fold(0.0, f64::max);
    let good = rates.iter().filter(|rate| rate.bytes_per_second() >= best * 0.9);
    good.map(|rate| rate.lanes).min().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_lanes_that_are_nearly_as_fast_are_the_best() {
        let elapsed = Duration::from_secs(1);
        let rates = |bytes: [u64; 3]| {
            let rate = |(lanes, bytes)| Rate { lanes, bytes, elapsed };
            [(1, bytes[0]), (2, bytes[1]), (4, bytes[2])].map(rate)
        };
        assert_eq!(best_lanes(&rates([500, 950, 1000])), 2);
        assert_eq!(best_lanes(&rates([1000, 1000, 1000])), 1);
        assert_eq!(best_lanes(&rates([300, 600, 1000])), 4);
        assert_eq!(best_lanes(&[]), 1);
    }
}
