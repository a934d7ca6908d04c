//! Writes a calibration file in the order in which statistics are computed.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use vaquita_quantize::hessian::Hessian;

use super::{CalibrationError, FORMAT, Origin, PARTS, Shape, VERSION};
use crate::statistics::{ExpertMoments, Moments, Statistics};

/// A partial file.
pub struct CalibrationWriter {
    path: PathBuf,
    out: BufWriter<File>,
    shape: Shape,
    /// Offset of each tensor.
    places: HashMap<String, u64>,
}

/// Name and value of an eight-byte number.
type Eight = (&'static str, fn(&ExpertMoments) -> [u8; 8]);

/// A tensor of the header.
struct Planned {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
}

impl CalibrationWriter {
    /// Writes the header of the future `path` to a file. Tensors that are never written read as
    /// zeros, which means no tokens. Data written to the same file earlier is kept.
    pub fn new(
        mut file: File,
        path: &Path,
        origin: &Origin,
        shape: &Shape,
    ) -> Result<Self, CalibrationError> {
        let io = |source| CalibrationError::in_file(path, source);
        let mut metadata = BTreeMap::from([
            ("format", FORMAT.to_string()),
            ("version", VERSION.into()),
            ("source", origin.source.clone()),
            ("text", origin.text.clone()),
            ("documents", origin.documents.to_string()),
        ]);
        if let Some(block) = shape.block {
            metadata.insert("block", block.to_string());
        }
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), json!(metadata));
        let mut places = HashMap::new();
        let mut end = 0u64;
        for Planned { name, dtype, shape } in planned(shape) {
            let width = if dtype == "F32" { 4 } else { 8 };
            let begin = end;
            end += shape.iter().map(|n| *n as u64).product::<u64>() * width;
            let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, end] });
            header.insert(name.clone(), entry);
            places.insert(name, begin);
        }
        let mut header = serde_json::Value::Object(header).to_string();
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let start = 8 + header.len() as u64;
        places.values_mut().for_each(|place| *place += start);

        file.rewind().map_err(io)?;
        file.set_len(start + end).map_err(io)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
        out.write_all(header.as_bytes()).map_err(io)?;
        Ok(Self { path: path.into(), out, shape: shape.clone(), places })
    }

    /// Writes the statistics of some matrices and layers.
    pub fn write(&mut self, found: &Statistics) -> Result<(), CalibrationError> {
        for (name, moments) in &found.matrices {
            let cols = self.shape.matrices.iter().find(|(known, _)| known == name);
            let cols = cols.map(|(_, cols)| *cols).ok_or_else(|| self.unfit(name))?;
            self.tensor(&format!("matrix.{name}"))?;
            self.squares(name, moments, cols)?;
            if self.shape.block.is_some() {
                self.tensor(&format!("products.{name}"))?;
                self.products(name, moments, cols)?;
            }
        }
        for (layer, experts) in &found.experts {
            let shape = self.shape.layers.iter().find(|one| one.layer == *layer).copied();
            let shape = shape.filter(|shape| shape.experts == experts.len());
            let shape = shape.ok_or_else(|| self.unfit(&format!("layer {layer}")))?;
            let eights: [Eight; 3] = [
                ("tokens", |one| one.tokens.to_le_bytes()),
                ("mass", |one| one.mass.to_le_bytes()),
                ("weight", |one| one.input.weight.to_le_bytes()),
            ];
            for (name, number) in eights {
                self.tensor(&format!("layer.{layer}.{name}"))?;
                for expert in experts {
                    self.bytes(&number(expert))?;
                }
            }
            for ((name, part), cols) in PARTS.into_iter().zip([shape.input, shape.hidden]) {
                let name = format!("layer.{layer}.{name}");
                self.tensor(&name)?;
                for expert in experts {
                    self.squares(&name, part(expert), cols)?;
                }
                if self.shape.block.is_some() {
                    self.tensor(&format!("{name}_products"))?;
                    for expert in experts {
                        self.products(&name, part(expert), cols)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the data written so far durable and returns the length of the file.
    pub fn sync(&mut self) -> Result<u64, CalibrationError> {
        let synced = self.out.flush().and_then(|()| {
            self.out.get_ref().sync_data()?;
            Ok(self.out.get_ref().metadata()?.len())
        });
        synced.map_err(|source| CalibrationError::in_file(&self.path, source))
    }

    /// Makes the file durable.
    pub fn finish(self) -> Result<(), CalibrationError> {
        let Self { path, out, .. } = self;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error);
        let synced = file.and_then(|file| file.sync_all());
        synced.map_err(|source| CalibrationError::in_file(&path, source))
    }

    /// Mean squares of `cols` inputs; zeros without tokens.
    fn squares(
        &mut self,
        name: &str,
        moments: &Moments,
        cols: usize,
    ) -> Result<(), CalibrationError> {
        self.numbers(name, moments.mean_squares(), cols)
    }

    /// Mean products of `cols` inputs; zeros without tokens.
    fn products(
        &mut self,
        name: &str,
        moments: &Moments,
        cols: usize,
    ) -> Result<(), CalibrationError> {
        let entries = Hessian::packed_len(cols, self.shape.block.unwrap_or(1));
        self.numbers(name, moments.mean_products(), entries)
    }

    fn numbers(
        &mut self,
        name: &str,
        numbers: impl Iterator<Item = f32>,
        count: usize,
    ) -> Result<(), CalibrationError> {
        let mut written = 0;
        for number in numbers {
            self.bytes(&number.to_le_bytes())?;
            written += 1;
        }
        if written == 0 {
            return self.bytes(&vec![0; count * 4]);
        }
        if written == count { Ok(()) } else { Err(self.unfit(name)) }
    }

    /// Seeks to the start of a tensor.
    fn tensor(&mut self, name: &str) -> Result<(), CalibrationError> {
        let place = self.places.get(name).copied().ok_or_else(|| self.unfit(name))?;
        let moved = self.out.seek(SeekFrom::Start(place));
        moved.map(drop).map_err(|source| CalibrationError::in_file(&self.path, source))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), CalibrationError> {
        let written = self.out.write_all(bytes);
        written.map_err(|source| CalibrationError::in_file(&self.path, source))
    }

    fn unfit(&self, name: &str) -> CalibrationError {
        let found = format!("what was found of {name} does not fit the model");
        CalibrationError::Content { path: self.path.clone(), found }
    }
}

/// Tensors in file order: eight-byte numbers first, so that all are aligned.
fn planned(shape: &Shape) -> Vec<Planned> {
    let mut all = Vec::new();
    let mut add = |name: String, dtype, shape| all.push(Planned { name, dtype, shape });
    for one in &shape.layers {
        for (name, dtype) in [("tokens", "U64"), ("mass", "F64"), ("weight", "F64")] {
            add(format!("layer.{}.{name}", one.layer), dtype, vec![one.experts]);
        }
    }
    for (name, cols) in &shape.matrices {
        add(format!("matrix.{name}"), "F32", vec![*cols]);
        if let Some(block) = shape.block {
            add(format!("products.{name}"), "F32", vec![Hessian::packed_len(*cols, block)]);
        }
    }
    for one in &shape.layers {
        for (name, cols) in [("input", one.input), ("hidden", one.hidden)] {
            let name = format!("layer.{}.{name}", one.layer);
            add(name.clone(), "F32", vec![one.experts, cols]);
            if let Some(block) = shape.block {
                let entries = Hessian::packed_len(cols, block);
                add(format!("{name}_products"), "F32", vec![one.experts, entries]);
            }
        }
    }
    all
}
