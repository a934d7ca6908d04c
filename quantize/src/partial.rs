//! A file that appears under its name only when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A file under a temporary name in the folder of its final one; removed unless it is [kept](Self::keep).
pub struct PartialFile {
    path: PathBuf,
    target: PathBuf,
    kept: bool,
}

impl PartialFile {
    /// Creates the temporary file.
    pub fn create(target: &Path) -> io::Result<(Self, File)> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
        let mut attempt = 0;
        loop {
            let path =
                target.with_file_name(format!(".{name}.{}-{attempt}.partial", std::process::id()));
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => {
                    return Ok((Self { path, target: target.to_path_buf(), kept: false }, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it is now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, durably. The file must be on disk already.
    pub fn keep(mut self) -> io::Result<()> {
        fs::rename(&self.path, &self.target)?;
        self.kept = true;
        sync_folder(&self.target)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing is lost if this fails; the error that led here is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a rename in a file's folder durable, where folders can be opened.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
