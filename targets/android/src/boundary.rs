//! The boundary between Java and Rust: strings, handles, exceptions for errors, and no unwinding
//! across it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use jni::JNIEnv;
use jni::objects::{JObject, JString, JThrowable, JValue};
use jni::sys::{jlong, jobject};
use vaquita_runtime::app::{AppError, ErrorKind};

/// Error of a native method.
#[derive(Debug)]
pub enum Failure {
    /// A `VaquitaException.Kind` and a message.
    Of(&'static str, String),
    /// A pending Java exception, or an error of JNI.
    Jni(jni::errors::Error),
}

pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    pub fn argument(message: impl Into<String>) -> Self {
        Self::Of("ARGUMENT", message.into())
    }
}

impl From<jni::errors::Error> for Failure {
    fn from(error: jni::errors::Error) -> Self {
        Self::Jni(error)
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let kind = match error.kind() {
            ErrorKind::Argument => "ARGUMENT",
            ErrorKind::NotFound => "NOT_FOUND",
            ErrorKind::Io => "IO",
            ErrorKind::BadFile => "BAD_FILE",
            ErrorKind::Memory => "MEMORY",
            ErrorKind::ContextFull => "CONTEXT_FULL",
            ErrorKind::Template => "TEMPLATE",
            ErrorKind::Model => "MODEL",
        };
        Self::Of(kind, error.to_string())
    }
}

/// A local reference returned to Java; null if an exception is pending.
pub struct Raw(pub jobject);

impl Default for Raw {
    fn default() -> Self {
        Self(null_mut())
    }
}

/// Runs a native method and turns errors and panics into exceptions.
pub fn guard<'local, T: Default>(
    env: &mut JNIEnv<'local>,
    call: impl FnOnce(&mut JNIEnv<'local>) -> Result<T>,
) -> T {
    let result = catch_unwind(AssertUnwindSafe(|| call(env))).unwrap_or_else(|_| {
        Err(Failure::Of("INTERNAL", "internal error in vaquita; close the session or model".into()))
    });
    match result {
        Ok(value) => value,
        Err(failure) => {
            if throw(env, &failure).is_err() {
                // In this case an exception of the virtual machine, such as OutOfMemoryError, is
                // pending.
            }
            T::default()
        }
    }
}

fn throw(env: &mut JNIEnv, failure: &Failure) -> jni::errors::Result<()> {
    if env.exception_check()? {
        return Ok(()); // a listener's, which goes on to whoever asked
    }
    let (kind, message) = match failure {
        Failure::Of(kind, message) => (*kind, message.clone()),
        Failure::Jni(error) => ("INTERNAL", error.to_string()),
    };
    let (kind, message) = (env.new_string(kind)?, env.new_string(message)?);
    let exception = env.new_object(
        "dev/vaquita/VaquitaException",
        "(Ljava/lang/String;Ljava/lang/String;)V",
        &[JValue::Object(&kind), JValue::Object(&message)],
    )?;
    env.throw(JThrowable::from(exception))
}

/// Converts a string; null is an error.
pub fn text(env: &mut JNIEnv, from: &JString, name: &str) -> Result<String> {
    optional_text(env, from)?.ok_or_else(|| Failure::argument(format!("{name} is null")))
}

/// Converts a string, or null.
pub fn optional_text(env: &mut JNIEnv, from: &JString) -> Result<Option<String>> {
    let object: &JObject = from;
    if object.is_null() {
        return Ok(None);
    }
    Ok(Some(env.get_string(from)?.into()))
}

/// The object behind a handle.
///
/// # Safety
/// The handle was made from a `Box<T>`, which is not closed while the reference lives.
pub unsafe fn borrow<'a, T>(handle: jlong) -> &'a T {
    // SAFETY: promised by the caller.
    unsafe { &*(handle as *const T) }
}
