//! A conversation with a model: the KV cache of the tokens so far, and all steps between text and
//! logits.
//!
//! [`Session`] holds one sequence; [`generate`] continues it as text, and an [`answer`] is the same as
//! a state machine. [`sampler`] picks tokens, [`text`] decodes them to characters, [`reasoning`]
//! separates reasoning from the answer, [`stop`] ends the answer, [`chat`] renders conversations with
//! the model's template, [`prompt`] converts them to tokens. [`save`] stores a session in a file.

pub mod after_reasoning;
pub mod answer;
mod answer_text;
mod channels;
pub mod chat;
pub mod constraint;
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

use crate::model::cache::{CacheType, KvCache};

use crate::isa::Tier;
use crate::model::observer::Observer;
use crate::model::{Compute, Logits, Model, ModelError};
use crate::threads::Pool;

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
}

impl Session {
    /// Creates an empty session.
    pub fn new(model: Arc<Model>, pool: Arc<Pool>, options: SessionOptions) -> Self {
        let cache = KvCache::new(model.config(), options.cache);
        Self { model, pool, options, cache, tokens: Vec::new(), observer: None, cancel: None }
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
        self.cache.bytes()
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
        let needed = self.tokens.len() + tokens.len();
        if needed > self.context() {
            return Err(SessionError::ContextFull { limit: self.context(), needed });
        }
        let ctx = Compute::new(self.options.tier, &self.pool);
        let ctx = match &self.observer {
            Some(observer) => ctx.watched_by(&**observer),
            None => ctx,
        };
        let ctx = match &self.cancel {
            Some(cancel) => ctx.cancelled_by(cancel),
            None => ctx,
        };
        for chunk in tokens.chunks(self.prefill_chunk()) {
            take(self.model.forward(&ctx, chunk, &mut self.cache, wanted)?);
            self.tokens.extend_from_slice(chunk);
        }
        Ok(())
    }

    /// Removes all tokens from position `len` on, or all tokens if the model cannot be rolled back
    /// that far. Returns the number of remaining tokens.
    pub fn truncate(&mut self, len: usize) -> usize {
        let len = self.cache.truncate(len.min(self.tokens.len()));
        self.tokens.truncate(len);
        len
    }

    /// Removes the tokens that do not match the start of `tokens`, and returns the number of
    /// remaining tokens, which need not be fed again when a conversation continues.
    pub fn keep_common_prefix(&mut self, tokens: &[u32]) -> usize {
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        self.truncate(common)
    }
}
