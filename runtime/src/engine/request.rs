//! Inputs and outputs of the engine: requests, notices, refusals, tickets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Shared;
use crate::model::{ModelError, Stats};
use crate::session::generate::{Event, GenerateError, Generation, GenerationOptions};
use crate::session::sampler::logprobs::Logprobs;
use crate::session::tools::ToolEvent;

/// Which requests go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others, such as what an app shows now. Takes the slots of lower ones.
    Foreground,
    /// The default.
    #[default]
    Normal,
    /// Only in slots that no other request needs.
    Background,
}

/// A prompt to answer.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Tokens of the prompt: the whole conversation so far.
    pub prompt: Vec<u32>,
    /// How to answer it.
    pub options: GenerationOptions,
    /// Who asks: clients take turns, and only the same client finds its earlier prompts again.
    pub client: String,
    /// Which requests go first.
    pub priority: Priority,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    /// Whether it neither goes on from earlier prompts nor is kept for later ones.
    pub uncached: bool,
    /// The client's slot that it goes on from and is kept in, apart from all other prompts
    /// ([`Engine::save_slot`](super::Engine::save_slot)).
    pub slot: Option<usize>,
}

/// Receives the notices of a request, on the engine's thread; must not block.
pub type Sink = Box<dyn FnMut(Notice) + Send>;

/// Event of a request.
#[derive(Debug)]
pub enum Notice {
    /// It waits, and this many requests are to begin before it.
    Queued {
        /// Number of requests ahead.
        ahead: usize,
    },
    /// Progress in reading the prompt. The first notice says how much of it was known.
    Prompt {
        /// Tokens read so far, including those that were known.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was picked; its text may follow now or with the next token.
    Token(u32),
    /// Log probabilities at that token.
    Logprobs(Logprobs),
    /// Text of the reasoning.
    Reasoning(String),
    /// Text of the answer.
    Answer(String),
    /// Event of a tool call other than text.
    Call(ToolEvent),
    /// All answer text so far was reasoning.
    WasReasoning,
    /// The end, once and last.
    Done(Result<Box<Finished>, EngineError>),
}

impl From<Event<'_>> for Notice {
    fn from(event: Event) -> Self {
        match event {
            Event::Prompt { done, total } => Self::Prompt { done, total },
            Event::Token(token) => Self::Token(token),
            Event::Logprobs(logprobs) => Self::Logprobs(logprobs.clone()),
            Event::Reasoning(text) => Self::Reasoning(text.into()),
            Event::Answer(text) => Self::Answer(text.into()),
            Event::Call(event) => Self::Call(event.clone()),
            Event::WasReasoning => Self::WasReasoning,
        }
    }
}

/// An answer and what it took.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The answer. A cancelled one holds what was generated until then.
    pub generation: Generation,
    /// Whether [`Request::deadline`] ended it.
    pub late: bool,
    /// Time in the queue.
    pub queued: Duration,
    /// Part of the prompt that the cache held.
    pub cache: CacheUse,
    /// Energy of the passes that it took part in, shared by tokens, in joules; `None` without a
    /// meter.
    pub joules: Option<f64>,
    /// The part of [`joules`](Self::joules) before the first token.
    pub prompt_joules: Option<f64>,
    /// Statistics of the expert store while it ran, for all requests; `None` without a store that
    /// streams.
    pub streaming: Option<Stats>,
}

impl Finished {
    /// A request that was cancelled before it began.
    pub(super) fn unbegun(generation: Generation, queued: Duration) -> Self {
        let cache = CacheUse::default();
        let (joules, prompt_joules, streaming) = (None, None, None);
        Self { generation, late: false, queued, cache, joules, prompt_joules, streaming }
    }
}

/// Where the known tokens of a prompt came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSource {
    /// None were known.
    #[default]
    Nothing,
    /// A sequence in memory.
    Memory,
    /// A file.
    Disk,
}

/// How much of a prompt was known, and why not more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// Tokens that were not read again.
    pub tokens: usize,
    /// Where they came from.
    pub source: CacheSource,
    /// Why not more; `None` if all but the last token was known, which is always read.
    pub miss: Option<String>,
}

/// Reason why a request was not answered.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model failed. Requests of one pass share the error.
    #[error(transparent)]
    Model(Arc<ModelError>),
    /// No token could be picked.
    #[error(transparent)]
    Generate(Arc<GenerateError>),
    /// [`Request::deadline`] passed before the answer began.
    #[error("its deadline passed before the answer began")]
    Deadline,
    /// The engine stopped because of an error in the program.
    #[error("the engine has stopped because of a bug; open the model again")]
    Stopped,
}

/// Reason why a request is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// All places in the queue are taken.
    #[error("the queue is full; try again in {} s", retry_after.as_secs())]
    QueueFull {
        /// Estimated time until a place is free.
        retry_after: Duration,
    },
    /// The client has as many requests in the queue as one client may have.
    #[error("this client's share of the queue is full; try again in {} s", retry_after.as_secs())]
    ClientShare {
        /// Estimated time until one of its requests begins.
        retry_after: Duration,
    },
    /// The prompt can never fit.
    #[error("the prompt has {needed} tokens; at most {limit} fit: shorten it")]
    TooLong {
        /// Tokens of the prompt.
        needed: usize,
        /// Tokens that fit.
        limit: usize,
    },
    /// The request cannot be followed.
    #[error(transparent)]
    Invalid(#[from] GenerateError),
    /// The engine accepts nothing more.
    #[error("no more requests are accepted: the engine is shutting down")]
    Draining,
}

/// An accepted request. Dropping the ticket does not cancel it.
#[derive(Clone)]
pub struct Ticket {
    pub(super) cancel: Arc<AtomicBool>,
    pub(super) shared: Arc<Shared>,
}

impl Ticket {
    /// Ends the request before the next layer is computed; no effect on others, nor after its end.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
        self.shared.notify();
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}
