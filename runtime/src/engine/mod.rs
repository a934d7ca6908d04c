//! Many sequences with one model: requests wait in a bounded queue, and one thread computes the
//! answers of all that run.
//!
//! Each pass of the model is one decode step of the running answers and one slice of one prompt
//! ([`pace`]). [`queue`] decides what runs, [`scheduler`] is the loop, a [`sequence`] is one
//! request that runs, [`drafting`] guesses its tokens, [`prompts`] are kept for later requests.
//! [`slots`] are prompts that clients name, save and restore.
//! [`joint`] lets sessions of several threads share passes instead.
//! Sequences do not influence each other's bits, so that everything here is a question of time and
//! memory only.

mod drafting;
mod energy;
mod joint;
mod options;
mod outlet;
mod pace;
mod pass;
mod prompts;
mod queue;
mod request;
mod scheduler;
mod sequence;
mod slots;
mod status;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use joint::{JointPasses, PassCounts, Present, Seat};
pub use options::{EngineModel, EngineOptions, SamplerMaker, StartError};
pub use prompts::{PromptCacheOptions, PromptFolder, PromptFolderError};
pub use request::{
    CacheSource, CacheUse, EngineError, Finished, Notice, Priority, Refused, Request, Sink, Ticket,
};
pub use slots::SlotError;
pub use status::{Counters, RefusedCounters, Status};

use crate::session::SessionError;
use crate::session::answer::Answer;
use crate::session::generate::GenerateError;
use outlet::Outlet;
use prompts::{Disk, Kind, Prompts};
use queue::{Bounds, NoPlace, Queue, Runs, Waiting};
use scheduler::Scheduler;
use slots::Order;

/// Answers requests on a thread of its own. Dropping it cancels everything that runs or waits.
pub struct Engine {
    model: EngineModel,
    /// Tokens of a sequence, prompt and answer together.
    limit: usize,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// State that the engine's thread and its users share.
struct Shared {
    state: Mutex<State>,
    /// Notified when there may be something to do, and when the engine's thread ends.
    changed: Condvar,
}

struct State {
    queue: Queue<Pending>,
    runs: Vec<Runs>,
    /// When answers are to end, once nothing more is accepted.
    draining: Option<Instant>,
    /// Orders to save, restore and erase slots.
    orders: Vec<Order>,
    /// The thread has ended.
    ended: bool,
    next_id: u64,
    status: Status,
}

/// A request that waits.
struct Pending {
    id: u64,
    answer: Answer,
    outlet: Outlet,
    cancel: Arc<AtomicBool>,
    deadline: Option<Instant>,
    uncached: bool,
    slot: Option<usize>,
    since: Instant,
    /// Requests ahead of it, as last told.
    told: Option<usize>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        drop(self.lock()); // so that a thread that is about to wait sees what has changed
        self.changed.notify_all();
    }
}

