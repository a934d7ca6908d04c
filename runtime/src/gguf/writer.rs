//! Writes a file in one pass: first the header, from a plan of all tensors, then the data of each
//! tensor in that order.

use std::collections::HashMap;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::reader::alignment;
use super::value::{Array, Metadata, Value};
use super::{GgmlType, GgufError, HEADER_CHECKSUM_KEY, MAGIC, VERSION};

/// Name, shape and type of a tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    /// Name.
    pub name: String,
    /// Dimensions, fastest first.
    pub dims: Vec<u64>,
    /// Type.
    pub ty: GgmlType,
}

/// Writes one file.
pub struct GgufWriter<W> {
    out: W,
    path: PathBuf,
    /// Number of bytes written.
    at: u64,
    alignment: u64,
    plan: Vec<TensorPlan>,
    written: usize,
    /// Number of bytes written of the next tensor.
    begun: u64,
    /// Offset and number of the elements of metadata arrays of u32.
    arrays: HashMap<String, (u64, usize)>,
    /// Offset of the header's checksum, and the header, which it covers.
    checksum: Option<(usize, Vec<u8>)>,
}

impl<W: Write + Seek> GgufWriter<W> {
    /// Writes the header. `path` is used only in errors.
    pub fn new(
        out: W,
        path: &Path,
        metadata: &Metadata,
        plan: Vec<TensorPlan>,
    ) -> Result<Self, GgufError> {
        let alignment = alignment(metadata, path)?;
        let mut header = Header { bytes: Vec::new(), arrays: HashMap::new(), checksum: None };
        header.bytes.extend(MAGIC);
        header.bytes.extend(VERSION.to_le_bytes());
        header.bytes.extend((plan.len() as u64).to_le_bytes());
        header.bytes.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata.iter() {
            header.entry(key, value);
        }
        let mut offset = 0u64;
        for tensor in &plan {
            let overflow = || GgufError::Value {
                path: path.into(),
                what: format!("the shape of tensor {}", tensor.name),
                found: format!("{:?}", tensor.dims),
                allowed: format!("what {} can hold", tensor.ty.name()),
            };
            let len = tensor.ty.byte_len(&tensor.dims).ok_or_else(overflow)?;
            header.tensor(tensor, offset);
            let end =
                offset.checked_add(len).and_then(|end| end.checked_next_multiple_of(alignment));
            offset = end.ok_or_else(overflow)?;
        }
        let Header { bytes, arrays, checksum } = header;
        let mut writer = Self {
            out,
            path: path.to_path_buf(),
            at: 0,
            alignment,
            plan,
            written: 0,
            begun: 0,
            arrays,
            checksum: None,
        };
        writer.write(&bytes)?;
        writer.pad()?;
        writer.checksum = checksum.map(|at| (at, bytes));
        Ok(writer)
    }

    /// Writes the data of the next tensor.
    pub fn write_tensor(&mut self, name: &str, bytes: &[u8]) -> Result<(), GgufError> {
        let len = self.next_len(name)?;
        if self.begun > 0 || len != bytes.len() as u64 {
            return Err(self.length(name, self.begun + bytes.len() as u64, len));
        }
        self.write_part(name, bytes)
    }

    /// Appends to the data of the next tensor, for tensors that are too large to hold in memory.
    pub fn write_part(&mut self, name: &str, bytes: &[u8]) -> Result<(), GgufError> {
        let len = self.next_len(name)?;
        let end = self.begun + bytes.len() as u64;
        if end > len {
            return Err(self.length(name, end, len));
        }
        self.write(bytes)?;
        self.begun = end;
        if end == len {
            self.pad()?;
            (self.written, self.begun) = (self.written + 1, 0);
        }
        Ok(())
    }

