//! Files that a command writes.

use std::io::Write;
use std::path::Path;

use crate::failure::{Failure, Result};

/// Writes a file that appears only when it is whole.
pub fn write_whole(out: &Path, bytes: &[u8]) -> Result {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let failed = |error: std::io::Error| Failure::Error(format!("{}: {error}", out.display()));
    let mut file =
        tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(out).map_err(|error| failed(error.error))?;
    Ok(())
}
