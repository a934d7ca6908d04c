//! Generation of answers, piece by piece.

use std::ffi::{CString, c_char, c_void};
use std::ops::ControlFlow;
use std::ptr::null;
use std::sync::{Arc, PoisonError};

use vaquita_runtime::session::generate::Event as Happened;
use vaquita_runtime::session::generate::GenerationOptions;
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::tools::ToolEvent;

use crate::arguments::{Versioned, given, optional_text, reference, text};
use crate::model::init;
use crate::session::Session;
use crate::stats::Stats;
use crate::status::{Failure, Result, guard};

/// Part of the prompt was processed.
pub const VAQUITA_EVENT_PROMPT: i32 = 0;
/// A token was selected; its text may follow now or with the next token.
pub const VAQUITA_EVENT_TOKEN: i32 = 1;
/// A piece of the model's reasoning, which is enclosed by tags such as <think> and </think>.
pub const VAQUITA_EVENT_REASONING: i32 = 2;
/// A piece of the answer.
pub const VAQUITA_EVENT_ANSWER: i32 = 3;

/// All answer text so far was reasoning: it ended with a closing tag that had not been opened.
pub const VAQUITA_EVENT_WAS_REASONING: i32 = 4;

/// A tool call began: the text is the name of the function, call_id the call's identifier.
pub const VAQUITA_EVENT_CALL_BEGIN: i32 = 5;
/// A piece of a call's arguments, which are a JSON object together.
pub const VAQUITA_EVENT_CALL_ARGUMENTS: i32 = 6;
/// A call is complete.
pub const VAQUITA_EVENT_CALL_END: i32 = 7;
/// What looked like a call is none: the text says why. What the model wrote follows as answer. If
/// the call had begun, call_id says which one is void; otherwise it is empty.
pub const VAQUITA_EVENT_CALL_MALFORMED: i32 = 8;

/// Maximum number of stop texts per call.
const MAX_STOPS: usize = 64;

/// An event during generation. It is valid until the callback returns.
#[repr(C)]
pub struct Event {
    /// VAQUITA_EVENT_*. Programs must ignore unknown kinds.
    pub kind: i32,
    /// Token id.
    pub token: u32,
    /// Whole characters in UTF-8, terminated by a zero byte; empty if there is no text. The text
    /// may contain zero bytes itself, so use text_length.
    pub text: *const c_char,
    /// Length of the text in bytes.
    pub text_length: usize,
    /// Number of prompt tokens processed so far.
    pub prompt_done: usize,
    /// Number of prompt tokens.
    pub prompt_total: usize,
    /// Identifier of the call that the event belongs to; empty if it belongs to none.
    pub call_id: *const c_char,
}

/// Receives events on the thread that generates. Returns 0 to continue; any other value ends the
/// answer. It must not unwind.
pub type OnEvent = Option<unsafe extern "C" fn(event: *const Event, user_data: *mut c_void) -> i32>;

/// Generation options. vaquita_generate_options_init() sets the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct GenerateOptions {
    /// sizeof(vaquita_generate_options).
    pub struct_size: usize,
    /// Maximum number of tokens, including reasoning; 0: until the context is full.
    pub max_tokens: usize,
    /// Sampling temperature; 0 is greedy decoding. Default: 0.6.
    pub temperature: f32,
    /// Top-k sampling: keep the k most probable tokens; 0: all.
    pub top_k: usize,
    /// Top-p sampling: keep the most probable tokens up to this cumulative probability. Default:
    /// 0.95.
    pub top_p: f32,
    /// Min-p sampling: keep tokens with at least this fraction of the highest probability.
    pub min_p: f32,
    /// Penalty on recent tokens; 1: none.
    pub repetition_penalty: f32,
    /// Random seed: the same seed gives the same answer.
    pub seed: u64,
    /// Strings that end the answer; null if stop_count is 0.
    pub stop: *const *const c_char,
    /// Number of stop strings.
    pub stop_count: usize,
    /// Whether tool calls are parsed: they become VAQUITA_EVENT_CALL_* events instead of text, and
    /// vaquita_session_add_tool_result() answers them. 0: they stay in the text of the answer.
    pub parse_calls: i32,
}

// SAFETY: it begins with its size; the rest is numbers and a pointer.
unsafe impl Versioned for GenerateOptions {
    const NAME: &str = "vaquita_generate_options";
}

impl Default for GenerateOptions {
    fn default() -> Self {
        let sampling = SamplingOptions::default();
        Self {
            struct_size: size_of::<Self>(),
            max_tokens: 0,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            seed: sampling.seed,
            stop: null(),
            stop_count: 0,
            parse_calls: 0,
        }
    }
}

impl GenerateOptions {
    /// # Safety
    /// `stop` points to `stop_count` strings.
    unsafe fn read(&self) -> Result<GenerationOptions> {
        if self.stop_count > MAX_STOPS || (self.stop_count > 0 && self.stop.is_null()) {
            let message = format!("stop_count is {}; at most {MAX_STOPS}", self.stop_count);
            return Err(Failure::argument(message));
        }
        let stop = (0..self.stop_count).map(|i| {
            // SAFETY: promised by the caller.
            unsafe { text(self.stop.add(i).read(), "a stop text") }.map(String::from)
        });
        Ok(GenerationOptions {
            sampling: SamplingOptions {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                seed: self.seed,
                ..SamplingOptions::default()
            },
            max_tokens: (self.max_tokens > 0).then_some(self.max_tokens),
            stop: stop.collect::<Result<_>>()?,
            ..GenerationOptions::default()
        })
    }
}

