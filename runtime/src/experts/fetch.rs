//! One visit of a layer: from the experts it needs to their arrival.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::loader::Loader;
use super::meters::Meters;
use super::policies::Key;
use super::table::{Arrival, Loaded, Room, Table};
use crate::checkpoint::{ExpertId, LayerId, WeightsError};
use crate::model::Visit;

/// How long a visit without a slot waits before it looks again, should nobody wake it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// An expert that can be taken.
pub(super) type Ready = (Key, Arc<Loaded>);

/// One visit that is being served.
pub(super) struct Fetch<'a> {
    loader: &'a Loader,
    layer: LayerId,
    /// Experts that are neither in memory nor asked for.
    todo: VecDeque<Key>,
    /// Experts that can be taken.
    ready: VecDeque<Ready>,
    /// Experts that will arrive.
    pending: usize,
    /// Those of them whose reads were begun for somebody else.
    joined: HashSet<Key>,
    arrivals: Receiver<Arrival>,
    sender: Sender<Arrival>,
}

impl<'a> Fetch<'a> {
    pub fn begin(loader: &'a Loader, visit: &Visit) -> Result<Self, WeightsError> {
        let (sender, arrivals) = channel();
        let layer = visit.layer;
        let key = |expert| Key { layer, expert };
        let todo: VecDeque<Key> = visit.wanted().into_iter().map(key).collect();
        let routed: Vec<ExpertId> = visit.slots.iter().map(|slot| slot.expert).collect();
        let (ready, pending, joined) = (VecDeque::new(), 0, HashSet::new());
        let mut fetch = Self { loader, layer, todo, ready, pending, joined, arrivals, sender };
        loader.queue.forget_guesses(layer);
        {
            let mut guesses = loader.guesses();
            guesses.judge(layer, &visit.wanted());
            if loader.is_first(layer) {
                guesses.token((visit.tokens() == 1).then(Instant::now));
            }
        }
        let mut table = loader.lock();
        table.policy.visit(layer, &routed);
        // First all that are in memory: from here on they cannot give way to the others.
        let mut missing = VecDeque::new();
        for key in std::mem::take(&mut fetch.todo) {
            match table.get(key) {
                Some(loaded) => fetch.ready.push_back((key, loaded)),
                None => missing.push_back(key),
            }
        }
        Meters::add(&loader.meters.uses, (fetch.ready.len() + missing.len()) as u64);
        Meters::add(&loader.meters.hits, fetch.ready.len() as u64);
        fetch.todo = missing;
        fetch.ask(&mut table)?;
        table.give_up_guesses(Some(layer));
        drop(table);
        loader.space.notify_all(); // a guess that gave way may be waited for now
        Ok(fetch)
    }

    /// Asks for as many experts as there is room for.
    fn ask(&mut self, table: &mut Table) -> Result<(), WeightsError> {
        while let Some(&key) = self.todo.front() {
            if let Some(loaded) = table.get(key) {
                self.ready.push_back((key, loaded)); // another sequence has read it
            } else if table.join(key, &self.sender) {
                self.pending += 1;
                self.joined.insert(key);
            } else {
                let len = self.loader.placed(key)?.slot_bytes;
                let room = table.make_room(len, self.layer);
                match room.map_err(|error| self.loader.io_error(error))? {
                    Room::Full => {
                        table.give_up_guesses(None); // they hold memory
                        return Ok(());
                    }
                    Room::Slot(slot) => {
                        table.begin(key, Some(self.sender.clone()));
                        self.loader.queue.demand(key, slot);
                        self.pending += 1;
                    }
                }
            }
            self.todo.pop_front();
        }
        Ok(())
    }

    /// Whether an expert is ready.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Experts that are ready, at least one, in the order in which they became so; `None` after the last. One at a
    /// time while others wait for memory, which it gives back.
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
            Meters::add_time(&self.loader.meters.waiting_ns, since.elapsed());
            waited?;
        }
        let count = if self.todo.is_empty() { self.ready.len() } else { 1 };
        Ok(Some(self.ready.drain(..count).collect()))
    }

    /// Until one is ready.
    fn wait(&mut self) -> Result<(), WeightsError> {
        while self.ready.is_empty() {
            if self.pending > 0 {
                // The fetch itself holds a sender, so that there is always one.
                let stopped = || io::Error::other("the readers have stopped");
                let arrival = self.arrivals.recv();
                self.arrived(arrival.map_err(|_| self.loader.io_error(stopped()))?)?;
                continue;
            }
            // Others hold all the memory: they compute, and then let go of it.
            let loader = self.loader;
            let mut table = loader.lock();
            self.ask(&mut table)?;
            if self.pending == 0 && self.ready.is_empty() {
                let waited = loader.space.wait_timeout(table, LOOK_AGAIN);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
        Ok(())
    }

    fn arrived(&mut self, (key, result): Arrival) -> Result<(), WeightsError> {
        self.pending -= 1;
        match result {
            Ok(loaded) => self.ready.push_back((key, loaded)),
            // That error is somebody else's: this visit tries for itself.
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
        // Where a visit fails, what it has not taken is free for others.
        let arrived = self.arrivals.try_iter().filter_map(|(_, result)| result.ok());
        let ready = self.ready.drain(..).map(|(_, loaded)| loaded);
        ready.chain(arrived).for_each(|loaded| self.loader.release(loaded));
    }
}
