//! Texts through a model, and what its matrices saw into a file, layer by layer.
//!
//! The file in the making has a journal beside it ([`vaquita_quantize::journal`]), and the hidden states after the last
//! layer that it has are in a file of their own, so that a run that was killed or stopped goes on at the layer that
//! it was in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vaquita_quantize::container::Inventory;
use vaquita_quantize::journal::Journal;
use vaquita_quantize::partial::beside;
use vaquita_quantize::{Part, Stop};

use super::file::{Shape, Writer};
use super::parts::{Header, PartWriter};
use super::walk::{Reader, Walk, WalkOptions};
use super::{CalibrationError, Coverage, ExactStatistics, LayerCoverage, Origin};
use crate::EvalError;

/// A calibration that is to be made.
pub struct Calibration<'a> {
    /// The model and the texts, as the file will name them.
    pub origin: &'a Origin,
    /// The documents.
    pub texts: &'a [String],
    /// The share of the documents, and then the file is a part for [`merge`](super::merge); all without.
    pub part: Option<Part>,
    /// The file to make. An existing one is replaced once the new one is whole.
    pub out: &'a Path,
    /// Ends the work after a layer.
    pub stop: &'a Stop,
}

/// Calibrates a model and writes the file, which appears when it is whole, going on where an earlier run of the same
/// command was killed.
pub fn calibrate(
    reader: Reader,
    job: &Calibration,
    options: WalkOptions,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<Coverage, EvalError> {
    let inventory = Inventory::new(&*reader.weights).map_err(super::walk::in_model)?;
    let shape = Shape::of(&inventory, options.block);
    let mut walk = Walk::of_part(reader, job.texts, job.part, options)?;
    let layers = walk.config().num_hidden_layers;
    let total = layers + usize::from(!walk.config().tie_word_embeddings);
    let part = job.part.unwrap_or(Part::WHOLE);
    let header = Header::new(part, job.origin, &shape, &walk.description(), [layers, total]);
    let in_out = |source| EvalError::from(CalibrationError::in_file(job.out, source));
    let fingerprint = header.fingerprint().map_err(in_out)?;
    let (mut journal, file, mut done) =
        Journal::<Done>::open(job.out, &fingerprint, total).map_err(in_out)?;
    let states = StatesFile { out: job.out };
    if let Some(last) = done.last() {
        let after = done.len().min(layers);
        let resumed = file.metadata().is_ok_and(|file| file.len() >= last.end)
            && walk.resume(after, &states.path(after).map_err(in_out)?, last.states).is_ok();
        if !resumed {
            journal.restart(&file, &fingerprint, total).map_err(in_out)?;
            done.clear();
        }
    }
    states.keep_only(done.len().min(layers)).map_err(in_out)?;
    let made = (|| {
        let end = done.last().map(|last| last.end);
        let mut sink = match job.part {
            None => Sink::Whole(Writer::new(file, job.out, job.origin, &shape)?),
            Some(_) => Sink::Part(PartWriter::new(file, job.out, header, end)?),
        };
        while done.len() < total {
            if job.stop.is_requested() {
                return Err(CalibrationError::Stopped { path: job.out.into() }.into());
            }
            let found = match walk.next() {
                Some(_) => walk.layer(on_progress)?,
                None => walk.output()?,
            };
            let (step, coverage) = (done.len(), found.coverage().layers);
            let end = sink.write(step, found)?;
            let states = match step < layers {
                true => states.save(&mut walk, step + 1)?,
                false => done.last().map_or(0, |last| last.states),
            };
            let entry = Done { end, states, coverage };
            journal.step(std::slice::from_ref(&entry)).map_err(in_out)?;
            done.push(entry);
        }
        sink.finish()
    })();
    match made {
        Ok(()) => {}
        Err(error) if !journal.is_empty() => return Err(error),
        Err(error) => {
            journal.discard();
            return Err(error);
        }
    }
    journal.keep().map_err(in_out)?;
    states.keep_only(0).map_err(in_out)?;
    Ok(Coverage { layers: done.into_iter().flat_map(|step| step.coverage).collect() })
}

/// A step that is on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    /// Bytes of the file that have been written.
    end: u64,
    /// CRC-32 of the hidden states after it.
    states: u32,
    /// The layer, where it has experts.
    coverage: Vec<LayerCoverage>,
}

/// What is written: the calibration file, or a part.
enum Sink {
    Whole(Writer),
    Part(PartWriter),
}

impl Sink {
    /// Writes a step durably, and gives the byte where the file ends.
    fn write(&mut self, step: usize, found: ExactStatistics) -> Result<u64, EvalError> {
        match self {
            Self::Whole(file) => {
                file.write(&found.into_statistics())?;
                Ok(file.sync()?)
            }
            Self::Part(file) => Ok(file.write(step, &found)?),
        }
    }

    fn finish(self) -> Result<(), EvalError> {
        match self {
            Self::Whole(file) => Ok(file.finish()?),
            Self::Part(file) => Ok(file.finish()?),
        }
    }
}

/// Where the hidden states after a layer are: `.a.calibration.states-3`.
struct StatesFile<'a> {
    out: &'a Path,
}

impl StatesFile<'_> {
    fn path(&self, layers: usize) -> io::Result<PathBuf> {
        beside(self.out, &format!("states-{layers}"))
    }

    /// Saves those after so many layers; those before go once the journal has the step.
    fn save(&self, walk: &mut Walk, layers: usize) -> Result<u32, EvalError> {
        let saved = self.path(layers).and_then(|path| {
            let checksum = walk.save(&path)?;
            self.remove(layers.saturating_sub(2))?;
            Ok(checksum)
        });
        saved.map_err(|source| CalibrationError::in_file(self.out, source).into())
    }

    fn remove(&self, layers: usize) -> io::Result<()> {
        match fs::remove_file(self.path(layers)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes all but those after so many layers: what runs of this output left that were killed.
    fn keep_only(&self, layers: usize) -> io::Result<()> {
        let start = self.path(0)?;
        let start = start.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let start = start.trim_end_matches('0');
        let folder = self.out.parent().filter(|folder| !folder.as_os_str().is_empty());
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix(start).and_then(|rest| rest.parse().ok());
            if let Some(number) = number.filter(|number| *number != layers || layers == 0) {
                self.remove(number)?;
            }
        }
        Ok(())
    }
}
