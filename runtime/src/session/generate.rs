//! Continues a session as text: reads the prompt, then feeds token by token what the [`Answer`]
//! picks.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::after_reasoning::AfterReasoning;
use super::answer::{Answer, Next};
use super::constraint::{Constraint, ConstraintError, Grammar};
use super::draft::DraftUse;
use super::sampler::logprobs::Logprobs;
use super::sampler::{SamplerError, SamplingOptions};
use super::tools::offer::Tools;
use super::tools::{Call, Format, ToolEvent};
use super::{Session, SessionError};
use crate::model::ModelError;
use crate::tokenizer::Tokenizer;

/// Options for generating an answer.
#[derive(Clone, Debug, Default)]
pub struct GenerationOptions {
    /// Sampling options.
    pub sampling: SamplingOptions,
    /// Maximum number of tokens to generate; `None` generates until the context is full.
    pub max_tokens: Option<usize>,
    /// Strings that end the answer; they are not shown. They are ignored in the reasoning.
    pub stop: Vec<String>,
    /// Whether the prompt ends inside a `<think>` block: see
    /// [`is_open`](super::reasoning::is_open).
    pub reasoning_open: bool,
    /// Whether reasoning stays in the answer with its tags, for texts that are continued as they
    /// are.
    pub keep_tags: bool,
    /// Grammar that constrains the answer after the reasoning.
    pub grammar: Option<Arc<dyn Grammar>>,
    /// Tools whose calls are separated from the answer.
    pub calls: Option<Arc<Calls>>,
    /// Number of most likely tokens to report with log probabilities; `None` reports no log
    /// probabilities.
    pub logprobs: Option<usize>,
    /// Whether these are the probabilities of the draw, after bias, penalties, grammar and filters,
    /// instead of the model's own.
    pub odds: bool,
}

/// Options for parsing calls from an answer.
#[derive(Clone, Debug)]
pub struct Calls {
    /// Format in which the model writes calls.
    pub format: Format,
    /// Tools offered to the model.
    pub tools: Tools,
}

impl GenerationOptions {
    /// Creates the constraint on an answer to `prompt`, if there is a grammar.
    pub fn constraint(
        &self,
        tokenizer: &Arc<Tokenizer>,
        ends: &[u32],
        prompt: &[u32],
    ) -> Result<Option<Box<dyn Constraint>>, ConstraintError> {
        let Some(grammar) = &self.grammar else { return Ok(None) };
        let (inner, tokenizer, ends) = (grammar.begin()?, tokenizer.clone(), ends.to_vec());
        let begun = AfterReasoning::new(inner, tokenizer, ends, prompt, self.reasoning_open);
        Ok(Some(Box::new(begun)))
    }
}

