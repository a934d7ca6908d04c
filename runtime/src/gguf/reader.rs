//! Parses headers with a cursor that never reads beyond the remaining bytes and never allocates
//! more than they can fill.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::foreign;
use super::types::KNOWN;
use super::value::{Array, Metadata, Value};
use super::{
    ALIGNMENT_KEY, DEFAULT_ALIGNMENT, GgmlType, GgufError, HEADER_CHECKSUM_KEY, Identity, MAGIC,
    VERSION, limits,
};
use crate::bytes::Bytes;

/// Name, shape and location of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name.
    pub name: String,
    /// Dimensions, fastest first.
    pub dims: Vec<u64>,
    /// Type.
    pub ty: GgmlType,
    /// Offset of the data in its file, in bytes.
    pub offset: u64,
    /// Length of the data in bytes.
    pub len: u64,
    /// Index of its file in a split model.
    pub part: usize,
}

/// One file of a model.
#[derive(Debug)]
pub(super) struct GgufFile {
    pub path: PathBuf,
    pub len: u64,
    /// Its bytes; `None` if they are not mapped, or not any more.
    pub bytes: Option<Bytes>,
    /// The file, from which tensors are read where it cannot be mapped.
    pub file: Option<File>,
}

/// An open model file, or all files of a split model.
#[derive(Debug)]
pub struct Gguf {
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) by_name: HashMap<String, usize>,
    pub(super) parts: Vec<GgufFile>,
    pub(super) alignment: u64,
    /// CRC-32 of the headers, once the files are not mapped any more.
    pub(super) unmapped: Option<u32>,
    /// The checksum in the header of the first file, and that of its bytes.
    checksum: Option<[u32; 2]>,
}

impl Gguf {
    /// Parses the header of one file; `path` is used only in errors.
    pub fn parse(bytes: Bytes, path: &Path) -> Result<Self, GgufError> {
        match Self::parse_header(&bytes.clone(), bytes.len() as u64, path)? {
            (mut gguf, None) => {
                gguf.parts[0].bytes = Some(bytes);
                Ok(gguf)
            }
            (_, Some(truncated)) => Err(truncated),
        }
    }

    /// Parses the header at the start of a file of `len` bytes, which may end before its tensors do;
    /// the second result then says so. The file has no bytes yet.
    pub(super) fn parse_header(
        start: &[u8],
        len: u64,
        path: &Path,
    ) -> Result<(Self, Option<GgufError>), GgufError> {
        let explain = |error| foreign::explain(error, start, path);
        let (gguf, truncated) = Self::parse_any(start, len, path).map_err(explain)?;
        Ok((gguf, truncated.map(explain)))
    }

    fn parse_any(
        start: &[u8],
        len: u64,
        path: &Path,
    ) -> Result<(Self, Option<GgufError>), GgufError> {
        let mut cursor = Cursor { bytes: start, at: 0, path, checksum: None };
        let (tensors, metadata) = cursor.start()?;
        let alignment = alignment(&metadata, path)?;
        let mut infos = Vec::with_capacity(tensors);
        for i in 0..tensors {
            infos.push(cursor.tensor_info(i)?);
        }
        let truncated = place_tensors(&mut infos, cursor.at as u64, alignment, len, path)?;

        let mut by_name = HashMap::with_capacity(infos.len());
        for (i, info) in infos.iter().enumerate() {
            if by_name.insert(info.name.clone(), i).is_some() {
                let what = format!("the name of tensor {i}");
                return Err(value_error(path, &what, &info.name, "names that occur once"));
            }
        }
        let checksum = cursor.checksum.and_then(|at| checksums(&start[..cursor.at], at));
        let path = path.to_path_buf();
        let part = GgufFile { path: path.clone(), len, bytes: None, file: None };
        let gguf = Self {
            path,
            metadata,
            tensors: infos,
            by_name,
            parts: vec![part],
            alignment,
            unmapped: None,
            checksum,
        };
        Ok((gguf, truncated))
    }

