//! The thread pool: workers that wait for a job, spinning for a moment and then parked.
//!
//! A job is a number of tasks; threads take them one by one, so that a slow core takes fewer. Nothing in
//! the arithmetic depends on who takes what, nor on how many threads work: [`Pool::set_limit`] may lower it at any time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::cores;

/// Turns of the spin loop before a worker parks: some tens of microseconds. Miri, which interprets each turn, parks soon.
const SPINS: u32 = if cfg!(miri) { 4 } else { 4000 };

/// Threads that share the work of one job at a time.
pub struct Pool {
    shared: Arc<Shared>,
    /// One job at a time, also where several sessions use the pool.
    turn: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// The job's number, changed under `job`.
    epoch: AtomicUsize,
    job: Mutex<Slot>,
    wake: Condvar,
    /// Workers that take part in jobs, changed under `job`; the others rest.
    limit: AtomicUsize,
    /// Tells those that rest that the limit rose.
    rested: Condvar,
    /// The next task to take.
    next: AtomicUsize,
    /// Workers that have not finished the current job.
    busy: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

#[derive(Default)]
struct Slot {
    job: Option<Job>,
    /// Workers that sleep.
    parked: usize,
}

/// A job as the workers see it.
#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    /// Workers that take part: numbers 1 to this.
    workers: usize,
    /// Valid until `Pool::run` returns, which waits for all workers that take part. A pointer and no reference, since
    /// workers that rest may copy the job later.
    task: *const (dyn Fn(usize) + Sync),
}

// SAFETY: what `task` points to is `Sync`, and is used only while `Pool::run` keeps it alive.
unsafe impl Send for Job {}

impl Pool {
    /// A pool that works with `threads` threads, the caller's among them; 0 counts as 1.
    pub fn new(threads: usize) -> Self {
        keep_freed_memory();
        let limit = AtomicUsize::new(usize::MAX);
        let shared = Arc::new(Shared { limit, ..Shared::default() });
        let workers = (1..threads)
            .map_while(|i| {
                let shared = shared.clone();
                let builder = std::thread::Builder::new().name(format!("vaquita-{i}"));
                builder.spawn(move || work(&shared, i)).ok() // fewer threads are slower, not wrong
            })
            .collect();
        Self { shared, turn: Mutex::new(()), workers }
    }

    /// A pool that keeps to `cores`: the calling thread is bound to them, and the workers with it, which inherit
    /// its mask. `None` where the system does not do so.
    pub fn on(cores: &[usize], threads: usize) -> Option<Self> {
        cores::keep_to(cores).then(|| Self::new(threads))
    }

    /// As many threads as the machine has cores for this process.
    pub fn default_threads() -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }

    /// Threads that work, the caller's among them.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// From the next job on, at most so many threads work, the caller's among them; the others sleep. 0 counts as 1.
    pub fn set_limit(&self, threads: usize) {
        let _slot = lock(&self.shared.job);
        self.shared.limit.store(threads.saturating_sub(1), Ordering::Relaxed);
        self.shared.rested.notify_all();
    }

    /// Threads that work, as [`Pool::set_limit`] left them.
    pub fn active(&self) -> usize {
        self.workers.len().min(self.shared.limit.load(Ordering::Relaxed)) + 1
    }

    /// Calls `task` with each chunk of `len` items of `data`, and its number, as [`run`](Self::run) does.
    ///
    /// # Panics
    /// Where a task does.
    pub fn run_chunks<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        task: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        let chunks: Vec<_> = data.chunks_mut(len.max(1)).map(Mutex::new).collect();
        self.run(chunks.len(), &|i| task(i, &mut lock(&chunks[i])));
    }

    /// Calls `task(i)` once for each `i < tasks`, in any order, on all threads, and waits.
    ///
    /// # Panics
    /// Where a task does.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.active() == 1 {
            (0..tasks).for_each(task);
            return;
        }
        let _turn = lock(&self.turn);
        // SAFETY: only the lifetime changes, and of a pointer.
        let task: *const (dyn Fn(usize) + Sync + 'static) =
            unsafe { std::mem::transmute(std::ptr::from_ref(task)) };
        let shared = &*self.shared;
        shared.next.store(0, Ordering::Relaxed);
        let (job, parked) = {
            let mut slot = lock(&shared.job);
            let workers = self.active() - 1;
            let job = Job { tasks, workers, task };
            shared.busy.store(workers, Ordering::Relaxed);
            slot.job = Some(job);
            shared.epoch.fetch_add(1, Ordering::Release);
            (job, slot.parked)
        };
        if parked > 0 {
            shared.wake.notify_all(); // a system call
        }
        let own = catch_unwind(AssertUnwindSafe(|| take_tasks(shared, job)));
        while shared.busy.load(Ordering::Acquire) != 0 {
            std::hint::spin_loop();
        }
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!panicked, "a worker thread panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        {
            let _slot = lock(&self.shared.job);
            self.shared.epoch.fetch_add(1, Ordering::Release);
        }
        self.shared.wake.notify_all();
        self.shared.rested.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join(); // its panic was reported by `run`
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

