//! Read lanes: threads that take reads from a queue. Flash answers several reads at once faster than one.
//!
//! What a computation waits for is *demanded*; a *guess* at what the next layer will need is served only
//! while no demanded read waits or runs, gives way between its pieces when one comes, and is forgotten when
//! its time has passed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::policies::Key;
use crate::bytes::Pages;
use crate::checkpoint::LayerId;

/// Something for a lane to do.
pub enum Job {
    /// Read an expert into a slot that is set aside for it.
    Demand(Key, Pages),
    /// Read an expert if there is room for it.
    Guess(Key),
}

/// What lanes wait at.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    demands: VecDeque<(Key, Pages)>,
    guesses: VecDeque<Key>,
    /// Demanded reads that run.
    demanded: usize,
    /// Reads that run, and since when any did.
    running: usize,
    since: Option<Instant>,
    busy: Duration,
    stop: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that change it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a read that is waited for.
    pub fn demand(&self, key: Key, slot: Pages) {
        self.lock().demands.push_back((key, slot));
        self.wake.notify_one();
    }

    /// Asks for reads that may turn out useful.
    pub fn guess(&self, keys: impl Iterator<Item = Key>) {
        self.lock().guesses.extend(keys);
        self.wake.notify_all();
    }

    /// Forgets guesses about a layer that have not begun.
    pub fn forget_guesses(&self, layer: LayerId) {
        self.lock().guesses.retain(|key| key.layer != layer);
    }

    /// Takes a demanded read, where one waits; [`Queue::done`] says when it is done.
    pub fn take_demand(&self) -> Option<(Key, Pages)> {
        let mut state = self.lock();
        let demand = state.demands.pop_front()?;
        state.demanded += 1;
        state.running += 1;
        Some(demand)
    }

    /// Whether lanes are to end.
    pub fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// Time during which at least one read ran.
    pub fn busy(&self) -> Duration {
        let state = self.lock();
        state.busy + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Ends the lanes once their current reads are done.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_all();
    }

    /// A lane: does jobs until it is stopped.
    pub fn serve(&self, work: impl Fn(Job)) {
        while let Some(job) = self.next() {
            let demanded = matches!(job, Job::Demand(..));
            work(job);
            self.done(demanded);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            let job = match state.demands.pop_front() {
                Some((key, slot)) => {
                    state.demanded += 1;
                    Some(Job::Demand(key, slot))
                }
                None if state.demanded == 0 => state.guesses.pop_front().map(Job::Guess),
                None => None,
            };
            if job.is_some() {
                state.running += 1;
                state.since.get_or_insert_with(Instant::now);
                return job;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that a read is done.
    pub fn done(&self, demanded: bool) {
        let mut state = self.lock();
        state.running -= 1;
        if state.running == 0 {
            let ran = state.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            state.busy += ran;
        }
        if demanded {
            state.demanded -= 1;
            let idle = state.demanded == 0 && !state.guesses.is_empty();
            drop(state);
            if idle {
                self.wake.notify_all();
            }
        }
    }
}