    /// Parses the metadata at the start of a file, without checking tensors, or whether their data
    /// exists.
    pub fn parse_metadata(bytes: &[u8], path: &Path) -> Result<Metadata, GgufError> {
        let read = Cursor { bytes, at: 0, path, checksum: None }.start();
        read.map(|(_, metadata)| metadata).map_err(|error| foreign::explain(error, bytes, path))
    }

    /// Length of the header, metadata and tensor infos, of a file of which only the beginning is
    /// here.
    ///
    /// # Errors
    /// [`GgufError::Truncated`] if `bytes` end within the header.
    pub fn header_len(bytes: &[u8], path: &Path) -> Result<u64, GgufError> {
        let mut cursor = Cursor { bytes, at: 0, path, checksum: None };
        let (tensors, _) = cursor.start()?;
        for i in 0..tensors {
            cursor.tensor_info(i)?;
        }
        Ok(cursor.at as u64)
    }

    /// Path of the (first) file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Metadata of the (first) file.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor with that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&i| &self.tensors[i])
    }

    /// Data of a tensor, without a copy where the file is mapped; empty after [`Gguf::unmap`], and
    /// if it cannot be read.
    pub fn bytes(&self, info: &TensorInfo) -> Bytes {
        let (start, len) = (info.offset as usize, info.len as usize);
        // Infos of this file were checked when it was opened; any other info yields no bytes.
        let found = self.parts.get(info.part).and_then(|part| match (&part.bytes, &part.file) {
            (Some(mapped), _) => mapped.slice(start..start.checked_add(len)?),
            (None, Some(file)) => {
                info.offset.checked_add(info.len).filter(|end| *end <= part.len)?;
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, info.offset).ok()?;
                Some(bytes.into())
            }
            (None, None) => None,
        });
        found.unwrap_or_else(|| Bytes::from(Vec::new()))
    }

    /// Whether all files are mapped.
    pub fn is_mapped(&self) -> bool {
        self.parts.iter().all(|part| part.bytes.is_some())
    }

    /// Alignment of tensor data.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Total bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len).sum()
    }

    /// The model's identity.
    ///
    /// # Errors
    /// If a file cannot be opened again.
    pub fn identity(&self) -> io::Result<Identity> {
        let headers = self.unmapped.unwrap_or_else(|| self.headers_checksum());
        let files = self.parts.iter().map(|part| part.path.clone());
        let tensors = self.tensors.iter().map(|info| (info.part, info.offset, info.len));
        Identity::new(headers, files, tensors)
    }

    /// Path and length of each file, by [`TensorInfo::part`]; lengths are those found on opening.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.parts.iter().map(|part| (&*part.path, part.len))
    }

    /// The checksum that the header of the (first) file states ([`HEADER_CHECKSUM_KEY`]) and the
    /// one that it has; `None` if it states none.
    pub fn header_checksum(&self) -> Option<[u32; 2]> {
        self.checksum
    }

    /// CRC-32 of the headers of all files.
    fn headers_checksum(&self) -> u32 {
        let mut headers = crc32fast::Hasher::new();
        for (number, part) in self.parts.iter().enumerate() {
            let offsets = self.tensors.iter().filter(|info| info.part == number);
            let end = offsets.map(|info| info.offset).min().unwrap_or(part.len);
            // Within the file: checked when it was opened.
            match (&part.bytes, &part.file) {
                (Some(bytes), _) => headers.update(&bytes[..end as usize]),
                (None, Some(file)) => {
                    let mut header = vec![0; end as usize];
                    // A header that is not there any more is another one.
                    if file.read_exact_at(&mut header, 0).is_ok() {
                        headers.update(&header);
                    }
                }
                (None, None) => {}
            }
        }
        headers.finalize()
    }

    /// Unmaps the files: the header stays, and tensors must be read by other means.
    pub fn unmap(&mut self) {
        if self.unmapped.is_none() {
            self.unmapped = Some(self.headers_checksum());
        }
        self.parts.iter_mut().for_each(|part| (part.bytes, part.file) = (None, None));
    }
}

/// The checksum stated at `at` in a header, and that of the header with zeros in its place.
fn checksums(header: &[u8], at: usize) -> Option<[u32; 2]> {
    let stated = u32::from_le_bytes(*header.get(at..)?.first_chunk()?);
    let mut found = crc32fast::Hasher::new();
    found.update(&header[..at]);
    found.update(&[0; 4]);
    found.update(header.get(at + 4..)?);
    Some([stated, found.finalize()])
}

