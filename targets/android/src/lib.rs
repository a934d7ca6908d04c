//! Native methods of `dev.vaquita.Native`: a thin layer over [`vaquita_runtime::app`].
//!
//! A handle is the address of a Rust object. The Java classes ensure that no handle is used after
//! it was closed, and that a session is used by one thread at a time. Listeners are called on the
//! Java thread that generates, so no thread is ever attached.

mod boundary;
mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jni::JNIEnv;
use jni::objects::{JClass, JString};
use jni::sys::{jint, jlong, jlongArray};
use vaquita_runtime::app::{AppModel, ModelOptions, Thermal};
use vaquita_runtime::engine::PromptCacheOptions;
use vaquita_runtime::opening::TrimLevel;

use crate::boundary::{Failure, borrow, guard, optional_text, text};

type Model = Arc<AppModel>;

/// Converts a number that must not be negative.
pub(crate) fn count(number: jint, name: &str) -> boundary::Result<usize> {
    usize::try_from(number).map_err(|_| Failure::argument(format!("{name} is {number}")))
}

/// `Native.open`
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // JNI passes options one by one
pub extern "system" fn Java_dev_vaquita_Native_open<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    path: JString<'local>,
    memory: JString<'local>,
    context: jint,
    sessions: jint,
    threads: jint,
    cache: JString<'local>,
    drafts: JString<'local>,
    prompt_folder: JString<'local>,
    prompt_bytes: jlong,
) -> jlong {
    guard(&mut env, |env| {
        let path = text(env, &path, "path")?;
        let memory = optional_text(env, &memory)?;
        let (cache, drafts) = (optional_text(env, &cache)?, optional_text(env, &drafts)?);
        let folder = optional_text(env, &prompt_folder)?.map(PathBuf::from);
        let prompt_bytes = u64::try_from(prompt_bytes)
            .map_err(|_| Failure::argument(format!("promptBytes is {prompt_bytes}")))?;
        let options = ModelOptions {
            context: count(context, "context")?,
            sessions: count(sessions, "sessions")?,
            threads: count(threads, "threads")?,
            ..ModelOptions::read(memory.as_deref(), cache.as_deref(), drafts.as_deref())?
        };
        let model: Model = AppModel::open(Path::new(&path), &options)?;
        model.keep_prompts(&PromptCacheOptions::in_folder(folder, prompt_bytes))?;
        Ok(Box::into_raw(Box::new(model)) as jlong)
    })
}

/// `Native.closeModel`: its memory is freed with its last session.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_vaquita_Native_closeModel<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    model: jlong,
) {
    guard(&mut env, |_| {
        // SAFETY: created by `open`; Java drops the handle with this call.
        drop(unsafe { Box::from_raw(model as *mut Model) });
        Ok(())
    })
}

/// `Native.setMemoryBudget`
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_vaquita_Native_setMemoryBudget<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    model: jlong,
    bytes: jlong,
) {
    guard(&mut env, |_| {
        let bytes = u64::try_from(bytes)
            .map_err(|_| Failure::argument(format!("a memory budget of {bytes} bytes")))?;
        // SAFETY: Java keeps the model open during the call.
        Ok(unsafe { borrow::<Model>(model) }.set_memory_budget(bytes)?)
    })
}

/// `Native.trim`
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_vaquita_Native_trim<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    model: jlong,
    critical: jni::sys::jboolean,
) {
    guard(&mut env, |_| {
        let level = if critical == 0 { TrimLevel::Background } else { TrimLevel::Critical };
        // SAFETY: Java keeps the model open during the call.
        unsafe { borrow::<Model>(model) }.trim(level);
        Ok(())
    })
}

/// `Native.thermalHint`: returns the number of threads that compute from now on.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_vaquita_Native_thermalHint<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    model: jlong,
    thermal: jint,
) -> jint {
    guard(&mut env, |_| {
        let thermal = match thermal {
            0 => Thermal::Nominal,
            1 => Thermal::Fair,
            2 => Thermal::Serious,
            _ => Thermal::Critical,
        };
        // SAFETY: Java keeps the model open during the call.
        Ok(unsafe { borrow::<Model>(model) }.thermal_hint(thermal) as jint)
    })
}

/// `Native.memory`: values in the order of `VaquitaMemory`'s fields; -1 if not measured.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_vaquita_Native_memory<'local>(
    mut env: JNIEnv<'local>,
    _class: JClass<'local>,
    model: jlong,
) -> jlongArray {
    guard(&mut env, |env| {
        // SAFETY: Java keeps the model open during the call.
        let found = unsafe { borrow::<Model>(model) }.memory();
        let figures = [
            found.process.map(|process| process.resident),
            found.process.map(|process| process.peak),
            found.budget,
            found.dense,
            found.cache,
            found.scratch,
            found.experts_limit,
            found.experts,
        ];
        let figures =
            figures.map(|bytes| bytes.and_then(|n| jlong::try_from(n).ok()).unwrap_or(-1));
        let array = env.new_long_array(figures.len() as jint)?;
        env.set_long_array_region(&array, 0, &figures)?;
        Ok(boundary::Raw(array.into_raw()))
    })
    .0
}
