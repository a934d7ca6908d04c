//! Cost of an answer.

use std::sync::PoisonError;

use vaquita_runtime::app::Turn;
use vaquita_runtime::session::generate::StopReason;

use crate::arguments::{Versioned, give, reference};
use crate::session::Session;
use crate::status::{Failure, guard};

/// The model ended the answer.
pub const VAQUITA_STOP_END: i32 = 0;
/// A stop string occurred.
pub const VAQUITA_STOP_TEXT: i32 = 1;
/// max_tokens were generated.
pub const VAQUITA_STOP_LENGTH: i32 = 2;
/// The context is full.
pub const VAQUITA_STOP_CONTEXT_FULL: i32 = 3;
/// The answer was cancelled.
pub const VAQUITA_STOP_CANCELLED: i32 = 4;

/// Cost of an answer. A floating-point value that was not measured is NaN: test it with isnan().
/// Set struct_size before the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stats {
    /// sizeof(vaquita_stats).
    pub struct_size: usize,
    /// Reason why the answer ended: VAQUITA_STOP_*.
    pub stop: i32,
    /// Number of prompt tokens, that is, of the whole conversation.
    pub prompt_tokens: usize,
    /// Number of prompt tokens that were in the cache already.
    pub cached_tokens: usize,
    /// Number of generated tokens.
    pub tokens: usize,
    /// Seconds from the call to the first token.
    pub first_token_seconds: f64,
    /// Prompt tokens processed per second.
    pub prompt_tokens_per_second: f64,
    /// Generated tokens per second, after the first.
    pub tokens_per_second: f64,
    /// Joules until the first token, of everything that the meter covers.
    pub prompt_joules: f64,
    /// Joules per token after the first.
    pub joules_per_token: f64,
    /// Fraction of needed experts that were resident; NaN unless experts are streamed.
    pub hit_rate: f64,
    /// Bytes of experts read from the file by all sessions during the answer; -1 if the file is
    /// mapped.
    pub bytes_read: i64,
    /// Bytes of this session's KV cache.
    pub cache_bytes: usize,
    /// Number of drafted tokens; 0 without drafts.
    pub drafted_tokens: u64,
    /// Number of drafted tokens that the model confirmed.
    pub accepted_tokens: u64,
}

// SAFETY: it begins with its size; the rest is numbers.
unsafe impl Versioned for Stats {
    const NAME: &str = "vaquita_stats";
}

impl Stats {
    pub fn new(turn: &Turn, cache_bytes: usize) -> Self {
        let generation = &turn.generation;
        let or_nan = |figure: Option<f64>| figure.unwrap_or(f64::NAN);
        let read = turn.streaming.map(|stats| stats.bytes_read);
        Self {
            struct_size: size_of::<Self>(),
            stop: match generation.stop {
                StopReason::EndOfSentence => VAQUITA_STOP_END,
                StopReason::StopString => VAQUITA_STOP_TEXT,
                StopReason::Length => VAQUITA_STOP_LENGTH,
                StopReason::ContextFull => VAQUITA_STOP_CONTEXT_FULL,
                StopReason::Cancelled => VAQUITA_STOP_CANCELLED,
            },
            prompt_tokens: generation.prompt_tokens,
            cached_tokens: generation.cached_tokens,
            tokens: generation.tokens.len(),
            first_token_seconds: or_nan(turn.first_token.map(|time| time.as_secs_f64())),
            prompt_tokens_per_second: or_nan(generation.prefill_rate()),
            tokens_per_second: or_nan(generation.decode_rate()),
            prompt_joules: or_nan(turn.prompt_joules),
            joules_per_token: or_nan(turn.joules_per_token),
            hit_rate: or_nan(turn.streaming.and_then(|stats| stats.hit_rate())),
            bytes_read: read.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(-1),
            cache_bytes,
            drafted_tokens: generation.drafts.all_drafted(),
            accepted_tokens: generation.drafts.all_accepted(),
        }
    }
}

/// Cost of the session's last answer. VAQUITA_ERROR_ARGUMENT if there is none.
///
/// # Safety
/// `session` is null or an open session, `stats` null or a struct that begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_stats(session: *const Session, stats: *mut Stats) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let session = unsafe { reference(session, "session") }?;
        let last = *session.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.ok_or_else(|| Failure::argument("the session has not answered yet"))?;
        // SAFETY: promised by the caller.
        unsafe { give(stats, &last) }
    })
}
