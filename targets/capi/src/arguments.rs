//! From what C passes to what Rust takes.

use std::ffi::{CStr, c_char};
use std::mem::size_of;

use crate::status::{Failure, Result};

/// A struct that begins with its size in bytes, as the program was compiled with.
///
/// # Safety
/// It begins with a `usize`, and any bytes make a sound value of it.
pub unsafe trait Versioned: Copy {
    /// Its name in C.
    const NAME: &str;
}

/// What a pointer points to.
///
/// # Safety
/// It is null, or points to a value that lives, and is not changed, meanwhile.
pub unsafe fn reference<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failure::argument(format!("{name} is null")))
}

/// A text.
///
/// # Safety
/// The pointer is null, or points to bytes that end with a zero and live meanwhile.
pub unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    let text = unsafe { optional_text(pointer, name) }?;
    text.ok_or_else(|| Failure::argument(format!("{name} is null")))
}

/// A text, or null.
///
/// # Safety
/// As [`text`].
pub unsafe fn optional_text<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not null; the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) }.to_str();
    text.map(Some).map_err(|error| Failure::argument(format!("{name} is not UTF-8: {error}")))
}

/// What a program gives in a struct; what its struct does not have yet, or all where it gives null, is as in `default`.
///
/// # Safety
/// The pointer is null, or points to as many bytes as the struct says.
pub unsafe fn given<T: Versioned>(pointer: *const T, default: T) -> Result<T> {
    let mut value = default;
    if !pointer.is_null() {
        // SAFETY: the struct begins with its size.
        let size = checked_size::<T>(unsafe { pointer.cast::<usize>().read_unaligned() })?;
        // SAFETY: that many bytes are there, `value` has as many or more, and any are sound.
        unsafe { pointer.cast::<u8>().copy_to_nonoverlapping((&raw mut value).cast(), size) };
    }
    Ok(value)
}

/// Writes as much of `value` as the program's struct has, but for the size.
///
/// # Safety
/// The pointer is null, or points to as many writable bytes as the struct says.
pub unsafe fn give<T: Versioned>(pointer: *mut T, value: &T) -> Result {
    if pointer.is_null() {
        return Err(Failure::argument(format!("{} is null", T::NAME)));
    }
    // SAFETY: the struct begins with its size.
    let size = checked_size::<T>(unsafe { pointer.cast::<usize>().read_unaligned() })?;
    let (head, from) = (size_of::<usize>(), (&raw const *value).cast::<u8>());
    // SAFETY: `size` bytes are there on both sides, and at least `head` of them.
    unsafe { from.add(head).copy_to_nonoverlapping(pointer.cast::<u8>().add(head), size - head) };
    Ok(())
}

fn checked_size<T: Versioned>(found: usize) -> Result<usize> {
    let allowed = size_of::<usize>()..=size_of::<T>();
    if allowed.contains(&found) {
        return Ok(found);
    }
    let (name, most) = (T::NAME, size_of::<T>());
    let message = format!(
        "struct_size of {name} is {found}; this library knows at most {most}: set it to sizeof({name}), and use the \
         header that came with the library"
    );
    Err(Failure::argument(message))
}
