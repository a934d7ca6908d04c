//! A request that runs.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::options::EngineModel;
use super::outlet::Outlet;
use super::pass::Computed;
use super::prompts::{Loading, Owner, goes_on_after};
use super::request::{CacheSource, CacheUse, EngineError, Finished, Notice, Priority};
use crate::model::cache::KvCache;
use crate::model::{Compute, Stats};
use crate::session::answer::{Answer, Next};
use crate::session::draft::{Drafts, Ended as StepEnded};
use crate::session::generate::{Event, StopReason};

/// One sequence with its cache.
pub(super) struct Sequence {
    pub id: u64,
    pub priority: Priority,
    /// Positions and bytes of cache that are reserved.
    pub reserved: (usize, u64),
    pub answer: Answer,
    pub cache: KvCache,
    /// `None` if tokens are not drafted.
    pub drafts: Option<Drafts>,
    /// Files with more of the prompt than the cache holds, which are being read.
    pub loading: Option<Loading>,
    /// Positions of the cache that were given to be written.
    pub written: usize,
    pub cancel: Arc<AtomicBool>,
    pub deadline: Option<Instant>,
    /// Whether its prompt and answer are not kept.
    pub uncached: bool,
    /// Whose prompts it goes on from and is kept with.
    pub owner: Owner,
    pub outlet: Outlet,
    pub begun: Instant,
    pub queued: Duration,
    pub cache_use: CacheUse,
    pub prompt_joules: Option<f64>,
    /// Statistics of the store at the beginning.
    pub streaming: Option<Stats>,
}

impl Sequence {
    /// Tokens that are to be fed before the next logits.
    pub fn unread(&self) -> usize {
        self.answer.tokens().len() - self.cache.len()
    }

    /// Whether the model is to read more of the prompt.
    pub fn is_reading(&self) -> bool {
        self.loading.is_none() && self.cache.len() < self.answer.prompt_tokens()
    }

    /// Whether tokens of the answer are to be computed.
    pub fn is_decoding(&self) -> bool {
        self.loading.is_none() && !self.is_reading()
    }

    /// Whether there is something to do before the next pass, or in it.
    pub fn has_work(&self, now: Instant) -> bool {
        let loading = self.loading.as_ref();
        loading.is_none_or(|loading| loading.get().is_some()) || self.ended(now).is_some()
    }

    /// Takes what was read from files. If they are of no use, the model reads the prompt.
    pub fn take_loaded(&mut self) {
        let Some(found) = self.loading.as_ref().and_then(Loading::get) else { return };
        self.loading = None;
        if let Some(cache) = found {
            let (tokens, wanted) = (cache.len(), self.answer.prompt_tokens() - 1);
            let miss = (tokens < wanted).then(|| goes_on_after(tokens));
            self.cache_use = CacheUse { tokens, source: CacheSource::Disk, miss };
            (self.cache, self.written) = (cache, tokens);
        }
        self.begin_reading();
    }

    /// Tells how much of the prompt is known.
    pub fn begin_reading(&mut self) {
        self.answer.set_cached(self.cache_use.tokens);
        self.tell_progress();
    }

    /// Why it is to end before the next pass.
    pub fn ended(&self, now: Instant) -> Option<Ended> {
        match () {
            () if self.cancel.load(Ordering::Relaxed) => Some(Ended::Cancelled),
            () if self.deadline.is_some_and(|deadline| deadline <= now) => Some(Ended::Late),
            () => None,
        }
    }

    /// Tells how much of the prompt is read.
    pub fn tell_progress(&self) {
        let (done, total) = (self.cache.len(), self.answer.prompt_tokens());
        self.outlet.send(Notice::Prompt { done, total });
    }

    /// Takes the model's states at the last `tokens` of the prompt that were read.
    pub fn learn_prompt(
        &mut self,
        model: &EngineModel,
        ctx: &Compute,
        tokens: usize,
        computed: &Computed,
    ) {
        let Some(drafts) = &mut self.drafts else { return };
        let read = self.cache.len();
        let so_far = &self.answer.tokens()[..read];
        drafts.read(&model.model, ctx, read - tokens, so_far, &computed.states);
    }

    /// Takes the logits after all of its tokens, and those after drafts for as long as the answer
    /// goes on with them; returns how it ends, if it does.
    pub fn take(&mut self, mut logits: Vec<f32>) -> Option<Ended> {
        loop {
            let token = match self.answer.take(logits, &mut tell(&self.outlet)) {
                Ok(Next::Feed(_)) if self.answer.is_full() => {
                    return Some(Ended::Stop(StopReason::Length));
                }
                Ok(Next::Feed(token)) => token,
                Ok(Next::End(stop)) => return Some(Ended::Stop(stop)),
                Err(error) => return Some(Ended::Failed(EngineError::Generate(Arc::new(error)))),
            };
            logits = self.drafts.as_mut().and_then(|drafts| drafts.confirm(token))?;
            if self.cancel.load(Ordering::Relaxed) {
                return Some(Ended::Cancelled);
            }
        }
    }

    /// Ends a step: what it computed of drafts that were not confirmed is removed.
    pub fn settle(&mut self) -> Option<StepEnded> {
        let ended = self.drafts.as_mut()?.end_step()?;
        self.cache.truncate(ended.confirmed);
        Some(ended)
    }

    /// Ends the request.
    pub fn finish(self, ended: Ended, joules: Option<f64>, streaming: Option<Stats>) {
        let stop = match ended {
            Ended::Failed(error) => return self.outlet.done(Err(error)),
            Ended::Stop(stop) => stop,
            Ended::Cancelled | Ended::Late => StopReason::Cancelled,
        };
        let mut generation = self.answer.end(stop, &mut tell(&self.outlet));
        generation.drafts = self.drafts.map(|drafts| drafts.used().clone()).unwrap_or_default();
        self.outlet.done(Ok(Finished {
            generation,
            late: matches!(ended, Ended::Late),
            queued: self.queued,
            cache: self.cache_use,
            joules,
            prompt_joules: self.prompt_joules,
            streaming: streaming.zip(self.streaming).map(|(now, then)| now.since(&then)),
        }));
    }
}

fn tell(outlet: &Outlet) -> impl FnMut(Event) -> ControlFlow<()> {
    |event| {
        outlet.send(event.into());
        ControlFlow::Continue(())
    }
}

/// How a request ends.
#[derive(Debug)]
pub(super) enum Ended {
    Stop(StopReason),
    Cancelled,
    Late,
    Failed(EngineError),
}
