//! One visit of a layer: requests the experts that it needs and delivers them as they arrive.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::loader::Loader;
use super::policies::ExpertKey;
use super::table::{Arrival, Loaded, Need, Room, Table};
use crate::checkpoint::{ExpertId, LayerId, WeightsError};
use crate::model::Visit;

/// Interval at which a visit that waits for a slot checks again even if it is not notified.
const RECHECK: Duration = Duration::from_millis(20);

/// A resident expert, pinned for the visit.
pub(super) type Ready = (ExpertKey, Arc<Loaded>);

/// A visit in progress.
pub(super) struct Fetch<'a> {
    loader: &'a Loader,
    layer: LayerId,
    /// Experts that only tokens that pass through need.
    passing: HashSet<ExpertKey>,
    /// Experts that are neither resident nor requested.
    todo: VecDeque<ExpertKey>,
    /// Experts that can be taken.
    ready: VecDeque<Ready>,
    /// Number of experts whose reads are queued or running.
    pending: usize,
    /// Pending experts whose reads another visit or a prefetch began.
    joined: HashSet<ExpertKey>,
    arrivals: Receiver<Arrival>,
    sender: Sender<Arrival>,
}

impl<'a> Fetch<'a> {
    pub fn begin(loader: &'a Loader, visit: &Visit) -> Result<Self, WeightsError> {
        let (sender, arrivals) = channel();
        let layer = visit.layer;
        let key = |expert| ExpertKey { layer, expert };
        let wanted = visit.wanted();
        let lasting = visit.lasting();
        let (first, passing): (Vec<ExpertId>, Vec<_>) =
            wanted.iter().partition(|expert| lasting.contains(expert));
        let todo: VecDeque<ExpertKey> = first.iter().chain(&passing).copied().map(key).collect();
        let passing = passing.into_iter().map(key).collect();
        let (ready, pending, joined) = (VecDeque::new(), 0, HashSet::new());
        let mut fetch =
            Self { loader, layer, passing, todo, ready, pending, joined, arrivals, sender };
        loader.queue.drop_prefetches(layer);
        {
            let mut prefetcher = loader.prefetcher();
            prefetcher.judge(layer, &wanted);
            if loader.is_first(layer) {
                prefetcher.step(visit.decodes().then(|| (Instant::now(), visit.tokens())));
            }
        }
        let mut table = loader.lock();
        table.policy.visit(layer, &lasting);
        // Resident experts first: once pinned, they cannot be evicted to make room for the others.
        let mut missing = VecDeque::new();
        for key in std::mem::take(&mut fetch.todo) {
            match table.get(key, fetch.need(key)) {
                Some(loaded) => fetch.ready.push_back((key, loaded)),
                None => missing.push_back(key),
            }
        }
        Counters::add(&loader.counters.uses, (fetch.ready.len() + missing.len()) as u64);
        Counters::add(&loader.counters.hits, fetch.ready.len() as u64);
        fetch.todo = missing;
        fetch.ask(&mut table)?;
        table.drop_prefetches(Some(layer));
        drop(table);
        loader.space.notify_all(); // a suspended prefetch may be waited for now
        Ok(fetch)
    }

    fn need(&self, key: ExpertKey) -> Need {
        if self.passing.contains(&key) { Need::Passing } else { Need::Lasting }
    }

    /// Queues reads until memory is full.
    fn ask(&mut self, table: &mut Table) -> Result<(), WeightsError> {
        while let Some(&key) = self.todo.front() {
            let need = self.need(key);
            if let Some(loaded) = table.get(key, need) {
                self.ready.push_back((key, loaded)); // another sequence has read it
            } else if table.join(key, need, &self.sender) {
                self.pending += 1;
                self.joined.insert(key);
            } else {
                let len = self.loader.extent(key)?.slot_bytes;
                let room = table.make_room(len, self.layer, need);
                match room.map_err(|error| self.loader.io_error(error))? {
                    Room::Full => {
                        table.drop_prefetches(None); // they hold memory
                        return Ok(());
                    }
                    Room::Slot(slot) => {
                        table.begin(key, len, need, Some(self.sender.clone()));
                        self.loader.queue.demand(key, slot);
                        self.pending += 1;
                    }
                }
            }
            self.todo.pop_front();
        }
        Ok(())
    }

    /// Whether an expert can be taken without waiting.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Waits for at least one expert and returns all that are ready, in order of arrival; `None`
    /// after the last. Returns them one at a time while other visits wait for memory, so that it is
    /// released sooner.
    pub fn next(&mut self) -> Result<Option<Vec<Ready>>, WeightsError> {
        if !self.todo.is_empty() {
            let loader = self.loader;
            self.ask(&mut loader.lock())?;
        }
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.arrived(arrival)?;
        }
        if self.ready.is_empty() {
            if self.pending == 0 && self.todo.is_empty() {
                return Ok(None);
            }
            let since = Instant::now();
            let waited = self.wait();
            let elapsed = since.elapsed();
            Counters::add_time(&self.loader.counters.waiting_ns, elapsed);
            #[cfg(feature = "tracing")]
            tracing::debug!(layer = self.layer.0, ?elapsed, "layer waited for experts");
            waited?;
        }
        let count = if self.todo.is_empty() { self.ready.len() } else { 1 };
        Ok(Some(self.ready.drain(..count).collect()))
    }

    /// Waits until an expert is ready.
    fn wait(&mut self) -> Result<(), WeightsError> {
        while self.ready.is_empty() {
            if self.pending > 0 {
                // The fetch holds a sender itself, so the channel is never disconnected.
                let stopped = || io::Error::other("the readers have stopped");
                let arrival = self.arrivals.recv();
                self.arrived(arrival.map_err(|_| self.loader.io_error(stopped()))?)?;
                continue;
            }
            // All memory is pinned by other visits, which release it once they have computed.
            let loader = self.loader;
            let mut table = loader.lock();
            self.ask(&mut table)?;
            if self.pending == 0 && self.ready.is_empty() {
                let waited = loader.space.wait_timeout(table, RECHECK);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
        Ok(())
    }

    fn arrived(&mut self, (key, result): Arrival) -> Result<(), WeightsError> {
        self.pending -= 1;
        match result {
            Ok(loaded) => self.ready.push_back((key, loaded)),
            // The error belongs to the read that this visit joined: retry with a read of its own.
            Err(_) if self.joined.remove(&key) => self.todo.push_back(key),
            Err(source) => {
                let (layer, expert) = (key.layer.0, key.expert.0);
                return Err(WeightsError::Expert { layer, expert, source });
            }
        }
        Ok(())
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        // A visit that fails unpins the experts that it has not taken.
        let arrived = self.arrivals.try_iter().filter_map(|(_, result)| result.ok());
        let ready = self.ready.drain(..).map(|(_, loaded)| loaded);
        ready.chain(arrived).for_each(|loaded| self.loader.release(loaded));
    }
}
