//! The loop of the engine's thread: begin what may begin, compute a pass, pass on what it brought.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::drafting::Drafting;
use super::energy::Energy;
use super::options::{EngineModel, EngineOptions};
use super::outlet::Outlet;
use super::pace::Pace;
use super::pass::{self, Computed, Part};
use super::prompts::{Known, Owner, Prompts};
use super::queue::{Runs, Waiting};
use super::request::{CacheSource, EngineError, Finished, Notice};
use super::sequence::{Ended, Sequence};
use super::slots::Order;
use super::{Pending, Shared, State};
use crate::model::{Compute, ModelError, Purpose};
use crate::session::generate::StopReason;

/// One of how many slices goes to the prompt that began first; the others go to the one that is
/// read soonest, which is kinder on average.
const OLDEST_EVERY: u64 = 4;

/// Tokens of a prompt after which a part of it is written to disk.
const WRITE_EVERY: usize = 2048;

pub(super) struct Scheduler {
    model: EngineModel,
    slots: usize,
    shared: Arc<Shared>,
    /// Sequences that run, by admission.
    sequences: Vec<Sequence>,
    pace: Pace,
    drafting: Drafting,
    energy: Energy,
    prompts: Prompts,
    passes: u64,
    slices: u64,
}

/// Work that is due, done without the lock.
#[derive(Default)]
struct Turn {
    begin: Vec<Waiting<Pending>>,
    end: Vec<(Waiting<Pending>, Ended)>,
    positions: Vec<(Outlet, usize)>,
    orders: Vec<Order>,
    /// The time to drain is over.
    cancel_all: bool,
}

