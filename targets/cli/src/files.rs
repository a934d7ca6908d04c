//! Output files of commands.

use std::io::Write;
use std::path::Path;

use vaquita_quantize::partial::PartialFile;

use crate::failure::{Failure, Result};

/// Writes a file atomically: it appears only once it is complete.
pub fn write_whole(out: &Path, bytes: &[u8]) -> Result {
    let failed = |error: std::io::Error| Failure::Error(format!("{}: {error}", out.display()));
    let (partial, mut file) = PartialFile::create(out).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    partial.keep().map_err(failed)
}
