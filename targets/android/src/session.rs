//! Native methods for sessions.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, TryLockError};

use jni::JNIEnv;
use jni::objects::{JClass, JObject, JObjectArray, JString, JValue};
use jni::sys::{jdoubleArray, jfloat, jint, jlong, jsize};
use vaquita_runtime::app::{Canceller, Conversation, Turn};
use vaquita_runtime::session::generate::{Event, GenerationOptions, StopReason};
use vaquita_runtime::session::sampler::SamplingOptions;

use crate::boundary::{Failure, Raw, Result, borrow, guard, optional_text, text};
use crate::{Model, count};

struct Session {
    conversation: Mutex<Conversation>,
    canceller: Canceller,
}

impl Session {
    /// Locks the conversation. Java admits one thread at a time; the lock only enforces it.
    fn conversation(&self) -> Result<MutexGuard<'_, Conversation>> {
        self.conversation.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Failure::Of("BUSY", "the session is at work".into()),
            TryLockError::Poisoned(_) => {
                Failure::Of("INTERNAL", "an earlier call failed inside; close the session".into())
            }
        })
    }
}

/// `Native.createSession`
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_vaquita_Native_createSession<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    model: jlong,
) -> jlong {
    guard(&mut env, |_| {
        // SAFETY: Java keeps the model open during the call.
        let conversation = unsafe { borrow::<Model>(model) }.conversation()?;
        let canceller = conversation.canceller();
        let session = Session { conversation: Mutex::new(conversation), canceller };
        Ok(Box::into_raw(Box::new(session)) as jlong)
    })
}

/// `Native.closeSession`
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_vaquita_Native_closeSession<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    session: jlong,
) {
    guard(&mut env, |_| {
        // SAFETY: created by `createSession`; Java drops the handle with this call.
        drop(unsafe { Box::from_raw(session as *mut Session) });
        Ok(())
    })
}

/// `Native.cancel`, from any thread.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_vaquita_Native_cancel<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    session: jlong,
) {
    guard(&mut env, |_| {
        // SAFETY: Java keeps the session open during the call.
        unsafe { borrow::<Session>(session) }.canceller.cancel();
        Ok(())
    })
}

/// `Native.change`: 0 sets the system prompt, 1 the tools, 2 saves to a file, 3 restores from one,
/// 4 resets the conversation, 5 sets the template's variables.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_vaquita_Native_change<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    session: jlong,
    what: jint,
    value: JString<'local>,
) {
    guard(&mut env, |env| {
        let value = text(env, &value, "the argument")?;
        // SAFETY: Java keeps the session open during the call.
        let mut conversation = unsafe { borrow::<Session>(session) }.conversation()?;
        match what {
            0 => conversation.set_system(&value),
            1 => conversation.set_tools(&value)?,
            2 => conversation.save(Path::new(&value))?,
            3 => conversation.restore(Path::new(&value))?,
            5 => conversation.set_template_variables(&value)?,
            _ => conversation.reset(),
        }
        Ok(())
    })
}

/// `Native.addMessage`
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_vaquita_Native_addMessage<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    session: jlong,
    role: JString<'local>,
    content: JString<'local>,
) {
    guard(&mut env, |env| {
        let (role, content) = (text(env, &role, "role")?, text(env, &content, "content")?);
        // SAFETY: Java keeps the session open during the call.
        let mut conversation = unsafe { borrow::<Session>(session) }.conversation()?;
        Ok(conversation.add_message(&role, &content)?)
    })
}