impl Engine {
    /// Starts an engine.
    ///
    /// # Errors
    /// If the system refuses a thread, or the folder for prompts cannot be used.
    pub fn start(model: EngineModel, options: EngineOptions) -> Result<Self, StartError> {
        let context = model.context();
        let slots = options.slots.max(1);
        let cache_tokens = options.cache_tokens.unwrap_or(slots.saturating_mul(context));
        let queue = options.queue;
        let share = options.client_share.unwrap_or(queue.div_ceil(2)).max(1);
        let cache_bytes = model.cache_bytes.unwrap_or(u64::MAX);
        let bounds = Bounds { slots, cache_tokens, cache_bytes, queue, share };
        let status = Status { slots, queue, cache_tokens, ..Status::default() };
        let state = State {
            queue: Queue::new(bounds),
            runs: Vec::new(),
            draining: None,
            orders: Vec::new(),
            ended: false,
            next_id: 0,
            status,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let prompts = open_prompts(&model, &options.prompts, &shared)?;
        let scheduler = Scheduler::new(model.clone(), &options, prompts, shared.clone());
        let thread = std::thread::Builder::new().name("vaquita-engine".into());
        let thread = Some(thread.spawn(move || scheduler.run())?);
        Ok(Self { model, limit: context.min(cache_tokens), shared, thread })
    }

    /// Accepts a request or refuses it, at once. `sink` receives what happens to it.
    pub fn submit(&self, request: Request, sink: Sink) -> Result<Ticket, Refused> {
        let accepted = self.accept(request, sink);
        if let Err(refused) = &accepted {
            let counters = &mut self.shared.lock().status.counters.refused;
            *match refused {
                Refused::QueueFull { .. } => &mut counters.queue_full,
                Refused::ClientShare { .. } => &mut counters.client_share,
                Refused::TooLong { .. } => &mut counters.too_long,
                Refused::Invalid(_) => &mut counters.invalid,
                Refused::Draining => &mut counters.draining,
            } += 1;
        }
        accepted
    }

    fn accept(&self, request: Request, sink: Sink) -> Result<Ticket, Refused> {
        let Request { prompt, options, client, priority, deadline, uncached, slot } = request;
        self.shared.lock().check(&client)?; // before the work of preparing an answer
        let most = options.max_tokens.unwrap_or(usize::MAX);
        let tokens = prompt.len().saturating_add(most).min(self.limit);
        let bytes = self.model.sequence_bytes(tokens);
        let eos_token_ids = &self.model.model.config().eos_token_ids;
        let answer =
            Answer::new(&self.model.tokenizer, eos_token_ids, &prompt, options, self.limit);
        let answer = answer.map_err(|error| match error {
            GenerateError::Session(SessionError::ContextFull { limit, needed }) => {
                Refused::TooLong { needed, limit }
            }
            error => Refused::Invalid(error),
        })?;
        let cancel = Arc::new(AtomicBool::new(false));
        let mut state = self.shared.lock();
        state.check(&client)?; // others may have come since
        let item = Pending {
            id: state.next_id,
            answer,
            outlet: Outlet::new(sink),
            cancel: cancel.clone(),
            deadline,
            uncached,
            slot,
            since: Instant::now(),
            told: None,
        };
        state.next_id += 1;
        state.status.counters.accepted += 1;
        state.queue.push(Waiting { client, priority, tokens, bytes, item });
        drop(state);
        self.shared.changed.notify_all();
        Ok(Ticket { cancel, shared: self.shared.clone() })
    }

    /// Current state of the engine and its counters.
    pub fn status(&self) -> Status {
        let state = self.shared.lock();
        Status {
            queued: state.queue.len(),
            running: state.runs.len(),
            cache_tokens_used: state.runs.iter().map(|runs| runs.tokens).sum(),
            draining: state.draining.is_some(),
            ..state.status.clone()
        }
    }

    /// Accepts nothing more, ends what waits, and returns when everything has ended: running
    /// answers may finish within `grace` and are then cancelled.
    pub fn drain(&self, grace: Duration) {
        let until = Instant::now() + grace;
        let mut state = self.shared.lock();
        state.draining = Some(state.draining.map_or(until, |before| before.min(until)));
        self.shared.changed.notify_all();
        if self.on_own_thread() {
            return;
        }
        while !state.ended {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether a sink calls.
    fn on_own_thread(&self) -> bool {
        let own = self.thread.as_ref().map(|thread| thread.thread().id());
        own == Some(std::thread::current().id())
    }
}

fn open_prompts(
    model: &EngineModel,
    options: &PromptCacheOptions,
    shared: &Arc<Shared>,
) -> Result<Prompts, StartError> {
    let Some(folder) = &options.folder else { return Ok(Prompts::new(options, None)) };
    let fingerprint = model.fingerprint.ok_or(StartError::NoFingerprint)?;
    let kind = Kind { model: fingerprint, cache: model.session.cache };
    // The engine's thread owns the folder's.
    let shared = Arc::downgrade(shared);
    let notify = Box::new(move || {
        if let Some(shared) = shared.upgrade() {
            shared.notify();
        }
    });
    let disk = Disk::open(options, folder, kind, model.new_cache(), notify)?;
    Ok(Prompts::new(options, Some(disk)))
}

impl State {
    fn check(&self, client: &str) -> Result<(), Refused> {
        if self.draining.is_some() || self.ended {
            return Err(Refused::Draining);
        }
        self.queue.check(client, &self.runs).map_err(|reason| match reason {
            NoPlace::Full => Refused::QueueFull { retry_after: self.status.wait(0) },
            NoPlace::Share => {
                let order = self.queue.order(&self.runs);
                let waiting: Vec<_> = self.queue.iter().collect();
                let ahead = order.iter().position(|at| waiting[*at].client == client);
                Refused::ClientShare { retry_after: self.status.wait(ahead.unwrap_or(0)) }
            }
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.drain(Duration::ZERO);
        if !self.on_own_thread()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join(); // a panic there has ended all requests with an error
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("status", &self.status()).finish_non_exhaustive()
    }
}
