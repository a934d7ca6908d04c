//! Opens single files, and models split into `NAME-00001-of-00003.gguf` and so on.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Gguf, GgufError, Metadata, limits};
use crate::bytes::Bytes;

const SPLIT_NO: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
const SPLIT_TENSORS: &str = "split.tensors.count";

impl Gguf {
    /// Parses the metadata at the start of a file, also where [`Gguf::open`] would fail because of
    /// later contents or a missing part.
    pub fn open_metadata(path: &Path) -> Result<Metadata, GgufError> {
        Self::parse_metadata(&map(path)?, path)
    }

    /// Opens a file; if it is the first of a split model, opens the others beside it, too.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let mut first = open_one(path)?;
        let count = first.metadata.u64(SPLIT_COUNT)?.unwrap_or(1);
        if count <= 1 {
            return Ok(first);
        }
        if count > limits::SPLITS {
            let allowed = format!("at most {}", limits::SPLITS);
            return Err(error(path, SPLIT_COUNT, count, allowed));
        }
        let stem = stem_of_first(path, count)?;
        for no in 1..count {
            let path = part_path(path, &stem, no, count);
            if !path.exists() {
                return Err(GgufError::MissingPart { path, number: no + 1, count });
            }
            let part = open_one(&path)?;
            let found = part.metadata.u64(SPLIT_NO)?.unwrap_or(0);
            if found != no {
                return Err(error(&path, SPLIT_NO, found, no));
            }
            first.append(part)?;
        }
        let expected = first.metadata.u64(SPLIT_TENSORS)?;
        if let Some(expected) = expected.filter(|&n| n != first.tensors.len() as u64) {
            let found = format!("{expected}, but the files hold {}", first.tensors.len());
            return Err(error(path, SPLIT_TENSORS, found, "the number of tensors in all files"));
        }
        Ok(first)
    }

    /// Adds the tensors of another part.
    fn append(&mut self, part: Self) -> Result<(), GgufError> {
        let number = self.parts.len();
        let mut names: HashMap<String, usize> = std::mem::take(&mut self.by_name);
        for mut info in part.tensors {
            info.part = number;
            if names.insert(info.name.clone(), self.tensors.len()).is_some() {
                let allowed = "names that occur once in all files";
                return Err(error(&part.path, "a tensor's name", info.name, allowed));
            }
            self.tensors.push(info);
        }
        self.by_name = names;
        self.parts.extend(part.parts);
        Ok(())
    }
}

fn open_one(path: &Path) -> Result<Gguf, GgufError> {
    Gguf::parse(map(path)?, path)
}

fn map(path: &Path) -> Result<Bytes, GgufError> {
    let io = |source| GgufError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(io(std::io::ErrorKind::IsADirectory.into()));
    }
    Bytes::map(&file).map_err(io)
}

/// The name before `-00001-of-0000N.gguf`.
fn stem_of_first(path: &Path, count: u64) -> Result<String, GgufError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ending = format!("-00001-of-{count:05}.gguf");
    name.strip_suffix(&ending).map(String::from).ok_or_else(|| {
        error(path, "the name of a split model's first file", name, format!("NAME{ending}"))
    })
}

fn part_path(first: &Path, stem: &str, no: u64, count: u64) -> PathBuf {
    first.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", no + 1))
}

fn error(path: &Path, what: &str, found: impl ToString, allowed: impl ToString) -> GgufError {
    GgufError::Value {
        path: path.into(),
        what: what.into(),
        found: found.to_string(),
        allowed: allowed.to_string(),
    }
}
