//! libvaquita: a thin C interface over [`vaquita_runtime::app`].
//!
//! Every function that can fail runs in `status::guard`, which turns errors into codes and catches
//! panics. `arguments` converts what C passes. The header is generated from these files; see
//! `tests/header.rs`.

mod arguments;
mod generate;
mod meter;
mod model;
mod session;
mod stats;
mod status;

use std::ffi::{CStr, c_char};

/// Version of this interface. It increases when programs must be recompiled; structs may grow
/// without that.
pub const VAQUITA_ABI_VERSION: u32 = 1;

/// `VAQUITA_ABI_VERSION` of the library. A program whose header has another version must not
/// continue.
#[unsafe(no_mangle)]
pub extern "C" fn vaquita_abi_version() -> u32 {
    VAQUITA_ABI_VERSION
}

/// Version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn vaquita_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}
