//! The interface for programs: a model opened with everything that is needed to talk to it,
//! conversations that any thread can cancel, and their cost. The command line, the C library and
//! the bindings for phones are thin layers over this.
//!
//! [`LoadedModel`] is a model with its threads; [`AppModel`] adds a tokenizer and a template;
//! [`Conversation`] is one dialogue.

mod conversation;
mod judge;
mod loaded;
mod model;
mod options;

use std::io;

pub use conversation::{Canceller, Conversation, Generating, Turn};
pub use judge::{Fit, judge, judge_file};
pub use loaded::LoadedModel;
pub use model::{AppModel, MemoryUse, MeterMaker, Thermal};
pub use options::ModelOptions;

use crate::checkpoint::gguf_weights::OpenError;
use crate::cores::CoresRefused;
use crate::engine::StartError;
use crate::gguf::GgufError;
use crate::model::cache::CacheTypeError;
use crate::opening::OpenModelError;
use crate::opening::budget::{BudgetTextError, TooSmall};
use crate::session::SessionError;
use crate::session::chat::ChatError;
use crate::session::draft::DraftModeError;
use crate::session::generate::GenerateError;
use crate::session::prompt::PromptError;
use crate::session::save::SaveError;
use crate::tokenizer::TokenizerError;

/// Kind of an error, for programs to act upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// An argument is invalid.
    Argument,
    /// A file does not exist.
    NotFound,
    /// A file cannot be read or written.
    Io,
    /// A file is invalid.
    BadFile,
    /// The memory budget is too small.
    Memory,
    /// The conversation is longer than the context.
    ContextFull,
    /// The conversation cannot be put into the model's template.
    Template,
    /// The model failed.
    Model,
}

/// Error of the interface.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// The model cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenModelError),
    /// The model's text cannot be handled.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The conversation cannot be rendered.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// No answer could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The conversation cannot be saved or restored.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// A new memory budget is too small.
    #[error(transparent)]
    TooSmall(#[from] TooSmall),
    /// A memory budget cannot be read.
    #[error(transparent)]
    Budget(#[from] BudgetTextError),
    /// A type of cache is unknown.
    #[error(transparent)]
    Cache(#[from] CacheTypeError),
    /// A way to draft is unknown.
    #[error(transparent)]
    Drafts(#[from] DraftModeError),
    /// Threads cannot be bound to the cores that were asked for.
    #[error(transparent)]
    Cores(#[from] CoresRefused),
    /// A saved conversation belongs to a file, and the model was loaded from elsewhere.
    #[error("conversations with a model that is not a GGUF file cannot be saved or restored")]
    NoFile,
    /// The context is longer than the model's.
    #[error("the context is to be {found} tokens; this model takes up to {allowed}")]
    Context {
        /// Requested context, in tokens.
        found: usize,
        /// Longest context of the model, in tokens.
        allowed: usize,
    },
    /// The memory budget holds no further conversation.
    #[error("the memory budget is for {limit} sessions, which are open; open the model for more")]
    Sessions {
        /// Sessions that were planned for.
        limit: usize,
    },
    /// The model has no layer to draft with.
    #[error(
        "this model has no multi-token-prediction layer to draft with; drafts by look-up (lookup:4) \
         need none"
    )]
    NoMtp,
    /// An engine cannot start.
    #[error(transparent)]
    Engine(#[from] StartError),
    /// A message of an unknown role.
    #[error("a message has the role {found:?}; allowed: system, user, assistant, tool")]
    Role {
        /// The role.
        found: String,
    },
    /// Tools are not a JSON list.
    #[error("tools are a list in JSON, as OpenAI's interface writes them: {problem}")]
    Tools {
        /// Description of the problem.
        problem: String,
    },
    /// Template variables are not a JSON object.
    #[error(
        "template variables are an object in JSON, such as {{\"enable_thinking\": false}}: {problem}"
    )]
    Variables {
        /// Description of the problem.
        problem: String,
    },
    /// A result for a call that the model did not make.
    #[error("the model made no call with the identifier `{found}`")]
    Call {
        /// The identifier.
        found: String,
    },
    /// The conversation has no messages yet.
    #[error("there is nothing to answer; say something, or add a message first")]
    Nothing,
}

impl From<ChatError> for AppError {
    fn from(error: ChatError) -> Self {
        Self::Prompt(error.into())
    }
}

impl AppError {
    /// Kind of the error.
    pub fn kind(&self) -> ErrorKind {
        let of_io = |source: &io::Error| match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        match self {
            Self::Open(OpenModelError::Open(OpenError::Gguf(GgufError::Io { source, .. })))
            | Self::Save(SaveError::Io { source, .. }) => of_io(source),
            Self::Open(OpenModelError::TooSmall { .. }) | Self::TooSmall(_) => ErrorKind::Memory,
            Self::Sessions { .. } | Self::Engine(StartError::Thread(_)) => ErrorKind::Memory,
            Self::Open(OpenModelError::Text(_)) | Self::Budget(_) | Self::NoMtp => {
                ErrorKind::Argument
            }
            Self::Cache(_) | Self::Drafts(_) => ErrorKind::Argument,
            Self::Engine(StartError::Folder(_)) => ErrorKind::Io,
            Self::Engine(_) => ErrorKind::Argument,
            Self::Open(_) | Self::Tokenizer(_) | Self::Save(_) => ErrorKind::BadFile,
            Self::Prompt(PromptError::TooLong { .. }) => ErrorKind::ContextFull,
            Self::Prompt(_) => ErrorKind::Template,
            Self::Generate(GenerateError::Session(SessionError::ContextFull { .. })) => {
                ErrorKind::ContextFull
            }
            Self::Generate(GenerateError::Sampler(error)) => match error {
                crate::session::sampler::SamplerError::Option { .. } => ErrorKind::Argument,
                _ => ErrorKind::Model,
            },
            Self::Generate(_) => ErrorKind::Model,
            Self::Context { .. } | Self::Role { .. } | Self::Tools { .. } => ErrorKind::Argument,
            Self::Cores(_) | Self::NoFile => ErrorKind::Argument,
            Self::Variables { .. } | Self::Call { .. } | Self::Nothing => ErrorKind::Argument,
        }
    }
}
