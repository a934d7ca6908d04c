//! Continues a session as text: prompt, sampling, decoding to characters, stop conditions,
//! reasoning.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::after_reasoning::AfterReasoning;
use super::constraint::{Constraint, ConstraintError, Grammar, end_tokens};
use super::reasoning::{Part, Phase, ReasoningSplitter};
use super::sampler::logprobs::Logprobs;
use super::sampler::{Sampler, SamplerError, SamplingOptions};
use super::stop::StopStrings;
use super::text::TextStream;
use super::tools::offer::Tools;
use super::tools::{self, Call, Format, ToolEvent, ToolParser};
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
    /// Grammar that constrains the answer after the reasoning.
    pub grammar: Option<Arc<dyn Grammar>>,
    /// Tools whose calls are separated from the answer.
    pub calls: Option<Arc<Calls>>,
    /// Number of most likely tokens to report with log probabilities; `None` reports no log
    /// probabilities.
    pub logprobs: Option<usize>,
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
    let mut sampler = Sampler::new(options.sampling.clone())?;
    let ends = end_tokens(tokenizer, &session.model().config().eos_token_ids);
    let mut constraint = options.constraint(tokenizer, &ends, prompt)?;
    let start = Instant::now();
    // The last token is read again for its logits.
    let shared = session.keep_common_prefix(&prompt[..prompt.len().saturating_sub(1)]);
    let mut generation = Generation {
        reasoning: String::new(),
        answer: String::new(),
        calls: Vec::new(),
        raw: String::new(),
        warnings: Vec::new(),
        tokens: Vec::new(),
        logprobs: Vec::new(),
        stop: StopReason::Cancelled,
        prompt_tokens: prompt.len(),
        cached_tokens: shared,
        prefill: Duration::ZERO,
        decode: Duration::ZERO,
    };
    let Some(mut logits) = read(session, prompt, on_event)? else {
        generation.prefill = start.elapsed();
        return Ok(generation);
    };
    generation.prefill = start.elapsed();
    let decoding = Instant::now();
    let mut text = Text::new(options, tokenizer, on_event);
    generation.stop = loop {
        if options.max_tokens.is_some_and(|most| generation.tokens.len() >= most) {
            break StopReason::Length;
        }
        let model_logits = options.logprobs.map(|_| logits.clone());
        let token =
            sampler.sample_with(&mut logits, session.tokens(), constraint.as_deref_mut())?;
        if ends.contains(&token) {
            break StopReason::EndOfSentence;
        }
        if let Some(constraint) = &mut constraint {
            constraint.accept(token)?;
            text.held = constraint.holds();
        }
        generation.tokens.push(token);
        let logprobs = options.logprobs.zip(model_logits);
        let logprobs = logprobs.map(|(top, logits)| Logprobs::new(&logits, token, top));
        if let ControlFlow::Break(reason) = text.push(token, logprobs.as_ref(), tokenizer) {
            generation.logprobs.extend(logprobs);
            break reason;
        }
        generation.logprobs.extend(logprobs);
        if session.tokens().len() >= session.context() {
            break StopReason::ContextFull;
        }
        match unless_cancelled(session.feed(&[token]))? {
            Some(next) => logits = next,
            None => break StopReason::Cancelled,
        }
    };
    text.finish(generation.stop);
    (generation.reasoning, generation.answer) = (text.reasoning, text.answer);
    (generation.calls, generation.warnings) = (text.called.calls, text.called.warnings);
    generation.raw = text.raw;
    generation.decode = decoding.elapsed();
    Ok(generation)
}

