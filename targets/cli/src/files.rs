//! Output files of commands.

use std::io::Write;
use std::path::Path;

use vaquita_quantize::partial::PartialFile;
use vaquita_quantize::sources::Identity;
use vaquita_runtime::bytes::file::reason;
use vaquita_runtime::gguf::Gguf;

use crate::failure::{Failure, Result};

/// Refuses to replace a file, unless it was made from the same source before. The source itself is
/// refused by the library.
pub fn check_replaces(out: &Path, path: &Path, source: &Identity) -> Result {
    let is_source = out.canonicalize().ok() == path.canonicalize().ok();
    if !out.is_file() || is_source {
        return Ok(());
    }
    let metadata = Gguf::open_metadata(out).unwrap_or_default();
    let earlier = metadata.str("vaquita.source.fingerprint").ok().flatten();
    match earlier == Some(source.fingerprint.as_str()) {
        true => Ok(()),
        false => Err(Failure::Usage(format!(
            "{} exists and was not made from {}; --force replaces it",
            out.display(),
            source.name
        ))),
    }
}

/// Writes a file atomically: it appears only once it is complete.
pub fn write_whole(out: &Path, bytes: &[u8]) -> Result {
    let failed =
        |error: std::io::Error| Failure::Error(format!("{}: {}", out.display(), reason(&error)));
    let (partial, mut file) = PartialFile::create(out).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    partial.keep().map_err(failed)
}
