//! Error codes and messages, and the boundary that panics do not cross.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use vaquita_runtime::app::{AppError, ErrorKind};

/// Success.
pub const VAQUITA_OK: i32 = 0;
/// An argument is invalid: null, not UTF-8, or out of range.
pub const VAQUITA_ERROR_ARGUMENT: i32 = 1;
/// The file does not exist.
pub const VAQUITA_ERROR_NOT_FOUND: i32 = 2;
/// A file cannot be read or written.
pub const VAQUITA_ERROR_IO: i32 = 3;
/// A file is invalid: not a model, damaged, or of an unsupported version.
pub const VAQUITA_ERROR_BAD_FILE: i32 = 4;
/// The memory budget is too small.
pub const VAQUITA_ERROR_MEMORY: i32 = 5;
/// The conversation is longer than the context.
pub const VAQUITA_ERROR_CONTEXT_FULL: i32 = 6;
/// The conversation cannot be rendered with the model's chat template.
pub const VAQUITA_ERROR_TEMPLATE: i32 = 7;
/// The model failed.
pub const VAQUITA_ERROR_MODEL: i32 = 8;
/// The session is in use by another call, or the model has open sessions.
pub const VAQUITA_ERROR_BUSY: i32 = 9;
/// Internal error of the library: close the session or model that it occurred in.
pub const VAQUITA_ERROR_INTERNAL: i32 = 10;

/// Error of a call.
#[derive(Debug)]
pub struct Failure {
    status: i32,
    message: String,
}

pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(status: i32, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(VAQUITA_ERROR_ARGUMENT, message)
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let status = match error.kind() {
            ErrorKind::Argument => VAQUITA_ERROR_ARGUMENT,
            ErrorKind::NotFound => VAQUITA_ERROR_NOT_FOUND,
            ErrorKind::Io => VAQUITA_ERROR_IO,
            ErrorKind::BadFile => VAQUITA_ERROR_BAD_FILE,
            ErrorKind::Memory => VAQUITA_ERROR_MEMORY,
            ErrorKind::ContextFull => VAQUITA_ERROR_CONTEXT_FULL,
            ErrorKind::Template => VAQUITA_ERROR_TEMPLATE,
            ErrorKind::Model => VAQUITA_ERROR_MODEL,
        };
        Self::new(status, error.to_string())
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs a call. Keeps an error's message for `vaquita_last_error`, and turns a panic into an error.
pub fn guard(call: impl FnOnce() -> Result) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Failure::new(VAQUITA_ERROR_INTERNAL, format!("internal error in libvaquita: {text}")))
    });
    let Err(failure) = result else { return VAQUITA_OK };
    let message: Vec<u8> = failure.message.bytes().filter(|byte| *byte != 0).collect();
    LAST.with(|last| *last.borrow_mut() = CString::new(message).unwrap_or_default());
    failure.status
}

/// Message of the last failed call of this thread; valid until the next one that fails.
#[unsafe(no_mangle)]
pub extern "C" fn vaquita_last_error() -> *const c_char {
    LAST.with(|last| last.borrow().as_ptr())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn a_panic_becomes_a_code_and_a_message() {
        assert_eq!(guard(|| panic!("no {}", "way")), VAQUITA_ERROR_INTERNAL);
        // SAFETY: the message belongs to this thread, on which no call fails in between.
        let message = unsafe { CStr::from_ptr(vaquita_last_error()) };
        assert_eq!(message.to_str(), Ok("internal error in libvaquita: no way"));
        assert_eq!(guard(|| Ok(())), VAQUITA_OK);
    }

    #[test]
    fn messages_are_of_their_thread() {
        assert_eq!(guard(|| Err(Failure::argument("here\0"))), VAQUITA_ERROR_ARGUMENT);
        let other = std::thread::spawn(|| {
            // SAFETY: as above.
            unsafe { CStr::from_ptr(vaquita_last_error()) }.to_bytes().len()
        });
        assert_eq!(other.join().unwrap(), 0);
    }
}
