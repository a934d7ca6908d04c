//! State shared by visits and read lanes, and the reading of one expert.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::counters::Counters;
use super::index::{ExpertExtent, ExpertIndex};
use super::options::{BudgetError, OpenStoreError, StreamingOptions};
use super::policies::ExpertKey;
use super::prefetch::Prefetcher;
use super::reader::{Job, Queue};
use super::table::{Loaded, Need, PrefetchState, Room, Table};
use crate::bytes::{Bytes, Pages};
use crate::checkpoint::source::ByteSource;
use crate::checkpoint::{Expert, GgufWeights, LayerId, Weights, WeightsError};

/// Bytes of a prefetch that are read before demanded reads are checked again.
const PREFETCH_PIECE: usize = 512 << 10;
/// Interval at which a suspended prefetch checks again even if it is not notified.
const RECHECK: Duration = Duration::from_millis(5);

/// Shared state of a store.
pub(super) struct Loader {
    pub weights: Arc<GgufWeights>,
    pub index: ExpertIndex,
    pub prefetcher: Mutex<Prefetcher>,
    /// Notified when memory was released or an expert arrived.
    pub space: Condvar,
    pub queue: Queue,
    pub counters: Counters,
    source: Arc<dyn ByteSource>,
    table: Mutex<Table>,
}

impl Loader {
    /// Indexes the experts of `weights`; none is resident yet.
    pub fn new(
        weights: Arc<GgufWeights>,
        source: Arc<dyn ByteSource>,
        options: &StreamingOptions,
    ) -> Result<Self, OpenStoreError> {
        let index = ExpertIndex::find(&weights)?;
        let shape = index.shape;
        let policy = options.policy.build(shape);
        let table = Table::new(policy, options.budget_bytes, index.least_bytes());
        let loader = Self {
            weights,
            index,
            prefetcher: Mutex::new(Prefetcher::new(options.prefetch, shape.layers)),
            space: Condvar::new(),
            queue: Queue::default(),
            counters: Counters::default(),
            source,
            table: Mutex::new(table),
        };
        loader.check(options.budget_bytes)?;
        Ok(loader)
    }

    /// Checks that `budget` holds the experts of one token in the largest layer.
    pub fn check(&self, budget: usize) -> Result<(), BudgetError> {
        let least = self.index.least_bytes();
        if budget < least { Err(BudgetError { found: budget, least }) } else { Ok(()) }
    }

    pub fn lock(&self) -> MutexGuard<'_, Table> {
        // No code that can panic runs while a change is half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn prefetcher(&self) -> MutexGuard<'_, Prefetcher> {
        self.prefetcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `layer` is the first one with experts, where a token begins.
    pub fn is_first(&self, layer: LayerId) -> bool {
        layer.0 == self.weights.config().moe.first_k_dense_replace
    }

    pub fn extent(&self, key: ExpertKey) -> Result<&ExpertExtent, WeightsError> {
        self.index.get(key).ok_or_else(|| WeightsError::Missing {
            path: self.weights.gguf().path().into(),
            name: format!("expert {} of layer {}", key.expert.0, key.layer.0),
        })
    }

    pub fn io_error(&self, source: io::Error) -> WeightsError {
        WeightsError::Io { path: self.weights.gguf().path().into(), source }
    }

    /// Executes a job on a read lane.
    pub fn work(&self, job: Job) {
        match job {
            Job::Demand(key, slot) => self.read(key, slot),
            Job::Prefetch(key) => {
                if let Some(slot) = self.slot_for_prefetch(key) {
                    self.run_prefetch(key, slot);
                }
            }
        }
    }

    /// Reads a predicted expert in pieces, as long as no visit waits for another one.
    fn run_prefetch(&self, key: ExpertKey, mut slot: Pages) {
        let pieces = self.extent(key).map(|extent| extent.record.pieces(PREFETCH_PIECE));
        for piece in pieces.into_iter().flatten() {
            if !self.serve_demands(key) {
                self.lock().take_back(Arc::new(slot));
                self.space.notify_all();
                return;
            }
            if let Err(error) = self.caught(|| piece.read(&*self.source, &mut slot)) {
                return self.failed(key, slot, self.io_error(error));
            }
            Counters::add(&self.counters.bytes_read, piece.len as u64);
        }
        self.arrived(key, slot);
    }

