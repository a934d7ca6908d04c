//! Passes that the sessions of several threads share.
//!
//! Whoever comes first computes for all that wait: the session that leads a pass waits a moment for
//! those that took part in the last one and are picking their next token, then computes one step of
//! all answers and one slice of one prompt ([`Pace`]). A session alone computes on its own thread, as
//! it does without others. A session that makes the others wait, because its program is slow to take
//! a token, is not waited for until it comes again.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pace::Pace;
use crate::model::{Chunk, Compute, Logits, Model, ModelError, Purpose};
use crate::session::SessionOptions;
use crate::session::passes::{Computed, Passes, Work};
use crate::threads::Pool;

/// Share of the last pass for which the next one waits for sessions.
const PATIENCE: u32 = 2;

/// Passes over the sequences of sessions on several threads.
pub struct JointPasses {
    model: Arc<Model>,
    pool: Arc<Pool>,
    options: SessionOptions,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    pace: Pace,
    /// Work that waits, by arrival.
    waiting: Vec<Job>,
    done: Vec<(Ticket, Computed)>,
    /// Work that a panic has ended.
    lost: BTreeSet<Ticket>,
    next: Ticket,
    /// A session computes a pass or is about to.
    led: bool,
    /// Seats of sessions that generate.
    present: BTreeSet<Ticket>,
    /// Those whose next work is waited for, and until when.
    expected: BTreeSet<Ticket>,
    until: Instant,
    counts: PassCounts,
}

/// Number of a piece of work or a seat.
type Ticket = u64;

/// Passes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassCounts {
    /// Passes of the model.
    pub passes: u64,
    /// Sequences that took part in them.
    pub sequences: u64,
}

/// Work in progress.
struct Job {
    ticket: Ticket,
    seat: Ticket,
    work: Work,
    /// Tokens that are computed, and what they brought.
    computed: usize,
    logits: Vec<f32>,
    states: Vec<f32>,
    error: Option<ModelError>,
}

impl Job {
    fn left(&self) -> usize {
        self.work.tokens.len() - self.computed
    }

    fn is_prompt(&self) -> bool {
        self.work.purpose != Purpose::Decode
    }

    fn is_done(&self) -> bool {
        self.error.is_some() || self.left() == 0
    }

    fn into_computed(self) -> Computed {
        let Self { work, logits, states, error, .. } = self;
        Computed { cache: work.cache, logits: error.map_or(Ok(logits), Err), states }
    }
}

