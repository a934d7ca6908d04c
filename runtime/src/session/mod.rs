//! A conversation with a model: the KV cache of the tokens so far, and all steps between text and
//! logits.
//!
//! [`Session`] holds one sequence; [`generate`] continues it as text, and an [`answer`] is the same as
//! a state machine. [`sampler`] picks tokens, [`text`] decodes them to characters, [`reasoning`]
//! separates reasoning from the answer, [`stop`] ends the answer, [`chat`] renders conversations with
//! the model's template, [`prompt`] converts them to tokens. [`save`] stores a session in a file.
//! [`draft`] computes several tokens of an answer in one pass where it can guess them.

pub mod after_reasoning;
pub mod answer;
mod answer_text;
mod channels;
pub mod chat;
pub mod constraint;
pub mod draft;
pub mod generate;
mod jinja;
pub mod passes;
pub mod prompt;
mod random;
pub mod reasoning;
pub mod recall;
pub mod sampler;
pub mod save;
pub mod stop;
pub mod text;
pub mod thinking;
pub mod tools;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::isa::Tier;
use crate::model::cache::{CacheType, KvCache};
use crate::model::observer::Observer;
use crate::model::{Chunk, Compute, Logits, Model, ModelError, Purpose};
use crate::threads::Pool;

use draft::{Candidate, DraftUse, Drafts, MOST_DRAFTS, Pace, Wanted};
use passes::{Computed, Passes, Work};
use recall::Recall;

/// Compute options of a session.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Maximum length of the sequence in tokens; 0 uses the model's maximum.
    pub context: usize,
    /// Number of prompt tokens per forward pass.
    pub prefill_chunk: usize,
    /// Element type of the KV cache.
    pub cache: CacheType,
    /// Instruction set.
    pub tier: Tier,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { context: 0, prefill_chunk: 128, cache: CacheType::F16, tier: Tier::best() }
    }
}

/// Reason why a session cannot continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The sequence would become too long.
    #[error(
        "the context of {limit} tokens is full: {needed} are needed; start a new conversation, or open \
         the model with a longer context"
    )]
    ContextFull {
        /// Maximum number of tokens.
        limit: usize,
        /// Number of tokens needed.
        needed: usize,
    },
    /// There are no tokens to continue from.
    #[error("there are no tokens to continue from; give a prompt")]
    Empty,
}

/// One sequence of tokens with a model. Several sessions can share a model and a pool.
pub struct Session {
    model: Arc<Model>,
    pool: Arc<Pool>,
    options: SessionOptions,
    cache: KvCache,
    tokens: Vec<u32>,
    observer: Option<Arc<dyn Observer>>,
    cancel: Option<Arc<AtomicBool>>,
    drafts: Option<Drafts>,
    pace: Pace,
    /// `None` computes on the calling thread.
    passes: Option<Box<dyn Passes>>,
    recall: Option<Box<dyn Recall>>,
}

impl Session {
    /// Creates an empty session.
    pub fn new(model: Arc<Model>, pool: Arc<Pool>, options: SessionOptions) -> Self {
        let cache = KvCache::new(model.config(), options.cache);
        let (tokens, observer, cancel, drafts) = (Vec::new(), None, None, None);
        let (pace, passes, recall) = (Pace::new(0), None, None);
        Self { model, pool, options, cache, tokens, observer, cancel, drafts, pace, passes, recall }
    }

    /// Sets how tokens of answers are drafted, which does not change them. Drafts of a
    /// multi-token-prediction layer are best if this is called before the prompt is read.
    pub fn draft_with(&mut self, drafts: Option<Drafts>) {
        let most = drafts.as_ref().map_or(0, |drafts| drafts.mode().depth());
        self.draft_at(drafts, Pace::new(most));
    }

    /// The same with a pace of its own.
    pub fn draft_at(&mut self, drafts: Option<Drafts>, pace: Pace) {
        self.settle();
        (self.drafts, self.pace) = (drafts, pace);
    }

    /// The drafts, if tokens are drafted.
    pub fn drafts(&self) -> Option<&Drafts> {
        self.drafts.as_ref()
    }

    /// Drafted and accepted tokens so far.
    pub fn draft_use(&self) -> DraftUse {
        self.drafts.as_ref().map(|drafts| drafts.used().clone()).unwrap_or_default()
    }

    /// Lets the session share passes with others. One with an observer shares none.
    pub fn share(&mut self, passes: Box<dyn Passes>) {
        self.passes = Some(passes);
    }

