//! Read lanes: threads that serve a queue of reads. Flash storage is faster with several reads in
//! flight.
//!
//! A *demanded* read has a visit waiting for it. A *prefetch* is served only while no demanded read
//! waits or runs, is suspended between its pieces when one arrives, and is dropped once its layer
//! has been visited.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::policies::ExpertKey;
use crate::bytes::Pages;
use crate::checkpoint::LayerId;

/// A job for a lane.
pub enum Job {
    /// Read an expert into the slot reserved for it.
    Demand(ExpertKey, Pages),
    /// Prefetch an expert if there is room for it.
    Prefetch(ExpertKey),
}

/// The queue that lanes wait on.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    demands: VecDeque<(ExpertKey, Pages)>,
    prefetches: VecDeque<ExpertKey>,
    /// Number of demanded reads that run.
    demanded: usize,
    /// Number of reads that run, and the time since when at least one does.
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

    /// Queues a read that a visit waits for.
    pub fn demand(&self, key: ExpertKey, slot: Pages) {
        self.lock().demands.push_back((key, slot));
        self.wake.notify_one();
    }

    /// Queues prefetches.
    pub fn prefetch(&self, keys: impl Iterator<Item = ExpertKey>) {
        self.lock().prefetches.extend(keys);
        self.wake.notify_all();
    }

    /// Drops the queued prefetches for a layer.
    pub fn drop_prefetches(&self, layer: LayerId) {
        self.lock().prefetches.retain(|key| key.layer != layer);
    }

    /// Takes a demanded read if one is queued; the caller reports its end with [`Queue::done`].
    pub fn take_demand(&self) -> Option<(ExpertKey, Pages)> {
        let mut state = self.lock();
        let demand = state.demands.pop_front()?;
        state.demanded += 1;
        state.running += 1;
        Some(demand)
    }

    /// Whether the lanes have been told to stop.
    pub fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// Time during which at least one read ran.
    pub fn busy(&self) -> Duration {
        let state = self.lock();
        state.busy + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Stops the lanes after their current reads.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_all();
    }

    /// Runs a lane: executes jobs until the queue is stopped.
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
                None if state.demanded == 0 => state.prefetches.pop_front().map(Job::Prefetch),
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

    /// Records the end of a read.
    pub fn done(&self, demanded: bool) {
        let mut state = self.lock();
        state.running -= 1;
        if state.running == 0 {
            let ran = state.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            state.busy += ran;
        }
        if demanded {
            state.demanded -= 1;
            let idle = state.demanded == 0 && !state.prefetches.is_empty();
            drop(state);
            if idle {
                self.wake.notify_all();
            }
        }
    }
}
