//! Merges parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vaquita_quantize::partial::PartialFile;

use super::reader::PartReader;
use super::{CalibrationError, Header, Step};
use crate::statistics::file::CalibrationWriter;
use crate::statistics::{Coverage, ExactExpert, ExactMoments, OutOfRange, Statistics};

/// Merges all parts of a calibration, given in any order, to a calibration file. The exact sums of
/// one matrix and the rounded ones of one layer are in memory at a time. The file appears under its
/// name once it is complete.
pub fn merge(
    paths: &[PathBuf],
    out: &Path,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<Coverage, CalibrationError> {
    let canonical = |path: &Path| path.canonicalize().ok();
    if paths.iter().any(|path| canonical(path).is_some() && canonical(path) == canonical(out)) {
        return Err(CalibrationError::OverPart { out: out.into() });
    }
    let mut parts = ordered(paths)?;
    let Some(header) = parts.first().map(|part| part.header.clone()) else {
        return Err(CalibrationError::MissingParts { count: 1, missing: "1".into() });
    };
    let io = |source| CalibrationError::in_file(out, source);
    let (partial, file) = PartialFile::create(out).map_err(io)?;
    let mut file = CalibrationWriter::new(file, out, &header.origin(), &header.shape())?;
    let mut coverage = Coverage::default();
    for (at, step) in header.steps.iter().enumerate() {
        on_progress(at, header.steps.len());
        let found = add_up(&mut parts, step, header.block)?;
        coverage.layers.extend(found.coverage().layers);
        file.write(&found)?;
    }
    on_progress(header.steps.len(), header.steps.len());
    file.finish()?;
    partial.keep().map_err(io)?;
    Ok(coverage)
}

/// Sums of a step over all parts.
fn add_up(
    parts: &mut [PartReader],
    step: &Step,
    block: Option<usize>,
) -> Result<Statistics, CalibrationError> {
    let mut found = Statistics::default();
    for (name, cols) in &step.matrices {
        let mut sum = ExactMoments::default();
        for part in &mut *parts {
            sum.merge(&part.moments(*cols)?).map_err(|source| beyond(name, source))?;
        }
        found.matrices.insert(name.clone(), sum.moments(block));
    }
    if let Some(shape) = step.experts {
        let mut experts = Vec::with_capacity(shape.count);
        for at in 0..shape.count {
            let mut sum = ExactExpert::default();
            for part in &mut *parts {
                let expert = part.expert(shape.input, shape.hidden)?;
                let name = || format!("blk.{}.ffn_expert.{at}", shape.layer);
                sum.merge(&expert).map_err(|source| beyond(&name(), source))?;
            }
            experts.push(sum.moments(block));
        }
        found.experts.insert(shape.layer, experts);
    }
    parts.iter_mut().try_for_each(PartReader::end_of_record)?;
    Ok(found)
}

fn beyond(name: &str, source: OutOfRange) -> CalibrationError {
    CalibrationError::OutOfRange { name: name.into(), source }
}

/// Opens parts and sorts them; checks that all belong to one calibration and each occurs once.
fn ordered(paths: &[PathBuf]) -> Result<Vec<PartReader>, CalibrationError> {
    let mut parts: BTreeMap<usize, PartReader> = BTreeMap::new();
    let mut first: Option<(PathBuf, Header)> = None;
    for path in paths {
        let part = PartReader::open(path)?;
        let (first, header) = first.get_or_insert_with(|| (path.clone(), part.header.clone()));
        if (Header { number: header.number, ..part.header.clone() }) != *header {
            let (path, first) = (path.clone(), first.clone());
            return Err(CalibrationError::ForeignPart { path, first });
        }
        let number = part.header.number;
        if let Some(other) = parts.get(&number) {
            let (path, other) = (path.clone(), other.path.clone());
            return Err(CalibrationError::DoubledPart { path, other, number });
        }
        parts.insert(number, part);
    }
    let count = first.map_or(1, |(_, header)| header.count);
    let missing = (1..=count).filter(|number| !parts.contains_key(number));
    let missing: Vec<String> = missing.map(|number| number.to_string()).collect();
    match missing.is_empty() {
        true => Ok(parts.into_values().collect()),
        false => Err(CalibrationError::MissingParts { count, missing: missing.join(", ") }),
    }
}
