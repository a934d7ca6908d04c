//! Regular files, read within a bound. A name in a folder from a stranger can lead to a device that
//! never ends, or to a pipe that waits for a writer.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;

/// Opens a regular file for reading.
///
/// # Errors
/// If it cannot be opened, or is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    // Opening a pipe would wait for a writer.
    check(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

/// Reads a whole regular file of at most `limit` bytes.
///
/// # Errors
/// If it cannot be read, is not a regular file, or is longer.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Files of /proc state no length, so what is read is limited.
    open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= limit {
        true => Ok(bytes),
        false => {
            let problem = format!("the file has more than {limit} bytes, which are allowed");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, problem))
        }
    }
}

/// Whether an error says that a disk, or what a user may take of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An I/O error in words that say what to do if a disk is full.
pub fn reason(error: &io::Error) -> String {
    match is_full(error) {
        true => "the disk is full: free some space, or choose another disk".into(),
        false => error.to_string(),
    }
}

fn check(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let problem =
        "this is a pipe, a device or a socket, not a file: save what it contains as a file";
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_length_are_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let bytes = fs::read(&path).unwrap();
        assert_eq!(read(&path, bytes.len() as u64).unwrap(), bytes);
        let error = read(&path, bytes.len() as u64 - 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(open(path.parent().unwrap()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        #[cfg(unix)]
        assert!(read(Path::new("/dev/zero"), 1 << 40).unwrap_err().to_string().contains("device"));
    }
}
