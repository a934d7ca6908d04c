//! Parts of an engine, and its bounds.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::prompts::{PromptCacheOptions, PromptFolderError};
use crate::measure::sampler::MeterSampler;
use crate::model::Model;
use crate::model::cache::{KvCache, layer_bytes, sequence_bytes};
use crate::session::SessionOptions;
use crate::session::draft::DraftMode;
use crate::threads::Pool;
use crate::tokenizer::Tokenizer;

/// Starts measuring the energy of answers.
pub type SamplerMaker = Arc<dyn Fn() -> MeterSampler + Send + Sync>;

/// A model with all that computes its answers.
#[derive(Clone)]
pub struct EngineModel {
    /// The network.
    pub model: Arc<Model>,
    /// The threads. The engine's own thread is bound to the same cores.
    pub pool: Arc<Pool>,
    /// Its text.
    pub tokenizer: Arc<Tokenizer>,
    /// Context, cache type, instruction set, and the largest slice of a prompt.
    pub session: SessionOptions,
    /// How tokens are drafted, which changes no answer.
    pub drafts: DraftMode,
    /// Fingerprint of the model, which files of prompts belong to; `None` if they cannot be kept.
    pub fingerprint: Option<u64>,
    /// Bytes that the caches of sequences and kept prompts share, if memory is planned.
    pub cache_bytes: Option<u64>,
    /// The meter.
    pub energy: SamplerMaker,
    /// Dropped when the engine has ended, such as its place in a memory budget.
    pub held: Option<Arc<dyn Any + Send + Sync>>,
}

impl EngineModel {
    /// Maximum number of tokens of a sequence.
    pub fn context(&self) -> usize {
        match self.session.context {
            0 => self.model.config().max_position_embeddings,
            context => context,
        }
    }

    /// Number of tokens of a pass for which scratch memory is planned, as it is now.
    pub(super) fn tokens_of_pass(&self) -> usize {
        self.model.tokens_of_pass(self.session.prefill_chunk)
    }

    /// Bytes of cache that a sequence of `tokens` may take.
    pub(super) fn sequence_bytes(&self, tokens: usize) -> u64 {
        let SessionOptions { cache, prefill_chunk, .. } = self.session;
        let (config, chunk) = (self.model.config(), prefill_chunk.max(1));
        let bytes = sequence_bytes(config, cache, tokens, chunk);
        match self.drafts.uses_mtp() && self.model.has_mtp() {
            true => bytes + layer_bytes(config, config.num_hidden_layers, cache, tokens, chunk),
            false => bytes,
        }
    }

    /// A cache without positions.
    pub(super) fn new_cache(&self) -> KvCache {
        KvCache::new(self.model.config(), self.session.cache)
    }
}

/// Bounds of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Sequences that run at the same time; at least 1.
    pub slots: usize,
    /// Requests that may wait.
    pub queue: usize,
    /// Requests of one client that may wait; `None` is half of the queue.
    pub client_share: Option<usize>,
    /// Positions of cache for all sequences; `None` is the context times the slots. A request
    /// reserves its prompt and the tokens that it may generate.
    pub cache_tokens: Option<usize>,
    /// Bound on the gap in running answers while a prompt is read; `None` is twice the duration of
    /// their own step.
    pub max_gap: Option<Duration>,
    /// Prompts that are kept.
    pub prompts: PromptCacheOptions,
    /// Folder in which [slots](super::Engine::save_slot) will be saved: the model's fingerprint, which
    /// such files carry, is read at the start. `None` if no slots are saved.
    pub slot_folder: Option<PathBuf>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            slots: 4,
            queue: 16,
            client_share: None,
            cache_tokens: None,
            max_gap: None,
            prompts: PromptCacheOptions::default(),
            slot_folder: None,
        }
    }
}

/// Reason why an engine cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The system refuses a thread.
    #[error("the system refuses a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The folder for prompts cannot be used.
    #[error(transparent)]
    Folder(#[from] PromptFolderError),
    /// Prompts cannot be kept in files.
    #[error("prompts of a model that is not a GGUF file cannot be kept in a folder")]
    NoFingerprint,
}