fn value_error(
    path: &Path,
    what: &dyn Display,
    found: impl ToString,
    allowed: impl ToString,
) -> GgufError {
    GgufError::Value {
        path: path.into(),
        what: what.to_string(),
        found: found.to_string(),
        allowed: allowed.to_string(),
    }
}

pub(super) fn alignment(metadata: &Metadata, path: &Path) -> Result<u64, GgufError> {
    let alignment = metadata.u64(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    let [low, high] = limits::ALIGNMENT;
    if !alignment.is_power_of_two() || !(low..=high).contains(&alignment) {
        let allowed = format!("a power of two between {low} and {high}");
        return Err(value_error(path, &ALIGNMENT_KEY, alignment, allowed));
    }
    Ok(alignment)
}

/// Turns offsets within the data section into file offsets, and checks that tensors are aligned and
/// disjoint. Returns an error as its value if the file ends before its tensors do.
fn place_tensors(
    infos: &mut [TensorInfo],
    header: u64,
    alignment: u64,
    file_len: u64,
    path: &Path,
) -> Result<Option<GgufError>, GgufError> {
    let mut truncated: Option<(&str, u64)> = None;
    let mut needed = 0;
    let data_at = header.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
    for info in &mut *infos {
        let what = format!("the offset of tensor {}", info.name);
        if !info.offset.is_multiple_of(alignment) {
            let allowed = format!("multiples of {alignment}");
            return Err(value_error(path, &what, info.offset, allowed));
        }
        let start = data_at.checked_add(info.offset);
        let end = start.and_then(|start| start.checked_add(info.len));
        match (start, end) {
            (Some(start), Some(end)) => {
                info.offset = start;
                needed = end.max(needed);
                if end > file_len && truncated.is_none_or(|(_, first)| start < first) {
                    truncated = Some((&info.name, start));
                }
            }
            _ => {
                let allowed = "offsets that a file can have";
                return Err(value_error(path, &what, info.offset, allowed));
            }
        }
    }
    let truncated = truncated.map(|(name, _)| {
        let what = format!("tensor {name}, after {file_len} of {needed} bytes");
        GgufError::Truncated { path: path.into(), what }
    });
    let mut by_offset: Vec<&TensorInfo> = infos.iter().collect();
    by_offset.sort_by_key(|info| info.offset);
    for pair in by_offset.windows(2) {
        let end = pair[0].offset + pair[0].len;
        if pair[1].offset < end {
            let what = format!("the offset of tensor {}", pair[1].name);
            let allowed = format!("{end} on, where tensor {} ends", pair[0].name);
            return Err(value_error(path, &what, pair[1].offset, allowed));
        }
    }
    Ok(truncated)
}

/// Reads numbers and strings from the front of the remaining bytes.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
    /// Offset of the value of [`HEADER_CHECKSUM_KEY`].
    checksum: Option<usize>,
}

impl<'a> Cursor<'a> {
    /// Reads everything before the tensor infos: the number of tensors, and the metadata.
    fn start(&mut self) -> Result<(usize, Metadata), GgufError> {
        if self.take(4, "the magic number")? != MAGIC {
            return Err(GgufError::Magic { path: self.path.into() });
        }
        let version = self.u32("the version")?;
        if version != VERSION && version != 2 {
            return Err(GgufError::Version { path: self.path.into(), found: version });
        }
        // the smallest tensor info is 8 (name) + 4 (dims) + 8 (one dim) + 4 (type) + 8 (offset)
        // bytes
        let tensors = self.count("the number of tensors", limits::TENSORS, 32)?;
        let entries = self.count("the number of metadata entries", limits::METADATA_ENTRIES, 13)?;
        Ok((tensors, self.metadata(entries)?))
    }

