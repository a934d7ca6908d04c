//! What visits and lanes share: where experts lie, which are in memory, and how one gets there.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::guesses::Guesses;
use super::placement::{Placed, Placement};
use super::policies::Key;
use super::reader::{Job, Queue};
use super::source::Source;
use super::stats::Meters;
use super::streaming::{BudgetError, OpenStoreError, StreamingOptions};
use super::table::{Loaded, Room, Table};
use crate::bytes::{Bytes, Pages};
use crate::model::{Expert, GgufWeights, LayerId, Weights, WeightsError};

/// The state of a store.
pub(super) struct Loader {
    pub weights: Arc<GgufWeights>,
    pub placement: Placement,
    pub guesses: Mutex<Guesses>,
    /// Memory was released or an expert arrived.
    pub space: Condvar,
    pub queue: Queue,
    pub meters: Meters,
    source: Arc<dyn Source>,
    table: Mutex<Table>,
}

impl Loader {
    /// Finds the experts of `weights`, none of them in memory yet.
    pub fn new(
        weights: Arc<GgufWeights>,
        source: Arc<dyn Source>,
        options: &StreamingOptions,
    ) -> Result<Self, OpenStoreError> {
        let placement = Placement::find(&weights)?;
        let shape = placement.shape;
        let loader = Self {
            weights,
            placement,
            guesses: Mutex::new(Guesses::new(options.guessing, shape.layers)),
            space: Condvar::new(),
            queue: Queue::default(),
            meters: Meters::default(),
            source,
            table: Mutex::new(Table::new(options.policy.build(shape), options.budget_bytes)),
        };
        loader.check(options.budget_bytes)?;
        Ok(loader)
    }

    /// Whether a budget holds what one layer needs at once.
    pub fn check(&self, budget: usize) -> Result<(), BudgetError> {
        let least = self.placement.least_bytes();
        if budget < least { Err(BudgetError { found: budget, least }) } else { Ok(()) }
    }

    pub fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing that can panic runs while a change is half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn guesses(&self) -> MutexGuard<'_, Guesses> {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a layer is the first with experts: where a token begins.
    pub fn is_first(&self, layer: LayerId) -> bool {
        layer.0 == self.weights.config().moe.first_k_dense_replace
    }

    pub fn placed(&self, key: Key) -> Result<&Placed, WeightsError> {
        self.placement.get(key).ok_or_else(|| WeightsError::Missing {
            path: self.weights.gguf().path().into(),
            name: format!("expert {} of layer {}", key.expert.0, key.layer.0),
        })
    }

    pub fn io_error(&self, source: io::Error) -> WeightsError {
        WeightsError::Io { path: self.weights.gguf().path().into(), source }
    }

    /// What a lane does with a job.
    pub fn work(&self, job: Job) {
        match job {
            Job::Demand(key, slot) => self.read(key, slot),
            Job::Guess(key) => {
                if let Some(slot) = self.slot_for_guess(key) {
                    self.read(key, slot);
                }
            }
        }
    }

    fn slot_for_guess(&self, key: Key) -> Option<Pages> {
        let len = self.placed(key).ok()?.slot_bytes;
        let mut table = self.lock();
        if table.is_resident(key) || table.is_loading(key) {
            return None;
        }
        match table.make_room_for_guess(len, key.layer) {
            Ok(Room::Slot(slot)) => {
                table.begin(key, None);
                Some(slot)
            }
            // A guess that cannot be followed costs nothing.
            Ok(Room::Full) | Err(_) => None,
        }
    }

    /// Reads an expert into its slot and tells those who wait.
    fn read(&self, key: Key, mut slot: Pages) {
        let read = |slot: &mut Pages| -> Result<(), WeightsError> {
            let placed = self.placed(key)?;
            placed.record.read(&*self.source, slot).map_err(|error| self.io_error(error))?;
            Meters::add(&self.meters.bytes_read, placed.record.bytes() as u64);
            Ok(())
        };
        // A source that panics must not leave others waiting for ever.
        let result = catch_unwind(AssertUnwindSafe(|| read(&mut slot)))
            .unwrap_or_else(|_| Err(self.io_error(io::Error::other("the reader panicked"))));
        let slot = Arc::new(slot);
        match result.and_then(|()| self.expert(key, &slot)) {
            Ok(expert) => {
                let loaded = Arc::new(Loaded { expert, slot });
                // Nothing but those who wait may hold on to it, or it could not give way.
                let arrivals = self.lock().arrived(key, loaded);
                for (waiter, loaded) in arrivals {
                    let _ = waiter.send((key, Ok(loaded))); // it may have given up
                }
                self.space.notify_all();
            }
            Err(error) => {
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
        }
    }

    /// The expert in a slot that was read.
    fn expert(&self, key: Key, slot: &Arc<Pages>) -> Result<Expert, WeightsError> {
        let config = self.weights.config();
        let spec = config.family.expert(config, key.layer, key.expert);
        let bytes = Bytes::from(slot.clone());
        self.weights.expert_in(&spec, &self.placed(key)?.record, &bytes)
    }

    /// Lets go of an expert, which may make room for another.
    pub fn release(&self, loaded: Arc<Loaded>) {
        self.lock().release(loaded);
        self.space.notify_all();
    }
}
