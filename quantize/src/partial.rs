//! A file that appears under its name only once it is complete.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A file under a temporary name in the folder of its target, `.model.gguf.new` for `model.gguf`;
/// removed unless it is [kept](Self::keep). A file that a killed process left there is overwritten.
pub struct PartialFile {
    path: PathBuf,
    target: PathBuf,
    kept: bool,
}

impl PartialFile {
    /// Creates the temporary file, empty, and locks it against other processes.
    pub fn create(target: &Path) -> io::Result<(Self, File)> {
        let path = beside(target, "new")?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        loop {
            let file = options.open(&path)?;
            lock(&file)?;
            // The process that held the lock may just have renamed the file to its target.
            if is_at(&file, &path)? {
                file.set_len(0)?;
                return Ok((Self { path, target: target.to_path_buf(), kept: false }, file));
            }
        }
    }

    /// Current path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the file durably. Its contents must be on disk already.
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

/// Hidden companion path of `target`: `.model.gguf.END`.
pub fn beside(target: &Path, end: &str) -> io::Result<PathBuf> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
    Ok(target.with_file_name(format!(".{name}.{end}")))
}

/// Locks a file against other processes; `ResourceBusy` if another one holds the lock.
pub(crate) fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let here = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Makes a rename in a file's folder durable, if folders can be opened.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_a_kill_left_is_replaced_and_a_running_process_is_respected() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.bin");
        fs::write(folder.path().join(".a.bin.new"), "left by a kill").unwrap();
        let (partial, mut file) = PartialFile::create(&target).unwrap();
        let busy = PartialFile::create(&target).map(drop).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        file.write_all(b"whole").unwrap();
        partial.keep().unwrap();
        // The lock now belongs to the renamed file, so it blocks nobody.
        let (partial, _) = PartialFile::create(&target).unwrap();
        drop(partial);
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
