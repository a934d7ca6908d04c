//! What visits and lanes share: where experts lie, which are in memory, and how one gets there.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::guesses::Guesses;
use super::meters::Meters;
use super::options::{BudgetError, OpenStoreError, StreamingOptions};
use super::placement::{Placed, Placement};
use super::policies::Key;
use super::reader::{Job, Queue};
use super::table::{GuessState, Loaded, Room, Table};
use crate::bytes::{Bytes, Pages};
use crate::checkpoint::source::Source;
use crate::checkpoint::{Expert, GgufWeights, LayerId, Weights, WeightsError};

/// Bytes of a guess that are read before demanded reads are looked at again.
const GUESS_PIECE: usize = 512 << 10;
/// How long a guess that gave way waits before it looks again, should nobody wake it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

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
                    self.follow_guess(key, slot);
                }
            }
        }
    }

    /// Reads a guessed expert piece by piece, as long as nobody waits for something else.
    fn follow_guess(&self, key: Key, mut slot: Pages) {
        let pieces = self.placed(key).map(|placed| placed.record.pieces(GUESS_PIECE));
        for piece in pieces.into_iter().flatten() {
            if !self.let_demands_pass(key) {
                self.lock().take_back(Arc::new(slot));
                self.space.notify_all();
                return;
            }
            if let Err(error) = self.caught(|| piece.read(&*self.source, &mut slot)) {
                return self.failed(key, slot, self.io_error(error));
            }
            Meters::add(&self.meters.bytes_read, piece.len as u64);
        }
        self.arrived(key, slot);
    }

    /// Waits, and reads what others wait for, until a guess is to be read on; `false` once it is of no use.
    fn let_demands_pass(&self, guess: Key) -> bool {
        loop {
            let mut table = self.lock();
            match table.guess_state(guess) {
                GuessState::Go => return true,
                GuessState::Outdated => return false,
                GuessState::Wait if self.queue.is_stopped() => {
                    table.failed(guess);
                    return false;
                }
                GuessState::Wait => match self.queue.take_demand() {
                    Some((key, slot)) => {
                        drop(table);
                        self.read(key, slot);
                        self.queue.done(true);
                    }
                    None => {
                        let waited = self.space.wait_timeout(table, LOOK_AGAIN);
                        drop(waited.unwrap_or_else(PoisonError::into_inner));
                    }
                },
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
        let placed = match self.placed(key) {
            Ok(placed) => placed,
            Err(error) => return self.failed(key, slot, error),
        };
        match self.caught(|| placed.record.read(&*self.source, &mut slot)) {
            Ok(()) => {
                Meters::add(&self.meters.bytes_read, placed.record.bytes() as u64);
                self.arrived(key, slot);
            }
            Err(error) => self.failed(key, slot, self.io_error(error)),
        }
    }

    /// A source that panics must not leave others waiting for ever.
    fn caught(&self, read: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(io::Error::other("the reader panicked")))
    }

    /// Makes an expert of a slot that was read, and tells those who wait.
    fn arrived(&self, key: Key, slot: Pages) {
        let slot = Arc::new(slot);
        let expert = match self.expert(key, &slot) {
            Ok(expert) => expert,
            Err(error) => return self.failed_in(key, slot, error),
        };
        let loaded = Arc::new(Loaded { expert, slot });
        // Nothing but those who wait may hold on to it, or it could not give way.
        let arrivals = self.lock().arrived(key, loaded);
        for (waiter, loaded) in arrivals {
            let _ = waiter.send((key, Ok(loaded))); // it may have given up
        }
        self.space.notify_all();
    }

    fn failed(&self, key: Key, slot: Pages, error: WeightsError) {
        self.failed_in(key, Arc::new(slot), error);
    }

    /// Takes back a slot that could not be filled, and tells those who wait why.
    fn failed_in(&self, key: Key, slot: Arc<Pages>, error: WeightsError) {
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
