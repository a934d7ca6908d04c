//! Reads a part, sum by sum.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use vaquita_quantize::Part;
use vaquita_quantize::hessian::Hessian;
use vaquita_runtime::bytes::file;

use super::{CalibrationError, Header, MAGIC, MAX_HEADER, packed};
use crate::statistics::file::MAX_BLOCK;
use crate::statistics::{ExactExpert, ExactMoments};

/// An open part.
pub(super) struct PartReader {
    pub path: PathBuf,
    pub header: Header,
    input: BufReader<File>,
    hasher: crc32fast::Hasher,
}

impl PartReader {
    /// Opens a part and checks its header.
    pub fn open(path: &Path) -> Result<Self, CalibrationError> {
        let io = |source| CalibrationError::Io { path: path.into(), source };
        let content = |found: &str| damaged(path, found);
        let file = file::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let mut input = BufReader::with_capacity(1 << 20, file);
        let mut head = [0; 20];
        let whole = input.read_exact(&mut head);
        if whole.is_err() || head[..8] != MAGIC[..] {
            return Err(CalibrationError::NotAPart { path: path.into() });
        }
        let size = u64::from_le_bytes(std::array::from_fn(|at| head[8 + at]));
        let checksum = u32::from_le_bytes(std::array::from_fn(|at| head[16 + at]));
        if size > MAX_HEADER.min(len) {
            return Err(content("its header is longer than the file"));
        }
        let mut json = vec![0; size as usize];
        input.read_exact(&mut json).map_err(|_| content("it ends in its header"))?;
        if crc32fast::hash(&json) != checksum {
            return Err(content("its header does not match its checksum"));
        }
        let header: Header =
            serde_json::from_slice(&json).map_err(|error| content(&error.to_string()))?;
        if Part::new(header.number, header.count).is_none() {
            let found = format!("it says that it is part {} of {}", header.number, header.count);
            return Err(content(&found));
        }
        let fits = header.sums().is_some_and(|sums| sums <= len);
        if header.block.is_some_and(|block| !(1..=MAX_BLOCK).contains(&block)) || !fits {
            return Err(content("it is too short for the sums that its header names"));
        }
        let path = path.to_path_buf();
        Ok(Self { path, header, input, hasher: crc32fast::Hasher::new() })
    }

    /// The sums of one matrix with `cols` inputs.
    pub fn moments(&mut self, cols: usize) -> Result<ExactMoments, CalibrationError> {
        let block = self.header.block;
        let weight = self.sums(1)?.first().copied().unwrap_or(0);
        let squares = self.sums(cols)?;
        let products = match block {
            Some(block) => self.sums(Hessian::packed_len(cols, block))?,
            None => Vec::new(),
        };
        if weight < 0 || squares.iter().any(|sum| *sum < 0) {
            return Err(damaged(&self.path, "a sum of squares is below 0"));
        }
        Ok(ExactMoments { weight, squares, products })
    }

    /// The sums of one expert.
    pub fn expert(&mut self, input: usize, hidden: usize) -> Result<ExactExpert, CalibrationError> {
        let head = self.sums(2)?;
        let tokens = u64::try_from(head[0]).map_err(|_| damaged(&self.path, "its tokens are"))?;
        let (input, hidden) = (self.moments(input)?, self.moments(hidden)?);
        Ok(ExactExpert { tokens, mass: head[1], input, hidden })
    }

    /// Verifies the checksum at the end of a record.
    pub fn end_of_record(&mut self) -> Result<(), CalibrationError> {
        let found = std::mem::take(&mut self.hasher).finalize();
        let mut stored = [0; 4];
        self.input.read_exact(&mut stored).map_err(|_| damaged(&self.path, "it ends too early"))?;
        match u32::from_le_bytes(stored) == found {
            true => Ok(()),
            false => Err(damaged(&self.path, "a layer does not match its checksum")),
        }
    }

    fn sums(&mut self, count: usize) -> Result<Vec<i128>, CalibrationError> {
        let mut input = Checked { input: &mut self.input, hasher: &mut self.hasher };
        packed::read(&mut input, count).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => damaged(&self.path, "it ends too early"),
            io::ErrorKind::InvalidData => damaged(&self.path, "a run of sums has no such width"),
            _ => CalibrationError::Io { path: self.path.clone(), source },
        })
    }
}

fn damaged(path: &Path, found: &str) -> CalibrationError {
    CalibrationError::DamagedPart { path: path.into(), found: found.into() }
}

/// Computes a checksum of the data read.
struct Checked<'a, R> {
    input: &'a mut R,
    hasher: &'a mut crc32fast::Hasher,
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(bytes)?;
        self.hasher.update(&bytes[..read]);
        Ok(read)
    }
}
