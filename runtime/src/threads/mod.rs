//! Thread pool of decoding: workers spin briefly for the next job, then park.
//!
//! A job is a number of tasks; threads take them one by one, so that a slow core takes fewer.
//! Results depend neither on the assignment of tasks nor on the number of threads:
//! [`Pool::set_limit`] may lower it at any time.

mod gate;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::cores::{Assignment, Binding, CoreOptions, CoresRefused, allowed, most_threads};
use gate::{Gate, MOST_WORKERS};

/// Threads that execute one job at a time together.
pub struct Pool {
    shared: Arc<Shared>,
    /// Serializes jobs when several sessions share the pool.
    turn: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
    /// The cores that the workers are bound to.
    cores: Option<Vec<usize>>,
}

struct Shared {
    gate: Gate,
    /// The current job; valid while its gate is open or a worker is inside.
    job: AtomicPtr<Job<'static>>,
    /// Index of the next task.
    next: AtomicUsize,
    panicked: AtomicBool,
}

/// A job, as published to workers.
struct Job<'a> {
    tasks: usize,
    task: &'a (dyn Fn(usize) + Sync),
}

impl Pool {
    /// Creates a pool of `threads` threads, including the caller's; 0 counts as 1.
    pub fn new(threads: usize) -> Self {
        keep_freed_memory();
        let shared = Arc::new(Shared {
            gate: Gate::new(),
            job: AtomicPtr::new(ptr::null_mut()),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        });
        let workers = (1..threads.min(MOST_WORKERS))
            .map_while(|i| {
                let shared = shared.clone();
                let builder = std::thread::Builder::new().name(format!("vaquita-{i}"));
                builder.spawn(move || shared.work(i)).ok() // fewer threads are slower, not wrong
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
        self.shared.gate.set_limit(threads.saturating_sub(1));
    }

    /// Number of threads that take part in jobs, as set by [`Pool::set_limit`].
    pub fn active(&self) -> usize {
        self.workers.len().min(self.shared.gate.limit()) + 1
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
        let shared = &*self.shared;
        let job = Job { tasks, task };
        shared.next.store(0, Ordering::Relaxed);
        shared.job.store(ptr::from_ref(&job).cast_mut().cast(), Ordering::Relaxed);
        shared.gate.open();
        let own = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(&job)));
        shared.gate.close();
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!panicked, "a worker thread panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.gate.stop();
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

impl Shared {
    /// Runs tasks of the job until none is left.
    fn take_tasks(&self, job: &Job) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= job.tasks {
                return;
            }
            (job.task)(i);
        }
    }

    /// Takes part in jobs as worker `number` until the pool is dropped.
    fn work(&self, number: usize) {
        let mut seen = 0;
        while self.gate.enter(number, &mut seen) {
            // SAFETY: `Pool::run` stored a pointer to a job before it opened the gate, and keeps
            // the job alive until it has closed the gate and every worker inside has left.
            let job = unsafe { &*self.job.load(Ordering::Relaxed) };
            if catch_unwind(AssertUnwindSafe(|| self.take_tasks(job))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.gate.leave();
        }
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
