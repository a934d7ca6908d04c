//! Conversion of C arguments.

use std::ffi::{CStr, c_char};
use std::mem::size_of;

use crate::status::{Failure, Result};

/// A struct that begins with its size in bytes, as known to the program when it was compiled.
///
/// # Safety
/// The struct begins with a `usize`, and is valid for any bytes.
pub unsafe trait Versioned: Copy {
    /// Name in C.
    const NAME: &str;
}

/// Dereferences a pointer; null is an error.
///
/// # Safety
/// The pointer is null, or points to a value that outlives the reference and is not changed while
/// it lives.
pub unsafe fn reference<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: promised by the caller.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failure::argument(format!("{name} is null")))
}

/// Converts a string; null is an error.
///
/// # Safety
/// The pointer is null, or points to a zero-terminated string that outlives the reference.
pub unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: promised by the caller.
    let text = unsafe { optional_text(pointer, name) }?;
    text.ok_or_else(|| Failure::argument(format!("{name} is null")))
}

/// Converts a string, or null.
///
/// # Safety
/// See [`text`].
pub unsafe fn optional_text<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not null; the rest is promised by the caller.
    let text = unsafe { CStr::from_ptr(pointer) }.to_str();
    text.map(Some).map_err(|error| Failure::argument(format!("{name} is not UTF-8: {error}")))
}

/// Reads a program's struct. Fields that it does not have yet, or all fields if the pointer is
/// null, are taken from `default`.
///
/// # Safety
/// The pointer is null, or points to as many bytes as the struct states.
pub unsafe fn given<T: Versioned>(pointer: *const T, default: T) -> Result<T> {
    let mut value = default;
    if !pointer.is_null() {
        // SAFETY: the struct begins with its size.
        let size = checked_size::<T>(unsafe { pointer.cast::<usize>().read_unaligned() })?;
        // SAFETY: that many bytes are readable, `value` is at least as large, and any bytes are
        // valid.
        unsafe { pointer.cast::<u8>().copy_to_nonoverlapping((&raw mut value).cast(), size) };
    }
    Ok(value)
}

/// Writes the part of `value` that fits the program's struct, except the size.
///
/// # Safety
/// The pointer is null, or points to as many writable bytes as the struct states.
pub unsafe fn give<T: Versioned>(pointer: *mut T, value: &T) -> Result {
    if pointer.is_null() {
        return Err(Failure::argument(format!("{} is null", T::NAME)));
    }
    // SAFETY: the struct begins with its size.
    let size = checked_size::<T>(unsafe { pointer.cast::<usize>().read_unaligned() })?;
    let (head, from) = (size_of::<usize>(), (&raw const *value).cast::<u8>());
    // SAFETY: both sides have `size` bytes, and `size` is at least `head`.
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
