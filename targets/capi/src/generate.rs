//! Answers, piece by piece.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::ptr::null;
use std::sync::PoisonError;

use vaquita_runtime::session::generate::Event as Happened;
use vaquita_runtime::session::generate::GenerationOptions;
use vaquita_runtime::session::sampler::SamplingOptions;

use crate::arguments::{Versioned, given, optional_text, reference, text};
use crate::model::init;
use crate::session::Session;
use crate::stats::Stats;
use crate::status::{Failure, Result, guard};

/// More of the prompt was read.
pub const VAQUITA_EVENT_PROMPT: i32 = 0;
/// A token was picked; its text may follow, now or with the next.
pub const VAQUITA_EVENT_TOKEN: i32 = 1;
/// The model thinks: a piece of what stands between tags such as <think> and </think>.
pub const VAQUITA_EVENT_REASONING: i32 = 2;
/// The model answers: a piece of the answer.
pub const VAQUITA_EVENT_ANSWER: i32 = 3;

/// All that came as the answer so far was reasoning: it ended with a tag that nothing had opened.
pub const VAQUITA_EVENT_WAS_REASONING: i32 = 4;

/// Maximum number of stop texts per call.
const MAX_STOPS: usize = 64;

/// What happens while an answer is generated. It lives as long as the callback runs.
#[repr(C)]
pub struct Event {
    /// VAQUITA_EVENT_*. Programs must let kinds pass that they do not know.
    pub kind: i32,
    /// The token.
    pub token: u32,
    /// Whole characters in UTF-8, ended by a zero byte; empty where there is no text. The model may say zero bytes:
    /// what counts is text_length.
    pub text: *const c_char,
    /// Bytes of the text.
    pub text_length: usize,
    /// Tokens of the prompt read so far, and ...
    pub prompt_done: usize,
    /// ... in all.
    pub prompt_total: usize,
}

/// Takes events, in the thread that generates. 0 goes on, anything else ends the answer. It must not unwind.
pub type OnEvent = Option<unsafe extern "C" fn(event: *const Event, user_data: *mut c_void) -> i32>;

/// How an answer is generated. vaquita_generate_options_init() fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct GenerateOptions {
    /// sizeof(vaquita_generate_options).
    pub struct_size: usize,
    /// At most so many tokens, the reasoning among them; 0: until the context is full.
    pub max_tokens: usize,
    /// 0 always takes the likeliest token. Default: 0.6.
    pub temperature: f32,
    /// Only the likeliest so many tokens; 0: all.
    pub top_k: usize,
    /// The likeliest tokens that together have this probability. Default: 0.95.
    pub top_p: f32,
    /// Tokens at least so likely relative to the likeliest.
    pub min_p: f32,
    /// Penalty on tokens that were used lately; 1: none.
    pub repetition_penalty: f32,
    /// The same seed gives the same answer.
    pub seed: u64,
    /// Texts that end the answer; null where stop_count is 0.
    pub stop: *const *const c_char,
    /// How many.
    pub stop_count: usize,
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

/// Fills in the defaults. `struct_size` is sizeof(vaquita_generate_options).
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

/// Answers `user`, or what was said so far where it is null, and returns when the answer has ended; VAQUITA_OK also where
/// it was cancelled. `options` may be null.
///
/// The answer goes into the conversation without its reasoning, also one that was cut short. Where the call fails, or was
/// cancelled before the model answered anything, the conversation is as it was.
///
/// # Safety
/// `session` is null or an open session, `user` null or a text, `options` null or a struct; `on_event` may be called with
/// `user_data`.
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
            (reference(session, "session")?, optional_text(user, "user")?, options.read()?)
        };
        let on_event = on_event.ok_or_else(|| Failure::argument("on_event is null"))?;
        let mut conversation = session.conversation()?;
        let turn = conversation.answer(user, &options, &mut |happened| {
            let call = |event: &Event| {
                // SAFETY: the event outlives the call; the rest is promised by the caller.
                match unsafe { on_event(event, user_data) } {
                    0 => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            };
            tell(happened, call)
        })?;
        let stats = Stats::new(&turn, conversation.cache_bytes());
        *session.stats.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
        Ok(())
    })
}

/// Calls `call` with an event in C's representation.
fn tell(happened: Happened, call: impl Fn(&Event) -> ControlFlow<()>) -> ControlFlow<()> {
    let (text, text_length) = (c"".as_ptr(), 0);
    let nothing = Event { kind: 0, token: 0, text, text_length, prompt_done: 0, prompt_total: 0 };
    let with_text = |kind, text: &str| {
        let bytes = [text.as_bytes(), &[0]].concat();
        call(&Event { kind, text: bytes.as_ptr().cast(), text_length: text.len(), ..nothing })
    };
    match happened {
        Happened::Prompt { done: prompt_done, total: prompt_total } => {
            call(&Event { kind: VAQUITA_EVENT_PROMPT, prompt_done, prompt_total, ..nothing })
        }
        Happened::Token(token) => call(&Event { kind: VAQUITA_EVENT_TOKEN, token, ..nothing }),
        // The options that C has do not ask for them.
        Happened::Logprobs(_) | Happened::Call(_) => ControlFlow::Continue(()),
        Happened::Reasoning(text) => with_text(VAQUITA_EVENT_REASONING, text),
        Happened::Answer(text) => with_text(VAQUITA_EVENT_ANSWER, text),
        Happened::WasReasoning => call(&Event { kind: VAQUITA_EVENT_WAS_REASONING, ..nothing }),
    }
}