/// Sets the defaults. `struct_size` is sizeof(vaquita_generate_options).
///
/// # Safety
/// `options` is null or points to `struct_size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_generate_options_init(
    options: *mut GenerateOptions,
    struct_size: usize,
) -> i32 {
    // SAFETY: promised by the caller.
    guard(|| unsafe { init(options, struct_size) })
}

/// Generates an answer to `user`, or to the conversation so far if `user` is null, and returns when
/// the answer has ended; VAQUITA_OK also if it was cancelled. `options` may be null.
///
/// The answer is added to the conversation without its reasoning, even if it was cut short. If the
/// call fails, or is cancelled before any answer text, the conversation is unchanged.
///
/// # Safety
/// `session` is null or an open session, `user` null or a string, `options` null or a struct;
/// `on_event` may be called with `user_data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_generate(
    session: *const Session,
    user: *const c_char,
    options: *const GenerateOptions,
    on_event: OnEvent,
    user_data: *mut c_void,
) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let _generating = unsafe { session.as_ref() }.map(|session| session.canceller.enter());
        // SAFETY: promised by the caller.
        let (session, user, options) = unsafe {
            let options = given(options, GenerateOptions::default())?;
            let parse_calls = options.parse_calls != 0;
            let (options, user) = (options.read()?, optional_text(user, "user")?);
            (reference(session, "session")?, user, (options, parse_calls))
        };
        let (mut options, parse_calls) = options;
        let on_event = on_event.ok_or_else(|| Failure::argument("on_event is null"))?;
        let mut conversation = session.conversation()?;
        if parse_calls {
            options.calls = Some(Arc::new(conversation.calls()?));
        }
        let mut ids = Vec::new();
        let turn = conversation.answer(user, &options, &mut |happened| {
            let call = |event: &Event| {
                // SAFETY: the event outlives the call; the rest is promised by the caller.
                match unsafe { on_event(event, user_data) } {
                    0 => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            };
            tell(happened, &mut ids, call)
        })?;
        let stats = Stats::new(&turn, conversation.cache_bytes());
        *session.stats.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
        Ok(())
    })
}

/// Calls `call` with an event in C's representation. `ids` are the identifiers of the calls so far.
fn tell(
    happened: Happened,
    ids: &mut Vec<CString>,
    call: impl Fn(&Event) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let nothing = Event {
        kind: 0,
        token: 0,
        text: c"".as_ptr(),
        text_length: 0,
        prompt_done: 0,
        prompt_total: 0,
        call_id: c"".as_ptr(),
    };
    let of_call = |kind, text: &str, call_id: *const c_char| {
        let bytes = [text.as_bytes(), &[0]].concat();
        let (text, text_length) = (bytes.as_ptr().cast(), text.len());
        call(&Event { kind, text, text_length, call_id, ..nothing })
    };
    let with_text = |kind, text: &str| of_call(kind, text, nothing.call_id);
    match happened {
        Happened::Prompt { done: prompt_done, total: prompt_total } => {
            call(&Event { kind: VAQUITA_EVENT_PROMPT, prompt_done, prompt_total, ..nothing })
        }
        Happened::Token(token) => call(&Event { kind: VAQUITA_EVENT_TOKEN, token, ..nothing }),
        // The C options do not request these events.
        Happened::Logprobs(_) => ControlFlow::Continue(()),
        Happened::Call(event) => {
            if let ToolEvent::Begin { id, .. } = event {
                // Identifiers that a model writes could have a zero byte.
                ids.push(CString::new(id.replace('\0', "")).unwrap_or_default());
            }
            let id = |index: Option<usize>| {
                let id = index.and_then(|index| ids.get(index));
                id.map_or(nothing.call_id, |id| id.as_ptr())
            };
            match event {
                ToolEvent::Text(text) => with_text(VAQUITA_EVENT_ANSWER, text),
                ToolEvent::Begin { index, name, .. } => {
                    of_call(VAQUITA_EVENT_CALL_BEGIN, name, id(Some(*index)))
                }
                ToolEvent::Arguments { index, json } => {
                    of_call(VAQUITA_EVENT_CALL_ARGUMENTS, json, id(Some(*index)))
                }
                ToolEvent::End { index } => of_call(VAQUITA_EVENT_CALL_END, "", id(Some(*index))),
                ToolEvent::Malformed { index, problem } => {
                    of_call(VAQUITA_EVENT_CALL_MALFORMED, problem, id(*index))
                }
            }
        }
        Happened::Reasoning(text) => with_text(VAQUITA_EVENT_REASONING, text),
        Happened::Answer(text) => with_text(VAQUITA_EVENT_ANSWER, text),
        Happened::WasReasoning => call(&Event { kind: VAQUITA_EVENT_WAS_REASONING, ..nothing }),
    }
}