    /// Lets [`generate`] keep prompts and answers, and find them again.
    pub fn recall_with(&mut self, recall: Box<dyn Recall>) {
        self.recall = Some(recall);
    }

    /// Sets an observer of the inputs of the model's matrices.
    pub fn observe(&mut self, observer: Arc<dyn Observer>) {
        self.observer = Some(observer);
    }

    /// Sets a cancellation flag: once set, the session stops computing before the next layer. The
    /// caller must reset the flag.
    pub fn cancel_with(&mut self, cancel: Arc<AtomicBool>) {
        self.cancel = Some(cancel);
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Maximum number of tokens.
    pub fn context(&self) -> usize {
        match self.options.context {
            0 => self.model.config().max_position_embeddings,
            context => context,
        }
    }

    /// Number of prompt tokens per forward pass, as it is now.
    pub fn prefill_chunk(&self) -> usize {
        self.model.tokens_of_pass(self.options.prefill_chunk)
    }

    /// Size of the KV cache in bytes.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes() + self.drafts.as_ref().map_or(0, Drafts::bytes)
    }

    /// Appends tokens and returns the logits after the last one, `[vocab_size]`.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, SessionError> {
        let mut last = Err(SessionError::Empty);
        self.feed_with(tokens, Logits::Last, |logits| last = Ok(logits))?;
        last
    }

    /// Appends tokens and returns the logits after each one, `[tokens, vocab_size]`.
    pub fn feed_all(&mut self, tokens: &[u32]) -> Result<Vec<f32>, SessionError> {
        let mut all = Vec::new();
        self.feed_with(tokens, Logits::All, |logits| all.extend(logits))?;
        Ok(all)
    }

    fn feed_with(
        &mut self,
        tokens: &[u32],
        wanted: Logits,
        mut take: impl FnMut(Vec<f32>),
    ) -> Result<(), SessionError> {
        self.settle();
        self.check_room(tokens.len())?;
        let (pool, cancel, observer) =
            (self.pool.clone(), self.cancel.clone(), self.observer.clone());
        let ctx = self.compute(&pool, &cancel, &observer);
        let mut left = tokens;
        while !left.is_empty() {
            let (tokens, rest) = left.split_at(self.prefill_chunk().min(left.len()));
            left = rest;
            let purpose = if tokens.len() == 1 { Purpose::Decode } else { Purpose::Prompt };
            let (logits, states) = self.pass(&ctx, tokens, wanted, purpose)?;
            take(logits);
            let first = self.tokens.len();
            self.tokens.extend_from_slice(tokens);
            if let Some(drafts) = &mut self.drafts {
                drafts.read(&self.model, &ctx, first, &self.tokens, &states);
            }
        }
        Ok(())
    }

    fn check_room(&self, tokens: usize) -> Result<(), SessionError> {
        let (limit, needed) = (self.context(), self.tokens.len() + tokens);
        if needed > limit { Err(SessionError::ContextFull { limit, needed }) } else { Ok(()) }
    }

    fn wants_states(&self) -> bool {
        self.drafts.as_ref().is_some_and(Drafts::needs_states)
    }

    /// Computes tokens after the cache; returns the wanted logits, and the states if drafts need
    /// them.
    fn pass(
        &mut self,
        ctx: &Compute,
        tokens: &[u32],
        wanted: Logits,
        purpose: Purpose,
    ) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
        let wants_states = self.wants_states();
        let Some(passes) = self.passes.as_ref().filter(|_| self.observer.is_none()) else {
            let mut states = Vec::new();
            let chunk = Chunk {
                states: wants_states.then_some(&mut states),
                purpose,
                ..Chunk::new(tokens, &mut self.cache, wanted)
            };
            return Ok((self.model.forward_chunk(ctx, chunk)?, states));
        };
        let before = self.cache.len();
        let (tokens, cache, cancel) = (tokens.to_vec(), self.cache.take(), self.cancel.clone());
        let work = Work { tokens, cache, wanted, wants_states, purpose, cancel };
        let Computed { cache, logits, states } = passes.compute(work);
        self.cache = cache;
        if self.cache.len() < before {
            // A part of the work was computed, and a state cannot go back to where it began.
            self.tokens.truncate(self.cache.len());
            if let Some(drafts) = &mut self.drafts {
                drafts.truncate(self.cache.len());
            }
        }
        Ok((logits?, states))
    }

    fn compute<'c>(
        &self,
        pool: &'c Pool,
        cancel: &'c Option<Arc<AtomicBool>>,
        observer: &'c Option<Arc<dyn Observer>>,
    ) -> Compute<'c> {
        let ctx = Compute::new(self.options.tier, pool);
        let ctx = observer.as_ref().map_or(ctx, |observer| ctx.watched_by(&**observer));
        cancel.as_ref().map_or(ctx, |cancel| ctx.cancelled_by(cancel))
    }

    /// Appends a token that was picked from the last logits and returns the logits after it,
    /// `[vocab_size]`: those of [`feed`](Self::feed), but computed together with those of further
    /// tokens where [`draft_with`](Self::draft_with) says so.
    pub fn advance(&mut self, token: u32) -> Result<Vec<f32>, SessionError> {
        let Some(drafts) = &mut self.drafts else { return self.feed(&[token]) };
        if let Some(logits) = drafts.confirm(token) {
            self.tokens.push(token);
            return Ok(logits);
        }
        self.settle();
        self.check_room(1)?;
        let (pool, cancel, observer) =
            (self.pool.clone(), self.cancel.clone(), self.observer.clone());
        let ctx = self.compute(&pool, &cancel, &observer);
        self.tokens.push(token);
        let logits = self.step(&ctx);
        if logits.is_err() {
            self.tokens.pop();
        }
        Ok(logits?)
    }

    /// Computes the last token, which the cache lacks, and drafts after it.
    fn step(&mut self, ctx: &Compute) -> Result<Vec<f32>, ModelError> {
        let last = self.tokens.len() - 1;
        let room = self.context() - self.tokens.len();
        let most = if self.cache.goes_back() { room } else { 0 };
        let Some(drafts) = &mut self.drafts else { return Ok(Vec::new()) };
        let candidate = Candidate { chances: drafts.chances(), most };
        let others = self.passes.as_ref().map_or(0, |passes| passes.others());
        let count = self.pace.begin(&[candidate], others, MOST_DRAFTS)[0];
        let mut proposed = match count {
            0 => Vec::new(),
            _ => {
                let wanted = Wanted { drafts: &mut *drafts, tokens: &self.tokens, count };
                draft::propose(&self.model, ctx, &mut [wanted]).remove(0)
            }
        };
        loop {
            let tokens = [&self.tokens[last..], &proposed].concat();
            match self.pass(ctx, &tokens, Logits::All, Purpose::Decode) {
                Ok((logits, states)) => {
                    self.pace.end(proposed.len());
                    let Some(drafts) = &mut self.drafts else { return Ok(logits) };
                    return Ok(drafts.computed(proposed, last, logits, states));
                }
                // What a draft does to the model must not end the answer.
                Err(error) if proposed.is_empty() => return Err(error),
                Err(ModelError::Cancelled) => return Err(ModelError::Cancelled),
                Err(_) => proposed.clear(),
            }
        }
    }

    /// Removes drafts that were computed but not confirmed.
    pub(crate) fn settle(&mut self) {
        if let Some(drafts) = &mut self.drafts {
            drafts.end_step();
            self.cache.truncate(self.tokens.len());
        }
    }

    /// Removes all tokens from position `len` on, or all tokens if the model cannot be rolled back
    /// that far. Returns the number of remaining tokens.
    pub fn truncate(&mut self, len: usize) -> usize {
        self.settle();
        let len = self.cache.truncate(len.min(self.tokens.len()));
        self.tokens.truncate(len);
        if let Some(drafts) = &mut self.drafts {
            drafts.truncate(len);
        }
        len
    }

    /// Removes the tokens that do not match the start of `tokens`, and returns the number of
    /// remaining tokens, which need not be fed again when a conversation continues.
    pub fn keep_common_prefix(&mut self, tokens: &[u32]) -> usize {
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        self.truncate(common)
    }

    /// Goes on from the longest known part of `tokens`, in the session or kept elsewhere, and returns
    /// the number of tokens that need not be fed again.
    pub(crate) fn recall(&mut self, tokens: &[u32]) -> usize {
        let known = self.keep_common_prefix(tokens);
        let Some(cache) = self.recall.as_ref().and_then(|recall| recall.find(tokens, known)) else {
            return known;
        };
        self.cache = cache;
        self.tokens = tokens[..self.cache.len()].to_vec();
        self.tokens.len()
    }

    /// Keeps the tokens so far, to be found by [`recall`](Self::recall).
    pub(crate) fn keep(&self) {
        if let Some(recall) = &self.recall {
            recall.keep(&self.tokens, &self.cache);
        }
    }
}