impl JointPasses {
    /// Passes of a model. `options` are those of the sessions.
    pub fn new(model: Arc<Model>, pool: Arc<Pool>, options: SessionOptions) -> Arc<Self> {
        let state = State {
            pace: Pace::new(None, options.prefill_chunk),
            waiting: Vec::new(),
            done: Vec::new(),
            lost: BTreeSet::new(),
            next: 0,
            led: false,
            present: BTreeSet::new(),
            expected: BTreeSet::new(),
            until: Instant::now(),
            counts: PassCounts::default(),
        };
        Arc::new(Self { model, pool, options, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The place of a further session.
    pub fn seat(self: &Arc<Self>) -> Seat {
        let mut state = self.lock();
        let seat = state.ticket();
        Seat { passes: self.clone(), seat }
    }

    /// Passes so far.
    pub fn counts(&self) -> PassCounts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compute(&self, seat: Ticket, work: Work) -> Computed {
        let mut state = self.lock();
        let ticket = state.ticket();
        let (logits, states, error) = (Vec::new(), Vec::new(), None);
        state.waiting.push(Job { ticket, seat, work, computed: 0, logits, states, error });
        if state.expected.remove(&seat) && state.expected.is_empty() {
            self.changed.notify_all();
        }
        loop {
            if let Some(at) = state.done.iter().position(|(of, _)| *of == ticket) {
                return state.done.swap_remove(at).1;
            }
            assert!(!state.lost.remove(&ticket), "a pass that this session took part in panicked");
            state = match state.led {
                true => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                false => self.lead(state),
            };
        }
    }

    /// Computes a pass over what waits.
    fn lead<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.led = true;
        while !state.expected.is_empty() {
            let left = state.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.expected.clear();
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let width = self.model.experts().tokens_at_once().unwrap_or(usize::MAX).max(1);
        let together = self.model.tokens_of_pass(self.options.prefill_chunk);
        let (mut jobs, slice) = state.select(width, together);
        let leading = Leading { passes: self, taken: jobs.iter().map(|job| job.ticket).collect() };
        drop(state);
        let start = Instant::now();
        self.pass(&mut jobs, slice);
        let time = start.elapsed();
        let mut state = self.lock();
        state.end(jobs, slice, time);
        drop(leading);
        state.led = false;
        self.changed.notify_all();
        state
    }

    /// Computes all tokens of answers, and `slice` tokens of a prompt.
    fn pass(&self, jobs: &mut [Job], slice: usize) {
        let ctx = Compute::new(self.options.tier, &self.pool);
        let alone = jobs.iter().all(Job::is_prompt);
        let mut states: Vec<Option<Vec<f32>>> =
            jobs.iter().map(|job| job.work.wants_states.then(Vec::new)).collect();
        let counts: Vec<usize> = jobs
            .iter()
            .map(|job| if job.is_prompt() { slice.min(job.left()) } else { job.left() })
            .collect();
        let mut chunks = Vec::with_capacity(jobs.len());
        for ((job, states), count) in jobs.iter_mut().zip(&mut states).zip(&counts) {
            let Job { work, computed, .. } = job;
            let purpose = match work.purpose {
                Purpose::Prompt if !alone => Purpose::Passing,
                purpose => purpose,
            };
            let tokens = &work.tokens[*computed..*computed + count];
            chunks.push(Chunk {
                states: states.as_mut(),
                purpose,
                cancel: work.cancel.as_deref(),
                ..Chunk::new(tokens, &mut work.cache, work.wanted)
            });
        }
        let results = together(&self.model, &ctx, &mut chunks);
        drop(chunks);
        for (((job, result), states), count) in jobs.iter_mut().zip(results).zip(states).zip(counts)
        {
            match result {
                Ok(logits) => {
                    job.computed += count;
                    job.states.extend(states.unwrap_or_default());
                    match job.work.wanted {
                        Logits::Last => job.logits = logits,
                        Logits::All => job.logits.extend(logits),
                    }
                }
                Err(error) => {
                    // All of the work or none of it.
                    let before = job.work.cache.len() - job.computed;
                    job.work.cache.truncate(before);
                    job.error = Some(error);
                }
            }
        }
    }
}

fn together(
    model: &Model,
    ctx: &Compute,
    chunks: &mut [Chunk],
) -> Vec<Result<Vec<f32>, ModelError>> {
    match model.forward_batch(ctx, chunks) {
        Ok(results) => results,
        // An expert cannot be read: only those that need it fail.
        Err(_) if chunks.len() > 1 => {
            chunks.chunks_mut(1).flat_map(|chunk| together(model, ctx, chunk)).collect()
        }
        Err(error) => vec![Err(error)],
    }
}

impl State {
    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        self.next
    }

    /// Takes the work of the next pass: answers, at most `width` tokens of them or one, and a
    /// prompt, with the number of its tokens.
    fn select(&mut self, width: usize, chunk: usize) -> (Vec<Job>, usize) {
        let (mut jobs, mut tokens) = (Vec::new(), 0);
        let mut at = 0;
        while let Some(job) = self.waiting.get(at) {
            let fits = jobs.is_empty() || tokens + job.left() <= width.min(chunk);
            if !job.is_prompt() && fits {
                tokens += job.left();
                jobs.push(self.waiting.remove(at));
            } else {
                at += 1;
            }
        }
        let Some(prompt) = self.waiting.iter().position(Job::is_prompt) else { return (jobs, 0) };
        let room = chunk.saturating_sub(tokens).max(1);
        let slice = self.pace.slice(jobs.len()).min(room).min(self.waiting[prompt].left());
        if slice > 0 {
            jobs.push(self.waiting.remove(prompt));
        }
        (jobs, slice)
    }

    /// Takes the work back after a pass.
    fn end(&mut self, jobs: Vec<Job>, slice: usize, time: Duration) {
        let answers = jobs.iter().filter(|job| !job.is_prompt()).count();
        self.pace.record(answers, slice, time);
        self.counts.passes += 1;
        self.counts.sequences += jobs.len() as u64;
        self.until = Instant::now() + time / PATIENCE;
        for job in jobs {
            if !job.is_done() {
                self.waiting.push(job); // after other prompts that wait
                continue;
            }
            if self.present.contains(&job.seat) {
                self.expected.insert(job.seat);
            }
            self.done.push((job.ticket, job.into_computed()));
        }
    }
}

/// A pass that is computed. If that panics, its sessions end with a panic too.
struct Leading<'a> {
    passes: &'a JointPasses,
    taken: Vec<Ticket>,
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.passes.lock();
            state.lost.extend(self.taken.drain(..));
            state.led = false;
            self.passes.changed.notify_all();
        }
    }
}

/// The place of a session among those that share passes.
pub struct Seat {
    passes: Arc<JointPasses>,
    seat: Ticket,
}

impl Seat {
    /// Announces that the session generates until the returned guard is dropped, so that others wait
    /// for its tokens.
    pub fn enter(&self) -> Present {
        self.passes.lock().present.insert(self.seat);
        Present { passes: self.passes.clone(), seat: self.seat }
    }

    /// The same place, for a session that replaces another one.
    pub fn same(&self) -> Self {
        Self { passes: self.passes.clone(), seat: self.seat }
    }
}

impl Passes for Seat {
    fn compute(&self, work: Work) -> Computed {
        self.passes.compute(self.seat, work)
    }

    fn others(&self) -> usize {
        let state = self.passes.lock();
        state.present.iter().filter(|seat| **seat != self.seat).count()
    }
}

/// A session that generates.
#[must_use = "others wait for the session's tokens until this is dropped"]
pub struct Present {
    passes: Arc<JointPasses>,
    seat: Ticket,
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut state = self.passes.lock();
        state.present.remove(&self.seat);
        state.expected.remove(&self.seat);
        drop(state);
        self.passes.changed.notify_all();
    }
}
