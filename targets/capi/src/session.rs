//! Sessions: conversations with a model.

use std::ffi::c_char;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, TryLockError};

use vaquita_runtime::app::{Canceller, Conversation};

use crate::arguments::{reference, text};
use crate::model::Model;
use crate::stats::Stats;
use crate::status::{Failure, Result, VAQUITA_ERROR_BUSY, VAQUITA_ERROR_INTERNAL, guard};

/// A conversation with a model.
pub struct Session {
    conversation: Mutex<Conversation>,
    pub(crate) canceller: Canceller,
    /// Statistics of the last answer.
    pub(crate) stats: Mutex<Option<Stats>>,
}

impl Session {
    /// Locks the conversation; an error if another call uses it.
    pub(crate) fn conversation(&self) -> Result<MutexGuard<'_, Conversation>> {
        self.conversation.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Failure::new(
                VAQUITA_ERROR_BUSY,
                "the session is at work in another call; cancel that, or wait until it returns",
            ),
            TryLockError::Poisoned(_) => Failure::new(
                VAQUITA_ERROR_INTERNAL,
                "an earlier call failed inside the library; close this session",
            ),
        })
    }
}

/// Starts a conversation. Close the session with vaquita_session_close().
///
/// # Safety
/// `model` is null or an open model, `session` null or a writable pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_create(
    model: *const Model,
    session: *mut *mut Session,
) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let (model, out) = unsafe { (reference(model, "model")?, session.as_mut()) };
        let out = out.ok_or_else(|| Failure::argument("session is null"))?;
        let conversation = model.inner.conversation()?;
        let canceller = conversation.canceller();
        let conversation = Mutex::new(conversation);
        *out =
            Box::into_raw(Box::new(Session { conversation, canceller, stats: Mutex::default() }));
        Ok(())
    })
}

/// Closes a session. Passing null is a no-op. Returns VAQUITA_ERROR_BUSY, and leaves the session
/// open, while it generates.
///
/// # Safety
/// `session` is null or an open session, which no other call uses, except one that generates.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_close(session: *mut Session) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let Some(open) = (unsafe { session.as_ref() }) else { return Ok(()) };
        if matches!(open.conversation.try_lock(), Err(TryLockError::WouldBlock)) {
            let message = "the session is at work; cancel it, and close it when that has returned";
            return Err(Failure::new(VAQUITA_ERROR_BUSY, message));
        }
        // SAFETY: created by `Box::into_raw`, and no longer used.
        drop(unsafe { Box::from_raw(session) });
        Ok(())
    })
}

/// Cancels generation before the next layer is computed. May be called from any thread, including
/// the callback. No effect if the session does not generate.
///
/// # Safety
/// `session` is null or an open session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_cancel(session: *const Session) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        unsafe { reference(session, "session") }?.canceller.cancel();
        Ok(())
    })
}

/// Sets the system prompt; an empty one removes it.
///
/// # Safety
/// `session` is null or an open session, `system` null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_set_system(
    session: *const Session,
    system: *const c_char,
) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let (session, system) =
            unsafe { (reference(session, "session")?, text(system, "system")?) };
        session.conversation()?.set_system(system);
        Ok(())
    })
}

/// Sets the tools that the model may call: a JSON list in OpenAI's format; an empty string removes
/// them. With parse_calls of vaquita_generate_options, calls are events, and
/// vaquita_session_add_tool_result() answers them; otherwise calls appear in the answer, in the
/// model's own format, and the result of a tool is a message with the role "tool".
///
/// # Safety
/// `session` is null or an open session, `tools` null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_set_tools(
    session: *const Session,
    tools: *const c_char,
) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let (session, tools) = unsafe { (reference(session, "session")?, text(tools, "tools")?) };
        Ok(session.conversation()?.set_tools(tools)?)
    })
}

/// Replaces the variables of the model's chat template: a JSON object, such as {"enable_thinking":
/// false}; an empty string removes them.
///
/// # Safety
/// `session` is null or an open session, `variables` null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_set_template_variables(
    session: *const Session,
    variables: *const c_char,
) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let (session, variables) =
            unsafe { (reference(session, "session")?, text(variables, "variables")?) };
        Ok(session.conversation()?.set_template_variables(variables)?)
    })
}

/// Adds a message without generating an answer: an earlier turn, or the result of a tool. `role` is
/// "system", "user", "assistant" or "tool".
///
/// # Safety
/// `session` is null or an open session, `role` and `content` null or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_add_message(
    session: *const Session,
    role: *const c_char,
    content: *const c_char,
) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let (session, role, content) = unsafe {
            (reference(session, "session")?, text(role, "role")?, text(content, "content")?)
        };
        Ok(session.conversation()?.add_message(role, content)?)
    })
}

/// Adds the result of a tool call. `id` is the call_id of its events.
///
/// # Safety
/// `session` is null or an open session, `id` and `content` null or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_add_tool_result(
    session: *const Session,
    id: *const c_char,
    content: *const c_char,
) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let (session, id, content) =
            unsafe { (reference(session, "session")?, text(id, "id")?, text(content, "content")?) };
        Ok(session.conversation()?.add_tool_result(id, content)?)
    })
}

/// Resets the conversation, except for the system prompt and the tools.
///
/// # Safety
/// `session` is null or an open session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_reset(session: *const Session) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        unsafe { reference(session, "session") }?.conversation()?.reset();
        Ok(())
    })
}

/// Saves the conversation and its cache to a file, so that it can continue later without being
/// processed again.
///
/// # Safety
/// `session` is null or an open session, `path` null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_save(session: *const Session, path: *const c_char) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let (session, path) = unsafe { (reference(session, "session")?, text(path, "path")?) };
        Ok(session.conversation()?.save(Path::new(path))?)
    })
}

/// Replaces the conversation by a saved one of the same model. If this fails, the conversation is
/// unchanged.
///
/// # Safety
/// `session` is null or an open session, `path` null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_session_restore(
    session: *const Session,
    path: *const c_char,
) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let (session, path) = unsafe { (reference(session, "session")?, text(path, "path")?) };
        Ok(session.conversation()?.restore(Path::new(path))?)
    })
}