/// Events during the generation of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// Progress in reading the prompt.
    Prompt {
        /// Tokens read so far, including those already in the cache.
        done: usize,
        /// Number of tokens in the prompt.
        total: usize,
    },
    /// A token was picked; its text may follow now or with the next token.
    Token(u32),
    /// Log probabilities at that token, if [`GenerationOptions::logprobs`] requests them.
    Logprobs(&'a Logprobs),
    /// Text of the reasoning.
    Reasoning(&'a str),
    /// Text of the answer.
    Answer(&'a str),
    /// Event of a tool call other than text, if [`GenerationOptions::calls`] requests them.
    Call(&'a ToolEvent),
    /// All answer text so far was reasoning: it ended with a closing tag without an opening tag.
    WasReasoning,
}

/// Reason why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended it.
    EndOfSentence,
    /// A stop string was generated.
    StopString,
    /// `max_tokens` were generated.
    Length,
    /// The context is full.
    ContextFull,
    /// The caller ended it.
    Cancelled,
}

impl StopReason {
    /// Name for scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfSentence => "end_of_sentence",
            Self::StopString => "stop_string",
            Self::Length => "length",
            Self::ContextFull => "context_full",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A generated answer.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Reasoning of the model.
    pub reasoning: String,
    /// Text of the answer.
    pub answer: String,
    /// Tool calls, if they were to be separated from the answer.
    pub calls: Vec<Call>,
    /// The answer including its calls as the model wrote them, if calls were to be separated from
    /// the answer.
    pub raw: String,
    /// Problems with calls that were left as text.
    pub warnings: Vec<&'static str>,
    /// Generated tokens, without the token that ended the answer.
    pub tokens: Vec<u32>,
    /// Log probabilities at each of the tokens, if requested.
    pub logprobs: Vec<Logprobs>,
    /// Reason why the answer ended.
    pub stop: StopReason,
    /// Number of tokens in the prompt.
    pub prompt_tokens: usize,
    /// Number of tokens of the prompt that were already in the session.
    pub cached_tokens: usize,
    /// Drafted and accepted tokens.
    pub drafts: DraftUse,
    /// Time from the start to the first token.
    pub prefill: Duration,
    /// Time from the first token to the end.
    pub decode: Duration,
}

impl Generation {
    /// Prompt tokens read per second; `None` if none were read.
    pub fn prefill_rate(&self) -> Option<f64> {
        rate(self.prompt_tokens - self.cached_tokens, self.prefill)
    }

    /// Tokens generated per second after the first; `None` if there was at most one.
    pub fn decode_rate(&self) -> Option<f64> {
        rate(self.tokens.len().saturating_sub(1), self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

/// Reason why an answer could not be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No token could be picked.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The grammar cannot be followed.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

/// Answers `prompt`, which is the whole conversation so far; the part that the session already
/// holds is not read again. `on_event` may end the answer at any event; the session remains usable
/// afterwards.
pub fn generate(
    session: &mut Session,
    tokenizer: &Arc<Tokenizer>,
    prompt: &[u32],
    options: &GenerationOptions,
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Generation, GenerateError> {
    let (config, limit) = (session.model().config(), session.context());
    let mut answer = Answer::new(tokenizer, &config.eos_token_ids, prompt, options.clone(), limit)?;
    let before = session.draft_use();
    // The last token is read again for its logits.
    answer.begin(0);
    answer.set_cached(session.recall(&prompt[..prompt.len().saturating_sub(1)]));
    let mut logits = read(session, prompt, on_event)?;
    let stop = loop {
        let Some(next) = logits else { break StopReason::Cancelled };
        match answer.take(next, on_event)? {
            Next::Feed(token) => logits = unless_cancelled(session.advance(token))?,
            Next::End(stop) => break stop,
        }
    };
    session.settle();
    session.keep();
    let used = session.draft_use().since(&before);
    Ok(Generation { drafts: used, ..answer.end(stop, on_event) })
}

/// Tokens of a prompt after which it is kept.
const KEEP_EVERY: usize = 2048;

/// Reads the part of the prompt that the session lacks and returns the logits after it; `None` if
/// the caller ended it.
fn read(
    session: &mut Session,
    prompt: &[u32],
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Option<Vec<f32>>, SessionError> {
    let total = prompt.len();
    let mut logits = Err(SessionError::Empty);
    let mut kept = session.tokens().len();
    while let Some(left @ [_, ..]) = prompt.get(session.tokens().len()..) {
        let chunk = session.prefill_chunk().min(left.len());
        match unless_cancelled(session.feed(&left[..chunk]))? {
            Some(next) => logits = Ok(next),
            None => return Ok(None),
        }
        let done = session.tokens().len();
        if done == total || done >= kept + KEEP_EVERY {
            session.keep();
            kept = done;
        }
        if on_event(Event::Prompt { done, total }).is_break() {
            return Ok(None);
        }
    }
    logits.map(Some)
}

/// Returns `None` if [`Session::cancel_with`] ended the computation.
fn unless_cancelled(
    logits: Result<Vec<f32>, SessionError>,
) -> Result<Option<Vec<f32>>, SessionError> {
    match logits {
        Err(SessionError::Model(ModelError::Cancelled)) => Ok(None),
        logits => logits.map(Some),
    }
}
