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
pub mod prompt;
mod random;
pub mod reasoning;
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
use draft::{DraftUse, Drafts};

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
}

impl Session {
    /// Creates an empty session.
    pub fn new(model: Arc<Model>, pool: Arc<Pool>, options: SessionOptions) -> Self {
        let cache = KvCache::new(model.config(), options.cache);
        let (tokens, observer, cancel, drafts) = (Vec::new(), None, None, None);
        Self { model, pool, options, cache, tokens, observer, cancel, drafts }
    }

    /// Sets how tokens of answers are drafted, which does not change them. Drafts of a
    /// multi-token-prediction layer are best if this is called before the prompt is read.
    pub fn draft_with(&mut self, drafts: Option<Drafts>) {
        self.settle();
        self.drafts = drafts;
    }

    /// The drafts, if tokens are drafted.
    pub fn drafts(&self) -> Option<&Drafts> {
        self.drafts.as_ref()
    }

    /// Drafted and accepted tokens so far.
    pub fn draft_use(&self) -> DraftUse {
        self.drafts.as_ref().map(|drafts| drafts.used().clone()).unwrap_or_default()
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

    /// Number of prompt tokens per forward pass.
    pub fn prefill_chunk(&self) -> usize {
        self.options.prefill_chunk.max(1)
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
        for tokens in tokens.chunks(self.prefill_chunk()) {
            let mut states = self.wants_states().then(Vec::new);
            let chunk =
                Chunk { states: states.as_mut(), ..Chunk::new(tokens, &mut self.cache, wanted) };
            take(self.model.forward_chunk(&ctx, chunk)?);
            let first = self.tokens.len();
            self.tokens.extend_from_slice(tokens);
            if let (Some(drafts), Some(states)) = (&mut self.drafts, states) {
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
        let mut proposal = drafts.propose(&self.model, ctx, &self.tokens, most);
        loop {
            let tokens = [&self.tokens[last..], &proposal.tokens].concat();
            let mut states = drafts.needs_states().then(Vec::new);
            let chunk = Chunk {
                states: states.as_mut(),
                purpose: Purpose::Decode,
                ..Chunk::new(&tokens, &mut self.cache, Logits::All)
            };
            match self.model.forward_chunk(ctx, chunk) {
                Ok(logits) => {
                    let states = states.unwrap_or_default();
                    return Ok(drafts.computed(proposal, last, logits, states));
                }
                // What a draft does to the model must not end the answer.
                Err(error) if proposal.tokens.is_empty() => return Err(error),
                Err(ModelError::Cancelled) => return Err(ModelError::Cancelled),
                Err(_) => proposal.tokens.clear(),
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
}
