//! Runs texts through a model and writes the statistics of its matrices to a file, layer by layer.
//!
//! The partial file has a journal ([`vaquita_quantize::journal`]), and the hidden states after its
//! last layer are saved in a separate file, so that a killed or stopped run resumes at its current
//! layer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vaquita_quantize::container::Inventory;
use vaquita_quantize::journal::Journal;
use vaquita_quantize::partial::beside;
use vaquita_quantize::{Part, Stop};

use super::file::{CalibrationWriter, Shape};
use super::forward::{Calibrator, ForwardOptions, LayerwiseForward};
use super::parts::{Header, PartWriter};
use super::{CalibrationError, Coverage, ExactStatistics, LayerCoverage, Origin};
use crate::EvalError;

/// A calibration to be made.
pub struct Calibration<'a> {
    /// Model and texts, as recorded in the file.
    pub origin: &'a Origin,
    /// The documents.
    pub texts: &'a [String],
    /// Share of the documents, which makes the file a part for [`merge`](super::merge); all
    /// documents if `None`.
    pub part: Option<Part>,
    /// Output file. An existing one is replaced once the new one is complete.
    pub out: &'a Path,
    /// Request to stop after a layer.
    pub stop: &'a Stop,
}

/// Calibrates a model and writes the file, which appears once it is complete. Resumes an earlier
/// run of the same command that was killed.
pub fn calibrate(
    calibrator: Calibrator,
    job: &Calibration,
    options: ForwardOptions,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<Coverage, EvalError> {
    let inventory = Inventory::new(&*calibrator.weights).map_err(super::forward::in_model)?;
    let shape = Shape::of(&inventory, options.block);
    let mut forward = LayerwiseForward::of_part(calibrator, job.texts, job.part, options)?;
    let layers = forward.config().num_hidden_layers;
    let total = layers + usize::from(!forward.config().tie_word_embeddings);
    let part = job.part.unwrap_or(Part::WHOLE);
    let header = Header::new(part, job.origin, &shape, &forward.description(), [layers, total]);
    let in_out = |source| EvalError::from(CalibrationError::in_file(job.out, source));
    let fingerprint = header.fingerprint().map_err(in_out)?;
    let (mut journal, file, mut done) =
        Journal::<Done>::open(job.out, &fingerprint, total).map_err(in_out)?;
    let states = HiddenStatesFile { out: job.out };
    if let Some(last) = done.last() {
        let after = done.len().min(layers);
        let resumed = file.metadata().is_ok_and(|file| file.len() >= last.end)
            && forward.resume(after, &states.path(after).map_err(in_out)?, last.states).is_ok();
        if !resumed {
            journal.restart(&file, &fingerprint, total).map_err(in_out)?;
            done.clear();
        }
    }
    states.keep_only(done.len().min(layers)).map_err(in_out)?;
    let made = (|| {
        let end = done.last().map(|last| last.end);
        let mut sink = match job.part {
            None => Sink::Whole(CalibrationWriter::new(file, job.out, job.origin, &shape)?),
            Some(_) => Sink::Part(PartWriter::new(file, job.out, header, end)?),
        };
        while done.len() < total {
            if job.stop.is_requested() {
                return Err(CalibrationError::Stopped { path: job.out.into() }.into());
            }
            let found = match forward.next() {
                Some(_) => forward.layer(on_progress)?,
                None => forward.output()?,
            };
            let (step, coverage) = (done.len(), found.coverage().layers);
            let end = sink.write(step, found)?;
            let states = match step < layers {
                true => states.save(&mut forward, step + 1)?,
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
    /// Length of the file after the step, in bytes.
    end: u64,
    /// CRC-32 of the hidden states after the step.
    states: u32,
    /// Coverage of the layer, if it has experts.
    coverage: Vec<LayerCoverage>,
}

/// The output: a calibration file, or a part.
enum Sink {
    Whole(CalibrationWriter),
    Part(PartWriter),
}

impl Sink {
    /// Writes a step durably and returns the length of the file.
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

/// File with the hidden states after a layer: `.a.calibration.states-3`.
struct HiddenStatesFile<'a> {
    out: &'a Path,
}

impl HiddenStatesFile<'_> {
    fn path(&self, layers: usize) -> io::Result<PathBuf> {
        beside(self.out, &format!("states-{layers}"))
    }

    /// Saves the hidden states after that many layers. The previous file is removed once the
    /// journal has the step.
    fn save(&self, forward: &mut LayerwiseForward, layers: usize) -> Result<u32, EvalError> {
        let saved = self.path(layers).and_then(|path| {
            let checksum = forward.save(&path)?;
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

    /// Removes the files of killed runs of this output, except the one after that many layers.
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