    /// Length of the next tensor, whose name must be `name`.
    fn next_len(&self, name: &str) -> Result<u64, GgufError> {
        let next = self.plan.get(self.written).filter(|next| next.name == name);
        let expected = self.plan.get(self.written).map_or("the end", |tensor| &tensor.name);
        let len = next.and_then(|tensor| tensor.ty.byte_len(&tensor.dims));
        len.ok_or_else(|| self.order(name, expected.to_string()))
    }

    fn length(&self, name: &str, found: u64, allowed: u64) -> GgufError {
        GgufError::Value {
            path: self.path.clone(),
            what: format!("the number of bytes of tensor {name}"),
            found: found.to_string(),
            allowed: allowed.to_string(),
        }
    }

    /// Skips the first `count` tensors, which an earlier run has written.
    pub fn skip(&mut self, count: usize) -> Result<(), GgufError> {
        for tensor in self.plan.iter().take(count) {
            // The plan was checked when the header was made.
            let len = tensor.ty.byte_len(&tensor.dims).unwrap_or(0);
            self.at = (self.at + len).next_multiple_of(self.alignment);
        }
        self.written = count;
        self.out.seek(SeekFrom::Start(self.at)).map(drop).map_err(|source| self.io(source))
    }

    /// Flushes all data to the file and returns it.
    pub fn flushed(&mut self) -> Result<&W, GgufError> {
        self.out.flush().map_err(|source| self.io(source))?;
        Ok(&self.out)
    }