/// Locks are held for assignments only, so a poisoned one is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_tasks(shared: &Shared, job: Job) {
    // SAFETY: workers that take part do so between taking the job and counting themselves out of `busy`; `Pool::run`,
    // which holds the reference, returns or unwinds only after all have.
    let task = unsafe { &*job.task };
    loop {
        let i = shared.next.fetch_add(1, Ordering::Relaxed);
        if i >= job.tasks {
            return;
        }
        task(i);
    }
}

fn work(shared: &Shared, number: usize) {
    let mut seen = 0;
    loop {
        let Some(job) = next_job(shared, number, &mut seen) else { return };
        if catch_unwind(AssertUnwindSafe(|| take_tasks(shared, job))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

/// Waits for a job other than the one seen last that worker `number` takes part in.
fn next_job(shared: &Shared, number: usize, seen: &mut usize) -> Option<Job> {
    for _ in 0..SPINS {
        if shared.epoch.load(Ordering::Acquire) != *seen {
            break;
        }
        std::hint::spin_loop();
    }
    let mut slot = lock(&shared.job);
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            return None;
        }
        let epoch = shared.epoch.load(Ordering::Acquire);
        // Whoever a job counts in must take it, also where the limit has changed since.
        if epoch != *seen {
            *seen = epoch;
            if slot.job.is_some_and(|job| number <= job.workers) {
                return slot.job;
            }
        }
        let rests = number > shared.limit.load(Ordering::Relaxed);
        let wait = if rests { &shared.rested } else { &shared.wake };
        slot.parked += 1;
        slot = wait.wait(slot).unwrap_or_else(PoisonError::into_inner);
        slot.parked -= 1;
    }
}

/// glibc hands large blocks back to the system as they are freed, and a prompt's layers pay for page after page of new
/// ones. It stops doing so for blocks no larger than the largest that it saw freed, up to 32 MiB: this is one, which nobody
/// touches, so that it costs no memory. Other allocators take no notice.
fn keep_freed_memory() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(31 << 20))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, if cfg!(miri) { 50 } else { 1000 }] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_lower_limit_puts_threads_to_rest_and_a_higher_one_wakes_them() {
        let pool = Pool::new(4);
        assert_eq!(pool.active(), 4);
        for (limit, active) in [(0, 1), (3, 3), (1, 1), (2, 2), (9, 4)] {
            pool.set_limit(limit);
            assert_eq!(pool.active(), active);
            for _ in 0..if cfg!(miri) { 2 } else { 50 } {
                let seen = Mutex::new(std::collections::HashSet::new());
                let sum = AtomicUsize::new(0);
                pool.run(100, &|i| {
                    seen.lock().unwrap().insert(std::thread::current().id());
                    sum.fetch_add(i, Ordering::Relaxed);
                });
                assert_eq!(sum.into_inner(), 4950);
                assert!(seen.into_inner().unwrap().len() <= active);
            }
        }
    }

    #[test]
    fn limits_may_change_while_jobs_run() {
        let pool = Pool::new(4);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for limit in (0..).take_while(|_| !done.load(Ordering::Relaxed)) {
                    pool.set_limit(limit % 6);
                }
            });
            for _ in 0..if cfg!(miri) { 20 } else { 2000 } {
                let sum = AtomicUsize::new(0);
                pool.run(10, &|i| {
                    sum.fetch_add(i, Ordering::Relaxed);
                });
                assert_eq!(sum.into_inner(), 45);
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_pool_keeps_all_its_threads_to_its_cores() {
        // A thread of its own, since its mask stays narrowed.
        let bound = std::thread::spawn(|| {
            let core = cores::allowed().unwrap()[0];
            let pool = Pool::on(&[core], 3).unwrap();
            let barrier = std::sync::Barrier::new(3);
            pool.run(3, &|_| {
                barrier.wait(); // so that each thread has one
                assert_eq!(cores::allowed().unwrap(), [core]);
            });
            assert!(Pool::on(&[cores::MOST_CORES - 1], 1).is_none(), "there is no such core");
        });
        bound.join().unwrap();
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_works_on() {
        let pool = Pool::new(3);
        let panics = catch_unwind(AssertUnwindSafe(|| {
            pool.run(100, &|i| assert!(i != 57, "task 57 fails"));
        }));
        assert!(panics.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(100, &|i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 4950);
    }
}