impl Scheduler {
    pub fn new(
        model: EngineModel,
        options: &EngineOptions,
        prompts: Prompts,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            prompts,
            slots: options.slots.max(1),
            pace: Pace::new(options.max_gap, model.session.prefill_chunk),
            drafting: Drafting::new(&model),
            energy: Energy::new(model.energy.clone()),
            model,
            shared,
            sequences: Vec::new(),
            passes: 0,
            slices: 0,
        }
    }

    /// Runs until the engine is drained.
    pub fn run(mut self) {
        let _ended = SetEnded(self.shared.clone());
        let pool = self.model.pool.clone();
        let _binding = pool.bind_caller();
        while let Some(turn) = self.wait() {
            for (outlet, ahead) in turn.positions {
                outlet.send(Notice::Queued { ahead });
            }
            for (waiting, ended) in turn.end {
                end_waiting(waiting, ended);
            }
            for order in turn.orders {
                self.prompts.follow(order);
                self.settle();
            }
            for waiting in turn.begin {
                self.begin(waiting);
            }
            let now = Instant::now();
            for at in (0..self.sequences.len()).rev() {
                let cancelled = turn.cancel_all.then_some(Ended::Cancelled);
                if let Some(ended) = cancelled.or_else(|| self.sequences[at].ended(now)) {
                    self.end(at, ended);
                }
            }
            self.sequences.iter_mut().for_each(Sequence::take_loaded);
            self.pass();
        }
        drop(self); // writes what waits to be written, before it has ended
    }

    /// Waits until there is something to do; `None` once everything has ended and nothing more is
    /// accepted.
    fn wait(&mut self) -> Option<Turn> {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        loop {
            let now = Instant::now();
            let turn = state.turn(now);
            let work = self.sequences.iter().any(|one| turn.cancel_all || one.has_work(now));
            let quiet = turn.begin.is_empty() && turn.end.is_empty() && turn.positions.is_empty();
            let news = !(quiet && turn.orders.is_empty());
            if work || news {
                return Some(turn);
            }
            if self.sequences.is_empty() && state.draining.is_some() {
                return None;
            }
            let waiting = state.queue.iter().filter_map(|waiting| waiting.item.deadline);
            let deadlines = waiting.chain(self.sequences.iter().filter_map(|one| one.deadline));
            state = match deadlines.chain(state.draining).min() {
                None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let time = deadline.saturating_duration_since(now);
                    let waited = shared.changed.wait_timeout(state, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn begin(&mut self, waiting: Waiting<Pending>) {
        let Waiting { client, priority, tokens, bytes, item } = waiting;
        let Pending { id, mut answer, outlet, cancel, deadline, uncached, slot, since, .. } = item;
        self.energy.join(id);
        let begun = Instant::now();
        answer.begin(0);
        let owner = Owner { client, slot };
        let known = match uncached {
            true => Known::nothing(&self.model),
            false => self.prompts.find(&self.model, &owner, answer.tokens()),
        };
        let (loading, cache, cache_use) = match known {
            Known::Cache(cache, cache_use) => (None, cache, cache_use),
            Known::Reading(loading, cache, cache_use) => (Some(loading), cache, cache_use),
        };
        let mut sequence = Sequence {
            id,
            priority,
            reserved: (tokens, bytes),
            answer,
            written: cache.len(),
            cache,
            drafts: self.drafting.begin(),
            loading,
            cancel,
            deadline,
            uncached,
            owner,
            outlet,
            begun,
            queued: begun - since,
            cache_use,
            prompt_joules: None,
            streaming: self.model.model.experts().stats(),
        };
        if sequence.loading.is_none() {
            sequence.begin_reading();
        }
        self.sequences.push(sequence);
        self.bound_prompts();
        self.settle();
    }

    /// Where memory is planned, prompts are kept in what running sequences have not reserved.
    fn bound_prompts(&mut self) {
        if let Some(all) = self.model.cache_bytes {
            let reserved: u64 = self.sequences.iter().map(|sequence| sequence.reserved.1).sum();
            self.prompts.bound(all.saturating_sub(reserved));
        }
    }

    fn settle(&mut self) {
        if self.model.cache_bytes.is_some() {
            self.prompts.settle();
        }
    }

    fn end(&mut self, at: usize, ended: Ended) {
        let mut sequence = self.sequences.remove(at);
        self.bound_prompts();
        if !matches!(ended, Ended::Failed(_)) {
            let cache = std::mem::replace(&mut sequence.cache, self.model.new_cache());
            if !sequence.uncached {
                self.prompts.keep(&sequence.owner, sequence.answer.tokens(), cache);
            }
            self.settle();
        }
        let joules = self.energy.joules(sequence.id);
        self.energy.leave(sequence.id);
        {
            let mut state = self.shared.lock();
            let (time, cache_use) = (sequence.begun.elapsed(), &sequence.cache_use);
            let generated = sequence.answer.tokens().len() - sequence.answer.prompt_tokens();
            let status = &mut state.status;
            status.counters.tokens += generated as u64;
            status.counters.cached_tokens += cache_use.tokens as u64;
            if cache_use.source == CacheSource::Disk {
                status.counters.cached_tokens_from_disk += cache_use.tokens as u64;
            }
            status.prompt_bytes = self.prompts.bytes();
            *match &ended {
                Ended::Stop(_) => &mut status.counters.finished,
                Ended::Cancelled => &mut status.counters.cancelled,
                Ended::Late => &mut status.counters.late,
                Ended::Failed(_) => &mut status.counters.failed,
            } += 1;
            if matches!(ended, Ended::Stop(_)) {
                status.record_answer(time);
            }
            state.runs = self.sequences.iter().map(Sequence::runs).collect();
        }
        sequence.finish(ended, joules, self.model.model.experts().stats());
    }

    /// One decode step of the running answers, with their drafts, and one slice of a prompt.
    fn pass(&mut self) {
        let decoding = self.decoding();
        let slice = self.slice(decoding.len());
        if decoding.is_empty() && slice.is_none() {
            return;
        }
        let (start, read) = (Instant::now(), slice.map_or(0, |(_, tokens)| tokens));
        let model = self.model.clone();
        let ctx = Compute::new(model.session.tier, &model.pool);
        let room = model.tokens_of_pass().saturating_sub(decoding.len() + read);
        let mut parts: Vec<Part> = Vec::new();
        let mut drafts = self.drafting.propose(&ctx, &mut self.sequences, &decoding, room);
        for at in &decoding {
            let found = drafts.iter_mut().find(|(of, _)| of == at);
            let drafts = found.map(|(_, drafts)| std::mem::take(drafts)).unwrap_or_default();
            parts.push(Part { at: *at, tokens: 1, drafts, purpose: Purpose::Decode });
        }
        if let Some((at, tokens)) = slice {
            let alone = decoding.is_empty();
            let purpose = if alone { Purpose::Prompt } else { Purpose::Passing };
            parts.push(Part { at, tokens, drafts: Vec::new(), purpose });
        }
        parts.sort_unstable_by_key(|part| part.at);
        let mut results = pass::run(&model, &ctx, &mut self.sequences, &mut parts);
        for (part, result) in parts.iter().zip(&mut results) {
            if let (true, Ok(computed)) = (slice == Some((part.at, part.tokens)), result) {
                self.sequences[part.at].learn_prompt(&model, &ctx, part.tokens, computed);
            }
        }
        self.pace.record(decoding.len(), read, start.elapsed());
        if read == 0 {
            self.drafting.end(parts.iter().map(|part| part.drafts.len()).sum());
        }
        self.count(&decoding, read);
        // From the back, since sequences that end are removed.
        for (part, result) in parts.into_iter().zip(results).rev() {
            let at = part.at;
            self.energy.count(self.sequences[at].id, part.tokens + part.drafts.len());
            let ended = self.take(part, result);
            if let Some(step) = self.sequences[at].settle() {
                self.drafting.learn(step);
                self.shared.lock().status.counters.count_drafts(step);
            }
            if let Some(ended) = ended {
                self.end(at, ended);
            }
        }
    }

    /// The prompt that is read beside a step of `decoding` answers, and the number of its tokens.
    fn slice(&mut self, decoding: usize) -> Option<(usize, usize)> {
        let at = self.reading()?;
        let sequence = &self.sequences[at];
        let left = sequence.answer.prompt_tokens() - sequence.cache.len();
        let room = self.model.tokens_of_pass().saturating_sub(decoding).max(1);
        let tokens = self.pace.slice(decoding).min(left).min(room);
        (tokens > 0).then_some((at, tokens))
    }

    fn take(&mut self, part: Part, result: Result<Computed, Arc<ModelError>>) -> Option<Ended> {
        let sequence = &mut self.sequences[part.at];
        let Computed { mut logits, states } = match result {
            Ok(computed) => computed,
            Err(error) if matches!(*error, ModelError::Cancelled) => return Some(Ended::Cancelled),
            Err(error) => return Some(Ended::Failed(error.into())),
        };
        let prompt = sequence.answer.prompt_tokens();
        if sequence.answer.tokens().len() == prompt {
            sequence.tell_progress();
            if sequence.is_reading() {
                if !sequence.uncached && sequence.cache.len() >= sequence.written + WRITE_EVERY {
                    sequence.written = sequence.cache.len();
                    let tokens = sequence.answer.tokens();
                    self.prompts.write(&sequence.owner, tokens, &sequence.cache);
                }
                return None;
            }
            if !sequence.uncached {
                let (tokens, cache) = (sequence.answer.tokens(), sequence.cache.clone());
                self.prompts.keep(&sequence.owner, tokens, cache);
            }
            sequence.prompt_joules = self.energy.joules(sequence.id);
        } else if let Some(drafts) = &mut sequence.drafts {
            let first = sequence.answer.tokens().len() - 1;
            logits = drafts.computed(part.drafts, first, logits, states);
        }
        sequence.take(logits)
    }

    /// Answers that take part in the next step: those of the highest priority, in turns if there
    /// are more than take part.
    fn decoding(&self) -> Vec<usize> {
        let count = self.sequences.len();
        let turn = |at: usize| (at + count - self.passes as usize % count.max(1)) % count;
        let mut decoding: Vec<usize> =
            (0..count).filter(|at| self.sequences[*at].is_decoding()).collect();
        decoding.sort_by_key(|at| (self.sequences[*at].priority, turn(*at)));
        // With more, the experts of one layer would displace each other.
        let width = self.model.model.experts().tokens_at_once().unwrap_or(usize::MAX).max(1);
        decoding.truncate(self.slots.min(width));
        decoding
    }

    /// The prompt that the next slice belongs to.
    fn reading(&self) -> Option<usize> {
        let reading = (0..self.sequences.len()).filter(|at| self.sequences[*at].is_reading());
        let oldest = self.slices % OLDEST_EVERY == OLDEST_EVERY - 1;
        reading.min_by_key(|at| {
            let sequence = &self.sequences[*at];
            (sequence.priority, if oldest { 0 } else { sequence.unread() }, *at)
        })
    }

    fn count(&mut self, decoding: &[usize], slice: usize) {
        self.passes += 1;
        self.slices += u64::from(slice > 0);
        let reading = self.sequences.iter().filter(|sequence| sequence.is_reading()).count();
        let mut state = self.shared.lock();
        let status = &mut state.status;
        status.reading = reading;
        status.step = self.pace.step(decoding.len()).or(status.step);
        status.counters.passes += 1;
        status.counters.slices += u64::from(slice > 0 && !decoding.is_empty());
        status.counters.prompt_tokens += slice as u64;
    }
}

impl Sequence {
    fn runs(&self) -> Runs {
        let (tokens, bytes) = self.reserved;
        Runs { client: self.owner.client.clone(), priority: self.priority, tokens, bytes }
    }
}

impl State {
    /// Takes the work that is due now out of the state.
    fn turn(&mut self, now: Instant) -> Turn {
        let over = self.draining.is_some();
        let cancelled =
            self.queue.remove(|item| over || item.cancel.load(Ordering::Relaxed)).into_iter();
        let mut end: Vec<_> = cancelled.map(|waiting| (waiting, Ended::Cancelled)).collect();
        let late = self.queue.remove(|item| item.deadline.is_some_and(|deadline| deadline <= now));
        end.extend(late.into_iter().map(|waiting| (waiting, Ended::Late)));
        for (_, ended) in &end {
            let counters = &mut self.status.counters;
            match ended {
                Ended::Late => counters.late += 1,
                _ => counters.cancelled += 1,
            }
        }
        let mut begin = Vec::new();
        while let Some(waiting) = self.queue.next(&self.runs) {
            let Waiting { client, priority, tokens, bytes, .. } = &waiting;
            let (client, priority, tokens, bytes) = (client.clone(), *priority, *tokens, *bytes);
            self.runs.push(Runs { client, priority, tokens, bytes });
            begin.push(waiting);
        }
        let order = self.queue.order(&self.runs);
        let mut positions = Vec::new();
        for (ahead, at) in order.into_iter().enumerate() {
            let item = self.queue.item(at);
            if item.told.replace(ahead) != Some(ahead) {
                positions.push((item.outlet.clone(), ahead));
            }
        }
        let cancel_all = self.draining.is_some_and(|until| until <= now);
        let orders = std::mem::take(&mut self.orders);
        Turn { begin, end, positions, orders, cancel_all }
    }
}

fn end_waiting(waiting: Waiting<Pending>, ended: Ended) {
    let Pending { answer, outlet, since, .. } = waiting.item;
    match ended {
        Ended::Late => outlet.done(Err(EngineError::Deadline)),
        _ => {
            let generation = answer.end(StopReason::Cancelled, &mut |_| ControlFlow::Continue(()));
            outlet.done(Ok(Finished::unbegun(generation, since.elapsed())));
        }
    }
}

/// Tells waiting callers that the thread has ended, also if it panicked.
struct SetEnded(Arc<Shared>);

impl Drop for SetEnded {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        let left = state.queue.remove(|_| true);
        let orders = std::mem::take(&mut state.orders);
        state.runs.clear();
        drop(state);
        self.0.changed.notify_all();
        drop(orders); // whoever waits hears that nothing comes
        drop(left); // their outlets say that the engine has stopped
    }
}
