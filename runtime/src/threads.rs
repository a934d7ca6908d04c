//! Thread pool of decoding: workers spin briefly for the next job, then park.
//!
//! A job is a number of tasks; threads take them one by one, so that a slow core takes fewer.
//! Results depend neither on the assignment of tasks nor on the number of threads:
//! [`Pool::set_limit`] may lower it at any time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::cores::{Assignment, Binding, CoreOptions, CoresRefused, allowed, most_threads};

/// Iterations of the spin loop before a worker parks: some tens of microseconds. Few under Miri,
/// which interprets each of them.
const SPINS: u32 = if cfg!(miri) { 4 } else { 4000 };

/// Threads that execute one job at a time together.
pub struct Pool {
    shared: Arc<Shared>,
    /// Serializes jobs when several sessions share the pool.
    turn: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
    /// The cores that the workers are bound to.
    cores: Option<Vec<usize>>,
}

#[derive(Default)]
struct Shared {
    /// Number of the current job, changed while `job` is locked.
    epoch: AtomicUsize,
    job: Mutex<Slot>,
    wake: Condvar,
    /// Number of workers that take part in jobs, changed while `job` is locked; the others rest.
    limit: AtomicUsize,
    /// Notified when the limit rises, for resting workers.
    rested: Condvar,
    /// Index of the next task.
    next: AtomicUsize,
    /// Number of workers that have not finished the current job.
    busy: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

#[derive(Default)]
struct Slot {
    job: Option<Job>,
    /// Number of parked workers.
    parked: usize,
}

/// A job, as published to workers.
#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    /// Workers 1 to `workers` take part.
    workers: usize,
    /// Valid until `Pool::run` returns, which waits for all workers that take part. A pointer
    /// rather than a reference, since resting workers may copy the job later.
    task: *const (dyn Fn(usize) + Sync),
}

// SAFETY: `task` points to a `Sync` closure and is used only while `Pool::run` keeps it alive.
unsafe impl Send for Job {}

impl Pool {
    /// Creates a pool of `threads` threads, including the caller's; 0 counts as 1.
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
        Self { shared, turn: Mutex::new(()), workers, cores: None }
    }

    /// Creates a pool whose workers are bound to `cores`; `None` if the system refuses. The calling
    /// thread is not bound: see [`Pool::bind_caller`].
    pub fn on(cores: &[usize], threads: usize) -> Option<Self> {
        let _binding = Binding::new(cores)?; // workers inherit it
        let mut pool = Self::new(threads);
        pool.cores = Some(cores.to_vec());
        Some(pool)
    }

    /// A pool on the cores of this machine that are best, unless `options` name others. Cores that
    /// the system refuses are an error only if they were named.
    pub fn open(options: &CoreOptions) -> Result<Self, CoresRefused> {
        let Assignment { threads, cores } = options.assign_here();
        let most = most_threads();
        if threads > most {
            return Err(CoresRefused::Threads { found: threads, most });
        }
        let Some(found) = cores else { return Ok(Self::new(threads)) };
        match Self::on(&found, threads) {
            Some(pool) => Ok(pool),
            None if options.cores.is_none() => Ok(Self::new(threads)),
            None => Err(CoresRefused::Cores { found, allowed: allowed().unwrap_or_default() }),
        }
    }

    /// Binds the calling thread, which takes part in every job that it runs, to the workers' cores.
    /// `None` where they are not bound, or where the system refuses.
    pub fn bind_caller(&self) -> Option<Binding> {
        Binding::new(self.cores.as_deref()?)
    }

    /// Number of cores that are available to this process.
    pub fn default_threads() -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }

    /// Number of threads, including the caller's.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Limits the number of threads, including the caller's, from the next job on; the others
    /// sleep. 0 counts as 1.
    pub fn set_limit(&self, threads: usize) {
        let _slot = lock(&self.shared.job);
        self.shared.limit.store(threads.saturating_sub(1), Ordering::Relaxed);
        self.shared.rested.notify_all();
    }

    /// Number of threads that take part in jobs, as set by [`Pool::set_limit`].
    pub fn active(&self) -> usize {
        self.workers.len().min(self.shared.limit.load(Ordering::Relaxed)) + 1
    }

    /// Calls `task(i, chunk)` for each chunk of `len` items of `data`, as [`run`](Self::run) does.
    ///
    /// # Panics
    /// Panics if a task panics.
    pub fn run_chunks<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        task: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        let chunks: Vec<_> = data.chunks_mut(len.max(1)).map(Mutex::new).collect();
        self.run(chunks.len(), &|i| task(i, &mut lock(&chunks[i])));
    }

    /// Calls `task(i)` once for each `i < tasks`, in any order, on all threads, and waits for them.
    ///
    /// # Panics
    /// Panics if a task panics.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.active() == 1 {
            (0..tasks).for_each(task);
            return;
        }
        let _turn = lock(&self.turn);
        // SAFETY: only the lifetime of a pointer changes.
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

/// Locks are held for assignments only, so a poisoned one is still consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_tasks(shared: &Shared, job: Job) {
    // SAFETY: a worker that takes part uses `task` between taking the job and decrementing `busy`;
    // `Pool::run`, which holds the reference, returns or unwinds only after all of them have done
    // so.
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

/// Waits for a new job that worker `number` takes part in.
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
        // A worker that the job counts must take it, even if the limit has changed since.
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

/// Makes glibc keep freed memory. It returns large blocks to the system when they are freed, and
/// the layers of a prompt would pay page faults for new ones. It stops doing so for blocks up to
/// the size of the largest one that it saw freed (at most 32 MiB). This frees such a block without
/// touching it, which costs no memory. Other allocators are unaffected.
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
        let before = allowed().unwrap();
        let core = before[0];
        let pool = Pool::on(&[core], 3).unwrap();
        assert_eq!(allowed().unwrap(), before, "the calling thread is free");
        let binding = pool.bind_caller().unwrap();
        let barrier = std::sync::Barrier::new(3);
        pool.run(3, &|_| {
            barrier.wait(); // so that each thread has one
            assert_eq!(allowed().unwrap(), [core]);
        });
        drop(binding);
        assert_eq!(allowed().unwrap(), before);
        let missing = vec![crate::cores::MOST_CORES - 1];
        let options = CoreOptions { threads: 1, cores: Some(missing.clone()) };
        let refused = Pool::open(&options).err().unwrap();
        assert_eq!(refused, CoresRefused::Cores { found: missing, allowed: before });
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