    fn take(&mut self, len: usize, what: impl Display + Copy) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..len) else {
            return Err(GgufError::Truncated { path: self.path.into(), what: what.to_string() });
        };
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: impl Display + Copy) -> Result<[u8; N], GgufError> {
        let bytes = self.take(N, what)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    fn u32(&mut self, what: impl Display + Copy) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: impl Display + Copy) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Reads the count of items that take at least `each` bytes, and checks that as many bytes
    /// remain.
    fn count(
        &mut self,
        what: impl Display + Copy,
        limit: u64,
        each: u64,
    ) -> Result<usize, GgufError> {
        let count = self.u64(what)?;
        if count > limit {
            return Err(value_error(self.path, &what, count, format!("at most {limit}")));
        }
        let left = (self.bytes.len() - self.at) as u64;
        if count.checked_mul(each).is_none_or(|needed| needed > left) {
            let what = format!("what {what} announces ({count})");
            return Err(GgufError::Truncated { path: self.path.into(), what });
        }
        Ok(count as usize)
    }

    fn string(&mut self, what: impl Display + Copy, limit: u64) -> Result<String, GgufError> {
        let len = self.count(format_args!("the length of {what}"), limit, 1)?;
        let bytes = self.take(len, what)?;
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|error| {
            // The message shows only the bytes around the error: the string may be as long as the
            // file.
            let around = &bytes[error.valid_up_to()..];
            let excerpt = String::from_utf8_lossy(&around[..around.len().min(32)]);
            value_error(self.path, &what, excerpt, "UTF-8")
        })?;
        Ok(text.to_string())
    }

    /// Reads a metadata string. Invalid UTF-8 becomes U+FFFD: published files have names and tokens
    /// with such bytes.
    fn text(&mut self, what: impl Display + Copy) -> Result<String, GgufError> {
        let len = self.count(format_args!("the length of {what}"), limits::STRING_BYTES, 1)?;
        Ok(String::from_utf8_lossy(self.take(len, what)?).into_owned())
    }

    fn metadata(&mut self, entries: usize) -> Result<Metadata, GgufError> {
        let mut metadata = Metadata::new();
        let mut seen = HashSet::new();
        for i in 0..entries {
            let what = format!("the key of metadata entry {i}");
            let key = self.string(&what, limits::NAME_BYTES)?;
            if !seen.insert(key.clone()) {
                return Err(value_error(self.path, &what, key, "keys that occur once"));
            }
            let ty = self.u32(format_args!("the type of {key}"))?;
            if key == HEADER_CHECKSUM_KEY && ty == 4 {
                self.checksum = Some(self.at);
            }
            let value = self.value(&key, ty)?;
            metadata.insert(key, value);
        }
        Ok(metadata)
    }

    fn value(&mut self, key: &str, ty: u32) -> Result<Value, GgufError> {
        Ok(match ty {
            0 => Value::U8(u8::from_le_bytes(self.array(key)?)),
            1 => Value::I8(i8::from_le_bytes(self.array(key)?)),
            2 => Value::U16(u16::from_le_bytes(self.array(key)?)),
            3 => Value::I16(i16::from_le_bytes(self.array(key)?)),
            4 => Value::U32(u32::from_le_bytes(self.array(key)?)),
            5 => Value::I32(i32::from_le_bytes(self.array(key)?)),
            6 => Value::F32(f32::from_le_bytes(self.array(key)?)),
            7 => Value::Bool(self.bool(key)?),
            8 => Value::String(self.text(key)?),
            9 => {
                let ty = self.u32(format_args!("the element type of {key}"))?;
                Value::Array(self.elements(key, ty, limits::ARRAY_DEPTH)?)
            }
            10 => Value::U64(u64::from_le_bytes(self.array(key)?)),
            11 => Value::I64(i64::from_le_bytes(self.array(key)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(key)?)),
            other => return Err(self.type_error(key, other)),
        })
    }

    fn type_error(&self, key: &str, found: u32) -> GgufError {
        value_error(self.path, &format!("the type of {key}"), found, "0 to 12")
    }

    fn bool(&mut self, key: &str) -> Result<bool, GgufError> {
        match self.array::<1>(key)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(value_error(self.path, &key, other, "0 or 1, for a bool")),
        }
    }

    /// Reads elements of a fixed size.
    fn fixed<const N: usize, T>(
        &mut self,
        key: &str,
        from: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, GgufError> {
        let what = format!("the length of {key}");
        let len = self.count(&what, limits::ARRAY_ELEMENTS, N as u64)?;
        Ok(self.take(len * N, key)?.as_chunks::<N>().0.iter().map(|x| from(*x)).collect())
    }

    fn elements(&mut self, key: &str, ty: u32, depth: u32) -> Result<Array, GgufError> {
        Ok(match ty {
            0 => Array::U8(self.fixed(key, u8::from_le_bytes)?),
            1 => Array::I8(self.fixed(key, i8::from_le_bytes)?),
            2 => Array::U16(self.fixed(key, u16::from_le_bytes)?),
            3 => Array::I16(self.fixed(key, i16::from_le_bytes)?),
            4 => Array::U32(self.fixed(key, u32::from_le_bytes)?),
            5 => Array::I32(self.fixed(key, i32::from_le_bytes)?),
            6 => Array::F32(self.fixed(key, f32::from_le_bytes)?),
            7 => {
                let what = format!("the length of {key}");
                let len = self.count(&what, limits::ARRAY_ELEMENTS, 1)?;
                Array::Bool((0..len).map(|_| self.bool(key)).collect::<Result<_, _>>()?)
            }
            8 => {
                let what = format!("the length of {key}");
                let len = self.count(&what, limits::ARRAY_ELEMENTS, 8)?;
                let mut strings = Vec::with_capacity(len);
                for i in 0..len {
                    strings.push(self.text(format_args!("{key}[{i}]"))?);
                }
                Array::String(strings)
            }
            9 if depth == 0 => {
                let allowed = format!("at most {}", limits::ARRAY_DEPTH);
                let what = format!("the depth of {key}");
                return Err(value_error(self.path, &what, "deeper", allowed));
            }
            9 => {
                let what = format!("the length of {key}");
                let len = self.count(&what, limits::ARRAY_ELEMENTS, 12)?;
                let mut arrays = Vec::new();
                for _ in 0..len {
                    let ty = self.u32(format_args!("the element type of {key}"))?;
                    arrays.push(self.elements(key, ty, depth - 1)?);
                }
                Array::Array(arrays)
            }
            10 => Array::U64(self.fixed(key, u64::from_le_bytes)?),
            11 => Array::I64(self.fixed(key, i64::from_le_bytes)?),
            12 => Array::F64(self.fixed(key, f64::from_le_bytes)?),
            other => return Err(self.type_error(key, other)),
        })
    }

    fn tensor_info(&mut self, i: usize) -> Result<TensorInfo, GgufError> {
        let name = self.string(format_args!("the name of tensor {i}"), limits::NAME_BYTES)?;
        let what = format!("the number of dimensions of tensor {name}");
        let n = self.u32(&what)?;
        if !(1..=limits::DIMENSIONS).contains(&n) {
            let allowed = format!("1 to {}", limits::DIMENSIONS);
            return Err(value_error(self.path, &what, n, allowed));
        }
        let mut dims = Vec::with_capacity(n as usize);
        for _ in 0..n {
            dims.push(self.u64(format_args!("the extents of tensor {name}"))?);
        }
        let ty = GgmlType(self.u32(format_args!("the type of tensor {name}"))?);
        let offset = self.u64(format_args!("the offset of tensor {name}"))?;
        if !ty.is_known() {
            let what = format!("the type of tensor {name}");
            let found = match ty.ik_name() {
                Some(name) => format!("{}, {name} of ik_llama.cpp alone", ty.0),
                None => ty.0.to_string(),
            };
            let allowed = format!("{KNOWN}; take a file that mainline llama.cpp reads");
            return Err(value_error(self.path, &what, found, allowed));
        }
        let len = ty.byte_len(&dims).filter(|_| !dims.contains(&0)).ok_or_else(|| {
            let per_block = ty.block_weights().unwrap_or(1);
            let allowed =
                format!("extents from 1 on, rows of a multiple of {per_block} for {}", ty.name());
            let what = format!("the shape of tensor {name}");
            value_error(self.path, &what, format!("{dims:?}"), allowed)
        })?;
        Ok(TensorInfo { name, dims, ty, offset, len, part: 0 })
    }
}