    /// Serves demanded reads until the prefetch may continue; `false` once it is outdated.
    fn serve_demands(&self, key: ExpertKey) -> bool {
        loop {
            let mut table = self.lock();
            match table.prefetch_state(key) {
                PrefetchState::Go => return true,
                PrefetchState::Outdated => return false,
                PrefetchState::Wait if self.queue.is_stopped() => {
                    table.failed(key);
                    return false;
                }
                PrefetchState::Wait => match self.queue.take_demand() {
                    Some((key, slot)) => {
                        drop(table);
                        self.read(key, slot);
                        self.queue.done(true);
                    }
                    None => {
                        let waited = self.space.wait_timeout(table, RECHECK);
                        drop(waited.unwrap_or_else(PoisonError::into_inner));
                    }
                },
            }
        }
    }

    fn slot_for_prefetch(&self, key: ExpertKey) -> Option<Pages> {
        let len = self.extent(key).ok()?.slot_bytes;
        let mut table = self.lock();
        if table.is_resident(key) || table.is_loading(key) {
            return None;
        }
        match table.make_room_for_prefetch(len, key.layer) {
            Ok(Room::Slot(slot)) => {
                table.begin(key, len, Need::Lasting, None);
                Some(slot)
            }
            // A prefetch that finds no memory is dropped at no cost.
            Ok(Room::Full) | Err(_) => None,
        }
    }

    /// Reads an expert into its slot and notifies the visits that wait for it.
    fn read(&self, key: ExpertKey, mut slot: Pages) {
        let extent = match self.extent(key) {
            Ok(extent) => extent,
            Err(error) => return self.failed(key, slot, error),
        };
        match self.caught(|| extent.record.read(&*self.source, &mut slot)) {
            Ok(()) => {
                Counters::add(&self.counters.bytes_read, extent.record.bytes() as u64);
                self.arrived(key, slot);
            }
            Err(error) => self.failed(key, slot, self.io_error(error)),
        }
    }

    /// Turns a panic of the source into an error, so that no visit waits forever.
    fn caught(&self, read: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(io::Error::other("the reader panicked")))
    }

    /// Publishes the expert in a slot that was read, and notifies the visits that wait for it.
    fn arrived(&self, key: ExpertKey, slot: Pages) {
        let slot = Arc::new(slot);
        let expert = match self.expert(key, &slot) {
            Ok(expert) => expert,
            Err(error) => return self.failed_in(key, slot, error),
        };
        let loaded = Arc::new(Loaded { expert, slot });
        // Only the visits may hold a clone, or the expert could not be evicted.
        let arrivals = self.lock().arrived(key, loaded);
        for (waiter, loaded) in arrivals {
            let _ = waiter.send((key, Ok(loaded))); // it may have given up
        }
        self.space.notify_all();
    }

    fn failed(&self, key: ExpertKey, slot: Pages, error: WeightsError) {
        self.failed_in(key, Arc::new(slot), error);
    }

    /// Returns the slot of a failed read, and passes the error to the visits that wait for it.
    fn failed_in(&self, key: ExpertKey, slot: Arc<Pages>, error: WeightsError) {
        let error = Arc::new(error);
        let mut table = self.lock();
        let waiters = table.failed(key);
        table.take_back(slot);
        drop(table);
        for waiter in waiters {
            let _ = waiter.send((key, Err(error.clone())));
        }
        self.space.notify_all();
    }

    /// Views of the matrices in a slot that was read.
    fn expert(&self, key: ExpertKey, slot: &Arc<Pages>) -> Result<Expert, WeightsError> {
        let config = self.weights.config();
        let spec = config.family.expert(config, key.layer, key.expert);
        let bytes = Bytes::from(slot.clone());
        self.weights.expert_in(&spec, &self.extent(key)?.record, &bytes)
    }

    /// Unpins an expert, which may make room for another.
    pub fn release(&self, loaded: Arc<Loaded>) {
        self.lock().release(loaded);
        self.space.notify_all();
    }
}
