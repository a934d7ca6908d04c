//! Opens single files, and models split into `NAME-00001-of-00003.gguf` and so on.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Gguf, GgufError, Metadata, limits};
use crate::bytes::{Bytes, file};

const SPLIT_NO: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
const SPLIT_TENSORS: &str = "split.tensors.count";

impl Gguf {
    /// Parses the metadata at the start of a file, also where [`Gguf::open`] would fail because of
    /// later contents or a missing part.
    pub fn open_metadata(path: &Path) -> Result<Metadata, GgufError> {
        let (read, _) = read(path, true, |start, _| Self::parse_metadata(start, path))?;
        Ok(read)
    }

    /// Opens a file; if it is the first of a split model, opens the others beside it, too.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        Self::open_with(path, true)
    }

    /// As [`Gguf::open`]; without `map`, as where the file system cannot map: tensors are read when
    /// they are asked for.
    pub fn open_with(path: &Path, map: bool) -> Result<Self, GgufError> {
        match Self::open_parts(path, map)? {
            (gguf, None) => Ok(gguf),
            (_, Some(error)) => Err(error),
        }
    }

    /// Opens a model as far as its files go: the second result says why it is not whole, such as
    /// an incomplete download or a missing part. Tensors that are not there have no bytes.
    pub fn open_header(path: &Path) -> Result<(Self, Option<GgufError>), GgufError> {
        Self::open_parts(path, true)
    }

    fn open_parts(path: &Path, map: bool) -> Result<(Self, Option<GgufError>), GgufError> {
        let (mut first, mut problem) = Self::open_one(path, map)?;
        let count = first.metadata.u64(SPLIT_COUNT)?.unwrap_or(1);
        if count > 1 {
            let others = first.append_others(path, count, map);
            problem = others.err().or(problem);
        }
        Ok((first, problem))
    }

    /// Adds the other parts of a split model.
    fn append_others(&mut self, path: &Path, count: u64, map: bool) -> Result<(), GgufError> {
        if count > limits::SPLITS {
            let allowed = format!("at most {}", limits::SPLITS);
            return Err(error(path, SPLIT_COUNT, count, allowed));
        }
        let number = self.metadata.u64(SPLIT_NO)?.unwrap_or(0);
        let names = Names::of(path, number, count);
        if number > 0 {
            let first = names.map_or("NAME-00001-of-...".into(), |names| names.part(0));
            let (path, number) = (path.into(), number.saturating_add(1));
            return Err(GgufError::LaterPart { path, number, count, first });
        }
        let names = names.ok_or_else(|| GgufError::SplitName { path: path.into(), count })?;
        for no in 1..count {
            let path = path.with_file_name(names.part(no));
            if !path.exists() {
                return Err(GgufError::MissingPart { path, number: no + 1, count });
            }
            let (part, truncated) = Self::open_one(&path, map)?;
            let found = part.metadata.u64(SPLIT_NO)?.unwrap_or(0);
            if found != no {
                return Err(error(&path, SPLIT_NO, found, no));
            }
            self.append(part)?;
            truncated.map_or(Ok(()), Err)?;
        }
        let expected = self.metadata.u64(SPLIT_TENSORS)?;
        if let Some(expected) = expected.filter(|&n| n != self.tensors.len() as u64) {
            let found = format!("{expected}, but the files hold {}", self.tensors.len());
            return Err(error(path, SPLIT_TENSORS, found, "the number of tensors in all files"));
        }
        Ok(())
    }

    fn open_one(path: &Path, map: bool) -> Result<(Self, Option<GgufError>), GgufError> {
        let parse = |start: &[u8], len| Self::parse_header(start, len, path);
        let ((mut gguf, truncated), contents) = read(path, map, parse)?;
        let part = &mut gguf.parts[0];
        match contents {
            Contents::Mapped(bytes) => part.bytes = Some(bytes),
            Contents::Unmapped(file) => part.file = Some(file),
        }
        Ok((gguf, truncated))
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

/// Bytes at the start of a file that are read at first where it cannot be mapped. Headers are as
/// long as their tokenizers, a few MiB.
const FIRST_BYTES: u64 = 4 << 20;

/// A file, mapped if its file system can.
enum Contents {
    Mapped(Bytes),
    Unmapped(File),
}

/// Parses the start of a file, given the length of all of it. Of a file that is not mapped, as much
/// is read as the header takes.
fn read<T>(
    path: &Path,
    map: bool,
    parse: impl Fn(&[u8], u64) -> Result<T, GgufError>,
) -> Result<(T, Contents), GgufError> {
    let io = |source| GgufError::Io { path: path.into(), source };
    let file = file::open(path).map_err(io)?;
    let mapped = if map { Bytes::try_map(&file).map_err(io)? } else { None };
    if let Some(bytes) = mapped {
        let parsed = parse(&bytes, bytes.len() as u64)?;
        return Ok((parsed, Contents::Mapped(bytes)));
    }
    let len = file.metadata().map_err(io)?.len();
    let mut size = FIRST_BYTES.min(len);
    loop {
        let mut start = vec![0; size as usize];
        file.read_exact_at(&mut start, 0).map_err(io)?;
        match parse(&start, len) {
            Err(_) if size < len => size = size.saturating_mul(4).min(len),
            parsed => return Ok((parsed?, Contents::Unmapped(file))),
        }
    }
}

/// Names of the files of a split model: `NAME-00001-of-00003.gguf` and so on.
struct Names {
    stem: String,
    count: u64,
    /// The ending as the user's files have it.
    ending: String,
}

impl Names {
    /// The names that follow from that of part `number`, from 0; `None` if it has another form.
    fn of(path: &Path, number: u64, count: u64) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (rest, ending) = name.rsplit_once('.')?;
        let number = number.checked_add(1)?;
        let stem = rest.strip_suffix(&format!("-{number:05}-of-{count:05}"))?;
        let is_gguf = ending.eq_ignore_ascii_case("gguf");
        is_gguf.then(|| Self { stem: stem.into(), count, ending: ending.into() })
    }

    /// The name of a part, from 0.
    fn part(&self, number: u64) -> String {
        format!("{}-{:05}-of-{:05}.{}", self.stem, number + 1, self.count, self.ending)
    }
}

fn error(path: &Path, what: &str, found: impl ToString, allowed: impl ToString) -> GgufError {
    GgufError::Value {
        path: path.into(),
        what: what.into(),
        found: found.to_string(),
        allowed: allowed.to_string(),
    }
}
