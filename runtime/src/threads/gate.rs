//! The gate of a pool: workers enter a job while it is open, and the caller waits only for those
//! inside once it has closed.
//!
//! A worker that the system has put aside outside of the gate is not missed. One that it has put
//! aside inside is waited for: briefly by spinning, then asleep, which leaves a core to it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Iterations of a spin loop before a thread sleeps: some tens of microseconds. Few under Miri,
/// which interprets each of them.
const SPINS: u32 = if cfg!(miri) { 4 } else { 4000 };

/// Bits of [`Gate::state`]: the number of workers inside, two flags, and the number of the job.
const INSIDE: usize = (1 << 14) - 1;
/// No worker may enter.
const CLOSED: usize = 1 << 14;
/// The caller sleeps until the last worker leaves.
const AWAITED: usize = 1 << 15;
/// The unit of the number of the job, which wraps.
const JOB: usize = 1 << 16;

/// Largest number of workers that a gate can count.
pub(super) const MOST_WORKERS: usize = INSIDE;

/// Admits workers to one job after the other. Alone in its cache lines, which waiting workers read
/// all the time.
#[repr(align(64))]
pub(super) struct Gate {
    state: AtomicUsize,
    /// Workers 1 to `limit` may enter; changed while `sleepers` is locked.
    limit: AtomicUsize,
    stop: AtomicBool,
    /// Whether a worker may sleep on `opened` that was not notified yet; changed while `sleepers` is
    /// locked.
    asleep: AtomicBool,
    sleepers: Mutex<()>,
    /// Notified when a job opens.
    opened: Condvar,
    /// Notified when the limit rises.
    raised: Condvar,
    /// Notified when the last worker leaves a closed job.
    left: Condvar,
}

impl Gate {
    /// A closed gate that would admit any worker.
    pub fn new() -> Self {
        Self {
            state: AtomicUsize::new(CLOSED),
            limit: AtomicUsize::new(usize::MAX),
            stop: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            sleepers: Mutex::new(()),
            opened: Condvar::new(),
            raised: Condvar::new(),
            left: Condvar::new(),
        }
    }

    /// Opens the gate for the next job. What the caller wrote before is visible to workers that
    /// enter. [`Gate::close`] must have returned for the last job.
    pub fn open(&self) {
        let job = (self.state.load(Ordering::Relaxed) & !(JOB - 1)).wrapping_add(JOB);
        // Either this sees a worker that falls asleep, or that worker sees the job: both orders
        // are sequentially consistent.
        self.state.store(job, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            let _guard = self.lock();
            self.asleep.store(false, Ordering::Relaxed);
            self.opened.notify_all(); // a system call
        }
    }

    /// Closes the gate and waits for the workers inside. What they wrote is visible afterwards.
    pub fn close(&self) {
        if self.state.fetch_or(CLOSED, Ordering::Acquire) & INSIDE == 0 {
            return;
        }
        for _ in 0..SPINS {
            if self.state.load(Ordering::Acquire) & INSIDE == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.lock();
        self.state.fetch_or(AWAITED, Ordering::Relaxed);
        while self.state.load(Ordering::Acquire) & INSIDE != 0 {
            guard = self.left.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for a job that is not `seen` and open to worker `number`, and enters it; `false` once
    /// the gate has stopped. A worker that is inside calls [`Gate::leave`].
    pub fn enter(&self, number: usize, seen: &mut usize) -> bool {
        let mut spins = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            let job = state & !(JOB - 1);
            if job == *seen && spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
                continue;
            }
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            if job == *seen || number > self.limit.load(Ordering::Relaxed) {
                self.sleep(number, *seen);
                spins = 0;
                continue;
            }
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            let open = state & CLOSED == 0;
            if open && self.state.compare_exchange(state, state + 1, success, failure).is_err() {
                continue; // another worker has entered, or the job has closed
            }
            (*seen, spins) = (job, 0);
            if open {
                return true;
            }
        }
    }

    /// Leaves the job that the worker has entered.
    pub fn leave(&self) {
        let state = self.state.fetch_sub(1, Ordering::Release);
        if state & AWAITED != 0 && state & INSIDE == 1 {
            drop(self.lock());
            self.left.notify_one();
        }
    }

    /// Sleeps until there is a job that is not `seen`, or the gate has stopped; beyond the limit,
    /// until that rises.
    fn sleep(&self, number: usize, seen: usize) {
        let mut guard = self.lock();
        while !self.stop.load(Ordering::Relaxed) {
            if number > self.limit.load(Ordering::Relaxed) {
                guard = self.raised.wait(guard).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            self.asleep.store(true, Ordering::SeqCst);
            if self.state.load(Ordering::SeqCst) & !(JOB - 1) != seen {
                return;
            }
            guard = self.opened.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Number of workers that may enter.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the number of workers that may enter, from the next job on.
    pub fn set_limit(&self, workers: usize) {
        let _guard = self.lock();
        self.limit.store(workers, Ordering::Relaxed);
        self.raised.notify_all();
    }

    /// Makes [`Gate::enter`] return `false`. No job may be open.
    pub fn stop(&self) {
        let _guard = self.lock();
        self.stop.store(true, Ordering::Relaxed);
        self.state.fetch_add(JOB, Ordering::Release);
        self.opened.notify_all();
        self.raised.notify_all();
    }

    /// The lock guards no data, so a poisoned one is still consistent.
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn a_job_does_not_wait_for_a_worker_that_has_not_entered() {
        let gate = Gate::new();
        let mut seen = 0;
        gate.open();
        gate.close(); // would never return if a worker were expected
        gate.open();
        assert!(gate.enter(1, &mut seen));
        gate.leave();
        gate.close();
    }

    #[test]
    fn a_job_ends_after_the_workers_inside_have_left_however_long_that_takes() {
        let (gate, written) = (Gate::new(), AtomicUsize::new(0));
        let (entered, inside) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut seen = 0;
                while gate.enter(1, &mut seen) {
                    entered.send(()).unwrap();
                    while gate.state.load(Ordering::Relaxed) & AWAITED == 0 {
                        thread::yield_now(); // until the caller sleeps
                    }
                    written.fetch_add(1, Ordering::Relaxed);
                    gate.leave();
                }
            });
            for round in 1..=3 {
                gate.open();
                inside.recv().unwrap();
                gate.close();
                assert_eq!(written.load(Ordering::Relaxed), round);
            }
            gate.stop();
        });
    }

    #[test]
    fn workers_beyond_the_limit_sleep_until_it_rises_or_the_gate_stops() {
        let gate = Gate::new();
        let (entered, inside) = channel();
        gate.set_limit(0);
        thread::scope(|scope| {
            let entered = &entered;
            for number in 1..=2 {
                let gate = &gate;
                scope.spawn(move || {
                    let mut seen = 0;
                    while gate.enter(number, &mut seen) {
                        entered.send(number).unwrap();
                        gate.leave();
                    }
                });
            }
            gate.open();
            gate.close();
            assert!(inside.try_recv().is_err());
            gate.set_limit(1);
            gate.open();
            assert_eq!(inside.recv(), Ok(1), "the second stays outside");
            gate.close();
            gate.stop();
        });
        assert!(inside.try_recv().is_err());
    }
}
