//! The chat page of `vaquita serve`, bundled by `build.rs` into one compressed document.
//!
//! A server sends [`files`] at their paths with [`headers`], compressed as they are. The page requests nothing but the
//! API of the server that sent it, by relative addresses.
#![warn(missing_docs)]

/// A file of the page, for `GET` at its path and without a key.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Path below the address of the server.
    pub path: &'static str,
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// The file under gzip, to be sent with `Content-Encoding: gzip`.
    pub body: &'static [u8],
    /// Value of `ETag`: a hash of the content.
    pub etag: &'static str,
}

macro_rules! file {
    ($path:literal, $content_type:literal, $name:literal) => {
        File {
            path: $path,
            content_type: $content_type,
            body: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
            etag: include_str!(concat!(env!("OUT_DIR"), "/", $name, ".etag")),
        }
    };
}

/// Everything that the page consists of: the document, and what lets a browser install it.
pub const fn files() -> [File; 3] {
    [
        file!("/", "text/html; charset=utf-8", "page"),
        file!("/manifest.webmanifest", "application/manifest+json", "manifest"),
        file!("/service-worker.js", "text/javascript; charset=utf-8", "worker"),
    ]
}

/// Headers to send with each of the [`files`].
///
/// `no-cache` makes browsers ask with the ETag, so that a new version of the program shows its own page.
pub const fn headers() -> [(&'static str, &'static str); 8] {
    [
        ("content-encoding", "gzip"),
        ("cache-control", "no-cache"),
        ("content-security-policy", include_str!(concat!(env!("OUT_DIR"), "/policy"))),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
    ]
}
