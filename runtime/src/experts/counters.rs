//! Counters of a streaming store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Stats;

/// Lock-free counters that lanes and visits add to.
#[derive(Default)]
pub(super) struct Counters {
    pub uses: AtomicU64,
    pub hits: AtomicU64,
    pub bytes_read: AtomicU64,
    pub waiting_ns: AtomicU64,
    pub computing_ns: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn add_time(counter: &AtomicU64, time: Duration) {
        Self::add(counter, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn read(&self, into: &mut Stats) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        into.uses = get(&self.uses);
        into.hits = get(&self.hits);
        into.bytes_read = get(&self.bytes_read);
        into.waiting = Duration::from_nanos(get(&self.waiting_ns));
        into.computing = Duration::from_nanos(get(&self.computing_ns));
    }
}
