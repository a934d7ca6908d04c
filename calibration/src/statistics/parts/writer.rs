//! Writes a part, one record at a time.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use vaquita_quantize::hessian::Hessian;

use super::{CalibrationError, Header, MAGIC, Step, packed};
use crate::statistics::{ExactExpert, ExactMoments, ExactStatistics};

/// A partial part.
pub(in crate::statistics) struct PartWriter {
    path: PathBuf,
    out: BufWriter<File>,
    header: Header,
}

impl PartWriter {
    /// Writes the header of the future `path` to a file, or continues at byte `end`, where its last
    /// record ends.
    pub fn new(
        mut file: File,
        path: &Path,
        header: Header,
        end: Option<u64>,
    ) -> Result<Self, CalibrationError> {
        let begun = match end {
            Some(end) => file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map(drop),
            None => begin(&mut file, &header),
        };
        begun.map_err(|source| CalibrationError::in_file(path, source))?;
        let out = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { path: path.into(), out, header })
    }

    /// Writes the record of a step durably and returns the offset of its end.
    pub fn write(&mut self, step: usize, found: &ExactStatistics) -> Result<u64, CalibrationError> {
        let block = self.header.block;
        let step = self.header.steps.get(step).cloned().unwrap_or_default();
        let written = (|| {
            let mut out = Checked { out: &mut self.out, hasher: crc32fast::Hasher::new() };
            write_record(&mut out, &step, block, found)?;
            let checksum = out.hasher.finalize();
            self.out.write_all(&checksum.to_le_bytes())?;
            let end = self.out.stream_position()?;
            self.out.flush()?;
            self.out.get_ref().sync_data()?;
            Ok(end)
        })();
        written.map_err(|source| CalibrationError::in_file(&self.path, source))
    }

    /// Makes the file durable.
    pub fn finish(self) -> Result<(), CalibrationError> {
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error);
        let synced = file.and_then(|file| file.sync_all());
        synced.map_err(|source| CalibrationError::in_file(&self.path, source))
    }
}

fn begin(file: &mut File, header: &Header) -> io::Result<()> {
    let json = serde_json::to_vec(header)?;
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(MAGIC)?;
    file.write_all(&(json.len() as u64).to_le_bytes())?;
    file.write_all(&crc32fast::hash(&json).to_le_bytes())?;
    file.write_all(&json)
}

fn write_record(
    out: &mut impl Write,
    step: &Step,
    block: Option<usize>,
    found: &ExactStatistics,
) -> io::Result<()> {
    let nothing = ExactMoments::default();
    for (name, cols) in &step.matrices {
        moments(out, found.matrices.get(name).unwrap_or(&nothing), *cols, block)?;
    }
    let Some(shape) = step.experts else { return Ok(()) };
    let nobody = ExactExpert::default();
    let experts = found.experts.get(&shape.layer);
    for expert in 0..shape.count {
        let expert = experts.and_then(|all| all.get(expert)).unwrap_or(&nobody);
        packed::write(out, &[i128::from(expert.tokens), expert.mass])?;
        moments(out, &expert.input, shape.input, block)?;
        moments(out, &expert.hidden, shape.hidden, block)?;
    }
    Ok(())
}

fn moments(
    out: &mut impl Write,
    found: &ExactMoments,
    cols: usize,
    block: Option<usize>,
) -> io::Result<()> {
    packed::write(out, &[found.weight])?;
    sums(out, &found.squares, cols)?;
    match block {
        Some(block) => sums(out, &found.products, Hessian::packed_len(cols, block)),
        None => Ok(()),
    }
}

/// Writes `count` sums; zeros without tokens.
fn sums(out: &mut impl Write, found: &[i128], count: usize) -> io::Result<()> {
    match found.len() {
        0 => packed::write(out, &vec![0; count]),
        len if len == count => packed::write(out, found),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Computes a checksum of the data written.
struct Checked<'a, W> {
    out: &'a mut W,
    hasher: crc32fast::Hasher,
}

impl<W: Write> Write for Checked<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
