//! The model that is served, and what all requests share of it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use vaquita_runtime::app::{AppError, AppModel};
use vaquita_runtime::checkpoint::suggested::SuggestedSampling;
use vaquita_runtime::engine::{Engine, EngineOptions};
use vaquita_runtime::session::constraint::end_tokens;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::thinking::Think;
use vaquita_runtime::session::tools::{Format, Replay};
use vaquita_runtime::structured::{Compiler, StructuredError};

/// Values for requests that do not have them.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// Seed; `None` is a random one.
    pub seed: Option<u64>,
    /// Maximum number of tokens of an answer; `None` is what fits.
    pub max_tokens: Option<usize>,
    /// Variables of the chat template.
    pub variables: Map<String, Value>,
}

/// How a model is served.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Identifier that clients see.
    pub id: String,
    /// Further names of the model.
    pub aliases: Vec<String>,
    /// Name of the file, without its folder.
    pub file: String,
    /// Fingerprint of the file, which tells clients when the model changes.
    pub fingerprint: Option<u64>,
    /// Tags of the model, for clients that sort models by them.
    pub tags: Vec<String>,
    /// Sampling that the model's authors or the operator suggest: the defaults of requests.
    pub sampling: SuggestedSampling,
    /// Further defaults of requests.
    pub defaults: Defaults,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Name of the energy meter; `None` if energy is not measured.
    pub meter: Option<String>,
}

/// A model that answers requests.
pub struct Served {
    pub(crate) app: Arc<AppModel>,
    pub(crate) engine: Engine,
    pub(crate) info: ModelInfo,
    pub(crate) slots: usize,
    /// When the model was opened, in seconds since 1970.
    pub(crate) created: u64,
    /// Calls as the model wrote them, for clients that send them back.
    pub(crate) replay: Mutex<Replay>,
    pub(crate) format: Format,
    /// Tokens that end an answer.
    pub(crate) ends: Vec<u32>,
    /// Whether the template has a switch for thinking.
    pub(crate) can_think: bool,
    /// Whether the template lists tools.
    pub(crate) lists_tools: bool,
    /// One permit: prompts are scored one after the other.
    pub(crate) scoring: Semaphore,
    compiler: OnceLock<std::result::Result<Compiler, StructuredError>>,
}

impl Served {
    /// Prepares a model for a server.
    pub fn new(
        app: Arc<AppModel>,
        engine: EngineOptions,
        info: ModelInfo,
    ) -> Result<Self, AppError> {
        let slots = engine.slots;
        // The rest of the sequences of a memory budget, if there is any, scores prompts.
        let cache_tokens = engine.cache_tokens.unwrap_or(slots.saturating_mul(context(&app)));
        let cache_tokens = Some(cache_tokens);
        let engine = app.engine(EngineOptions { cache_tokens, ..engine })?;
        let template = app.prompter().template();
        let can_think = template.is_some_and(|template| Think::Off.variables(template).is_ok());
        let lists_tools = template.map(|template| template.lists_tools()).transpose()?;
        let lists_tools = lists_tools.unwrap_or(false);
        let ends = &app.loaded().model.config().eos_token_ids;
        let ends = end_tokens(app.prompter().tokenizer(), ends);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            format: app.prompter().call_format(),
            ends,
            app,
            engine,
            info,
            slots,
            created: now.as_secs(),
            replay: Mutex::default(),
            can_think,
            lists_tools,
            scoring: Semaphore::new(1),
            compiler: OnceLock::new(),
        })
    }

    /// Makes prompts.
    pub(crate) fn prompter(&self) -> &Prompter {
        self.app.prompter()
    }

    /// Length of the context in tokens.
    pub(crate) fn context(&self) -> usize {
        context(&self.app)
    }

    /// Sampling of requests that say nothing about it.
    pub(crate) fn defaults(&self) -> SamplingOptions {
        let (own, suggested) = (SamplingOptions::default(), &self.info.sampling);
        SamplingOptions {
            temperature: suggested.temperature.unwrap_or(own.temperature),
            top_k: suggested.top_k.unwrap_or(own.top_k),
            top_p: suggested.top_p.unwrap_or(own.top_p),
            min_p: suggested.min_p.unwrap_or(own.min_p),
            repetition_penalty: suggested.repetition_penalty.unwrap_or(own.repetition_penalty),
            ..own
        }
    }

    /// Stable identifier of the model file and this version.
    pub(crate) fn fingerprint(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        match self.info.fingerprint {
            Some(fingerprint) => format!("vaquita-{version}-{fingerprint:016x}"),
            None => format!("vaquita-{version}"),
        }
    }

    /// The compiler of grammars, made at the first use: it takes a second for large vocabularies.
    pub(crate) fn compiler(&self) -> std::result::Result<&Compiler, StructuredError> {
        let made = self.compiler.get_or_init(|| {
            let tokenizer = self.prompter().tokenizer();
            Compiler::new(tokenizer, &self.ends)
        });
        made.as_ref().map_err(Clone::clone)
    }

    /// Calls that the model wrote.
    pub(crate) fn replay(&self) -> MutexGuard<'_, Replay> {
        self.replay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn context(app: &AppModel) -> usize {
    match app.loaded().options.context {
        0 => app.loaded().model.config().max_position_embeddings,
        context => context,
    }
}