/// `Native.generate`: calls `events.on(kind, text, done, total)`, and returns values in the order
/// of `VaquitaTurn`'s fields.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // JNI passes numbers one by one
pub extern "system" fn Java_dev_vaquita_Native_generate<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    session: jlong,
    user: JString<'local>,
    max_tokens: jint,
    temperature: jfloat,
    top_k: jint,
    top_p: jfloat,
    min_p: jfloat,
    repetition_penalty: jfloat,
    seed: jlong,
    stop: JObjectArray<'local>,
    events: JObject<'local>,
) -> jdoubleArray {
    guard(&mut env, |env| {
        // SAFETY: Java keeps the session open during the call.
        let _generating = unsafe { borrow::<Session>(session) }.canceller.enter();
        let user = optional_text(env, &user)?;
        let max_tokens = count(max_tokens, "maxTokens")?;
        let options = GenerationOptions {
            sampling: SamplingOptions {
                temperature,
                top_k: count(top_k, "topK")?,
                top_p,
                min_p,
                repetition_penalty,
                seed: seed as u64,
                ..SamplingOptions::default()
            },
            max_tokens: (max_tokens > 0).then_some(max_tokens),
            stop: texts(env, &stop)?,
            ..GenerationOptions::default()
        };
        // SAFETY: Java keeps the session open during the call.
        let mut conversation = unsafe { borrow::<Session>(session) }.conversation()?;
        let mut failed = None;
        let turn = conversation.answer(user.as_deref(), &options, &mut |event| match tell(
            env, &events, event,
        ) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                failed.get_or_insert(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let figures = figures(&turn);
        let array = env.new_double_array(figures.len() as jsize)?;
        env.set_double_array_region(&array, 0, &figures)?;
        Ok(Raw(array.into_raw()))
    })
    .0
}

fn texts(env: &mut JNIEnv, array: &JObjectArray) -> Result<Vec<String>> {
    let count = env.get_array_length(array)?;
    let one = |i| {
        let element = JString::from(env.get_object_array_element(array, i)?);
        text(env, &element, "a stop text")
    };
    (0..count).map(one).collect()
}

/// Calls the listener and returns whether to continue.
fn tell(env: &mut JNIEnv, events: &JObject, event: Event) -> Result<bool> {
    if env.exception_check()? {
        return Ok(false); // the end of an answer that a listener broke off
    }
    let (kind, text, done, total) = match event {
        Event::Prompt { done, total } => (0, "", done, total),
        Event::Logprobs(_) | Event::Call(_) => return Ok(true), // the options that Java has do not ask for them
        Event::Token(_) => (1, "", 0, 0),
        Event::Reasoning(text) => (2, text, 0, 0),
        Event::Answer(text) => (3, text, 0, 0),
        Event::WasReasoning => (4, "", 0, 0),
    };
    // An answer consists of thousands of pieces, and Java frees local references only when the
    // native method returns.
    let goes_on = env.with_local_frame(4, |env| {
        let text = env.new_string(text)?;
        let (done, total) = (done as jint, total as jint);
        let arguments = [kind.into(), JValue::Object(&text), done.into(), total.into()];
        env.call_method(events, "on", "(ILjava/lang/String;II)Z", &arguments)?.z()
    });
    Ok(goes_on?)
}

fn figures(turn: &Turn) -> [f64; 13] {
    let generation = &turn.generation;
    let stop = match generation.stop {
        StopReason::EndOfSentence => 0.0,
        StopReason::StopString => 1.0,
        StopReason::Length => 2.0,
        StopReason::ContextFull => 3.0,
        StopReason::Cancelled => 4.0,
    };
    let or_nan = |figure: Option<f64>| figure.unwrap_or(f64::NAN);
    [
        stop,
        generation.prompt_tokens as f64,
        generation.cached_tokens as f64,
        generation.tokens.len() as f64,
        or_nan(turn.first_token.map(|time| time.as_secs_f64())),
        or_nan(generation.prefill_rate()),
        or_nan(generation.decode_rate()),
        or_nan(turn.prompt_joules),
        or_nan(turn.joules_per_token),
        or_nan(turn.streaming.and_then(|stats| stats.hit_rate())),
        or_nan(turn.streaming.map(|stats| stats.bytes_read as f64)),
        generation.drafts.all_drafted() as f64,
        generation.drafts.all_accepted() as f64,
    ]
}