    /// Overwrites the elements of a metadata array of u32 with values that are known only after the
    /// tensors.
    pub fn patch_u32_array(&mut self, key: &str, values: &[u32]) -> Result<(), GgufError> {
        let place = self.arrays.get(key).copied();
        let Some((at, _)) = place.filter(|(_, len)| *len == values.len()) else {
            return Err(GgufError::Value {
                path: self.path.clone(),
                what: format!("the length of {key}"),
                found: values.len().to_string(),
                allowed: place.map_or("no such array".into(), |(_, len)| len.to_string()),
            });
        };
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        if let Some((_, header)) = &mut self.checksum {
            header[at as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        self.patch(at, &bytes)
    }

    /// Overwrites bytes of the header.
    fn patch(&mut self, at: u64, bytes: &[u8]) -> Result<(), GgufError> {
        let patched = (|| {
            self.out.seek(SeekFrom::Start(at))?;
            self.out.write_all(bytes)?;
            self.out.seek(SeekFrom::Start(self.at))
        })();
        patched.map(drop).map_err(|source| self.io(source))
    }

    /// Completes the file after the last tensor: writes the header's checksum, if it has one, and
    /// flushes.
    pub fn finish(mut self) -> Result<W, GgufError> {
        if let Some(missing) = self.plan.get(self.written) {
            return Err(self.order("the end", missing.name.clone()));
        }
        if let Some((at, header)) = self.checksum.take() {
            self.patch(at as u64, &crc32fast::hash(&header).to_le_bytes())?;
        }
        self.out.flush().map_err(|source| self.io(source))?;
        Ok(self.out)
    }

    fn order(&self, found: &str, expected: String) -> GgufError {
        GgufError::Order { path: self.path.clone(), found: found.into(), expected }
    }

    fn io(&self, source: io::Error) -> GgufError {
        GgufError::Io { path: self.path.clone(), source }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        self.out.write_all(bytes).map_err(|source| self.io(source))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> Result<(), GgufError> {
        let padding = self.at.next_multiple_of(self.alignment) - self.at;
        self.write(&vec![0; padding as usize])
    }
}

/// A header in memory.
struct Header {
    bytes: Vec<u8>,
    arrays: HashMap<String, (u64, usize)>,
    /// Offset of the checksum, which is zero until all else is known.
    checksum: Option<usize>,
}

impl Header {
    fn string(&mut self, text: &str) {
        self.bytes.extend((text.len() as u64).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn tensor(&mut self, tensor: &TensorPlan, offset: u64) {
        self.string(&tensor.name);
        self.bytes.extend((tensor.dims.len() as u32).to_le_bytes());
        self.bytes.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
        self.bytes.extend(tensor.ty.0.to_le_bytes());
        self.bytes.extend(offset.to_le_bytes());
    }

    fn entry(&mut self, key: &str, value: &Value) {
        self.string(key);
        let mut tagged = |ty: u32, bytes: &[u8]| {
            self.bytes.extend(ty.to_le_bytes());
            self.bytes.extend(bytes);
        };
        match value {
            Value::U8(x) => tagged(0, &x.to_le_bytes()),
            Value::I8(x) => tagged(1, &x.to_le_bytes()),
            Value::U16(x) => tagged(2, &x.to_le_bytes()),
            Value::I16(x) => tagged(3, &x.to_le_bytes()),
            Value::U32(_) if key == HEADER_CHECKSUM_KEY => {
                tagged(4, &[0; 4]);
                self.checksum = Some(self.bytes.len() - 4);
            }
            Value::U32(x) => tagged(4, &x.to_le_bytes()),
            Value::I32(x) => tagged(5, &x.to_le_bytes()),
            Value::F32(x) => tagged(6, &x.to_le_bytes()),
            Value::Bool(x) => tagged(7, &[u8::from(*x)]),
            Value::U64(x) => tagged(10, &x.to_le_bytes()),
            Value::I64(x) => tagged(11, &x.to_le_bytes()),
            Value::F64(x) => tagged(12, &x.to_le_bytes()),
            Value::String(x) => {
                tagged(8, &[]);
                self.string(x);
            }
            Value::Array(array) => {
                tagged(9, &[]);
                self.array(array);
                if let Array::U32(values) = array {
                    let at = self.bytes.len() - values.len() * 4;
                    self.arrays.insert(key.into(), (at as u64, values.len()));
                }
            }
        }
    }

    fn array(&mut self, array: &Array) {
        match array {
            Array::U8(x) => self.elements(0, x, |x| x.to_le_bytes()),
            Array::I8(x) => self.elements(1, x, |x| x.to_le_bytes()),
            Array::U16(x) => self.elements(2, x, |x| x.to_le_bytes()),
            Array::I16(x) => self.elements(3, x, |x| x.to_le_bytes()),
            Array::U32(x) => self.elements(4, x, |x| x.to_le_bytes()),
            Array::I32(x) => self.elements(5, x, |x| x.to_le_bytes()),
            Array::F32(x) => self.elements(6, x, |x| x.to_le_bytes()),
            Array::Bool(x) => self.elements(7, x, |x| [u8::from(x)]),
            Array::U64(x) => self.elements(10, x, |x| x.to_le_bytes()),
            Array::I64(x) => self.elements(11, x, |x| x.to_le_bytes()),
            Array::F64(x) => self.elements(12, x, |x| x.to_le_bytes()),
            Array::String(strings) => {
                self.elements(8, &[], |x: u8| [x]);
                self.set_last_count(strings.len());
                strings.iter().for_each(|text| self.string(text));
            }
            Array::Array(arrays) => {
                self.elements(9, &[], |x: u8| [x]);
                self.set_last_count(arrays.len());
                arrays.iter().for_each(|array| self.array(array));
            }
        }
    }

    /// Writes element type, count, and elements.
    fn elements<T: Copy, const N: usize>(&mut self, ty: u32, x: &[T], le: impl Fn(T) -> [u8; N]) {
        self.bytes.extend(ty.to_le_bytes());
        self.bytes.extend((x.len() as u64).to_le_bytes());
        self.bytes.extend(x.iter().flat_map(|x| le(*x)));
    }

    /// Corrects the count of elements that were appended one by one.
    fn set_last_count(&mut self, count: usize) {
        let at = self.bytes.len() - 8;
        self.bytes[at..].copy_from_slice(&(count as u64).to_le_bytes());
    }
}
