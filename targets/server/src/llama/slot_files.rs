//! Files of slots: which names are allowed, and whose a file is.

use std::fs;
use std::path::{Path, PathBuf};

use vaquita_runtime::engine::{Engine, SlotError};
use vaquita_runtime::session::save::{self, SaveError};

use crate::error::{ApiError, Result};

/// Longest name of a file in bytes.
const LONGEST_NAME: usize = 128;
/// Most files in the folder, so that clients cannot fill a disk with names.
const MOST_FILES: usize = 256;

/// A file of a client's slot. The note in the file is the client: to others, it is not there.
pub(super) struct SlotFile {
    path: PathBuf,
    name: String,
    client: String,
}

impl SlotFile {
    /// The file `name` in the server's folder for slots.
    pub fn new(folder: Option<&Path>, name: &str, client: String) -> Result<Self> {
        let folder = folder.ok_or_else(|| {
            let message =
                "This server does not support slots action. Start it with `--slot-save-path`";
            ApiError::unsupported(message)
        })?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let plain = name.bytes().all(allowed) && !name.starts_with('.');
        if name.is_empty() || name.len() > LONGEST_NAME || !plain {
            let message = format!(
                "filename: Invalid filename; allowed: 1 to {LONGEST_NAME} letters, digits, `-`, `_` and \
                 `.`, which it must not begin with"
            );
            return Err(ApiError::field("filename", message));
        }
        Ok(Self { path: folder.join(name), name: name.into(), client })
    }

    /// Size of the file in bytes.
    pub fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Saves a slot, and returns the number of its tokens.
    pub fn save(&self, engine: &Engine, slot: Option<usize>) -> Result<usize> {
        match fs::symlink_metadata(&self.path) {
            Ok(_) if !self.is_own() => {
                let message =
                    "filename: a file of this name is there that is not yours; use another name";
                return Err(ApiError::field("filename", message));
            }
            Ok(_) => {}
            Err(_) => self.check_count()?,
        }
        let saved = engine.save_slot(&self.client, slot, &self.path, self.client.as_bytes());
        saved.map_err(|error| match error {
            SlotError::File(error) => ApiError::internal(self.without_folder(&error)),
            error => self.refusal(error),
        })
    }

    /// Restores a slot, and returns the number of its tokens.
    pub fn restore(&self, engine: &Engine, slot: Option<usize>) -> Result<usize> {
        if !self.is_own() {
            let message = format!("filename: there is no saved slot {} of yours", self.name);
            let error = ApiError::not_found(message);
            return Err(ApiError { param: Some("filename".into()), ..error });
        }
        let restored = engine.restore_slot(&self.client, slot, &self.path);
        restored.map_err(|error| self.refusal(error))
    }

    /// Whether a saved slot of the client is there.
    fn is_own(&self) -> bool {
        save::note(&self.path).is_ok_and(|note| note == self.client.as_bytes())
    }

    fn check_count(&self) -> Result<()> {
        let files = self.path.parent().and_then(|folder| fs::read_dir(folder).ok());
        match files.is_some_and(|files| files.count() >= MOST_FILES) {
            true => Err(ApiError::field(
                "filename",
                format!(
                    "filename: {MOST_FILES} slots are saved, which is all; save into one of them"
                ),
            )),
            false => Ok(()),
        }
    }

    fn refusal(&self, error: SlotError) -> ApiError {
        match error {
            SlotError::File(error) => ApiError::field("filename", self.without_folder(&error)),
            SlotError::NoFingerprint => ApiError::unsupported(error.to_string()),
            SlotError::Ended => ApiError::ended(),
            error => ApiError::field("id_slot", error.to_string()),
        }
    }

    /// The text of an error with the file's name instead of its path, which is the server's own.
    fn without_folder(&self, error: &SaveError) -> String {
        error.to_string().replace(&self.path.display().to_string(), &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_plain_component() {
        let of = |name: &str| SlotFile::new(Some(Path::new("/slots")), name, String::new());
        for good in ["slot1.bin", "a", "A-b_c.7", &"x".repeat(128)] {
            assert!(of(good).is_ok_and(|file| file.path.parent() == Some(Path::new("/slots"))));
        }
        let long = "x".repeat(129);
        for bad in
            ["", ".", "..", ".x", "../x", "/x", "a/b", "a\\b", "a\0", "a b", "é", "a:b", &long]
        {
            assert!(of(bad).is_err_and(|error| error.status == 400), "{bad:?}");
        }
        assert!(SlotFile::new(None, "a", String::new()).is_err_and(|error| error.status == 501));
    }
}