/// Reads the part of the prompt that the session lacks and returns the logits after it; `None` if
/// the caller ended it.
fn read(
    session: &mut Session,
    prompt: &[u32],
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Option<Vec<f32>>, SessionError> {
    let total = prompt.len();
    if total > session.context() {
        return Err(SessionError::ContextFull { limit: session.context(), needed: total });
    }
    let mut logits = Err(SessionError::Empty);
    let chunk = session.prefill_chunk();
    for chunk in prompt[session.tokens().len()..].chunks(chunk) {
        match unless_cancelled(session.feed(chunk))? {
            Some(next) => logits = Ok(next),
            None => return Ok(None),
        }
        if on_event(Event::Prompt { done: session.tokens().len(), total }).is_break() {
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

/// Converts tokens to reasoning and answer.
struct Text<'a> {
    stream: TextStream,
    stops: StopStrings,
    splitter: ReasoningSplitter,
    parser: Option<ToolParser>,
    /// Whether the next token belongs to the answer regardless of what it looks like.
    held: bool,
    reasoning: String,
    answer: String,
    called: tools::Answer,
    raw: String,
    on_event: &'a mut dyn FnMut(Event) -> ControlFlow<()>,
}

impl<'a> Text<'a> {
    fn new(
        options: &GenerationOptions,
        tokenizer: &Tokenizer,
        on_event: &'a mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Self {
        Self {
            stream: TextStream::default(),
            stops: StopStrings::new(options.stop.iter().cloned()),
            splitter: ReasoningSplitter::new(options.reasoning_open),
            parser: options
                .calls
                .as_ref()
                .map(|calls| ToolParser::new(calls.format, calls.tools.clone(), tokenizer)),
            held: false,
            called: tools::Answer::default(),
            raw: String::new(),
            reasoning: String::new(),
            answer: String::new(),
            on_event,
        }
    }

    fn push(
        &mut self,
        token: u32,
        logprobs: Option<&Logprobs>,
        tokenizer: &Tokenizer,
    ) -> ControlFlow<StopReason> {
        let mut flow = (self.on_event)(Event::Token(token));
        if let Some(logprobs) = logprobs
            && (self.on_event)(Event::Logprobs(logprobs)).is_break()
        {
            flow = ControlFlow::Break(());
        }
        let mut stopped = false;
        for part in self.parts(token, tokenizer) {
            let (emitted, found) = self.take(part);
            if emitted.is_break() {
                flow = ControlFlow::Break(());
            }
            stopped = found;
            if stopped {
                break;
            }
        }
        match (flow, stopped) {
            (_, true) => ControlFlow::Break(StopReason::StopString),
            (ControlFlow::Break(()), _) => ControlFlow::Break(StopReason::Cancelled),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Splits the text of a token into parts.
    fn parts(&mut self, token: u32, tokenizer: &Tokenizer) -> Vec<Part> {
        let piece = tokenizer.piece(token).unwrap_or_default();
        let marker = self.parser.as_ref().and_then(|parser| {
            Some((parser.piece(token, &String::from_utf8_lossy(&piece))?, parser.format()))
        });
        if self.held {
            let text = match &marker {
                Some((marker, _)) => self.stream.flush() + marker,
                None => self.stream.push(&piece),
            };
            let parts = self.splitter.flush().into_iter();
            return parts.chain([Part::Answer(text)]).collect();
        }
        let Some((marker, format)) = marker else {
            return self.splitter.push(&self.stream.push(&piece));
        };
        let text = self.stream.flush();
        let mut parts = self.splitter.push(&text);
        let forgotten = format.ends_reasoning() && self.splitter.phase() == Phase::Reasoning;
        if forgotten && self.splitter.is_holding("<") {
            // The held-back `<` is the start of the marker: complete it to `</think>` to end the
            // reasoning, then push `<` again before the marker.
            parts.extend(self.splitter.push("/think>"));
            parts.extend(self.splitter.push("<"));
        }
        parts.extend(self.splitter.push(&marker));
        parts
    }

    /// Emits the text of a part that is certain not to belong to a stop string, and returns whether
    /// a stop string was found.
    fn take(&mut self, part: Part) -> (ControlFlow<()>, bool) {
        match part {
            Part::Answer(text) => {
                let (text, found) = self.stops.push(&text);
                (self.answer(&text), found)
            }
            // The held-back text can no longer belong to a stop string.
            Part::Reasoning(text) => {
                let held = self.stops.flush();
                let answered = self.answer(&held);
                self.reasoning.push_str(&text);
                let thought = (self.on_event)(Event::Reasoning(&text));
                (if answered.is_break() { answered } else { thought }, false)
            }
            Part::WasReasoning(rest) => {
                let rest = self.stops.flush() + &rest;
                let _ = self.end_calls();
                self.raw.clear();
                let thought = std::mem::take(&mut self.answer) + &rest;
                self.reasoning.push_str(thought.trim_matches('\n'));
                let rest = rest.trim_end_matches('\n');
                let mut flow = (self.on_event)(Event::WasReasoning);
                if !rest.is_empty() && flow.is_continue() {
                    flow = (self.on_event)(Event::Reasoning(rest));
                }
                (flow, false)
            }
        }
    }

    fn answer(&mut self, text: &str) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        let Some(parser) = &mut self.parser else {
            self.answer.push_str(text);
            return (self.on_event)(Event::Answer(text));
        };
        self.raw.push_str(&ToolParser::without_marks(text));
        let events = parser.push(text);
        self.tell(&events)
    }

    fn tell(&mut self, events: &[ToolEvent]) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        for event in events {
            self.called.apply(event);
            let told = match event {
                ToolEvent::Text(text) => {
                    self.answer.push_str(text);
                    (self.on_event)(Event::Answer(text))
                }
                event => (self.on_event)(Event::Call(event)),
            };
            if told.is_break() {
                flow = told;
            }
        }
        flow
    }

    /// Emits the events that the call parser holds back.
    fn end_calls(&mut self) -> ControlFlow<()> {
        let events = self.parser.as_mut().map(ToolParser::finish).unwrap_or_default();
        self.tell(&events)
    }

    /// Emits the text that was held back. The caller's control flow is ignored, since the answer
    /// ends here.
    fn finish(&mut self, stop: StopReason) {
        if stop != StopReason::StopString {
            self.flush();
        }
        let _ = self.end_calls();
    }

    fn flush(&mut self) {
        let text = self.stream.flush();
        let mut parts = self.splitter.push(&text);
        parts.extend(self.splitter.flush());
        for part in parts {
            if self.take(part).1 {
                return;
            }
        }
        let held = self.stops.flush();
        let _ = self.answer(&held);
    }
}
