//! From a source to a file: encode, write, verify, rename.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;
use vaquita_runtime::blocks::{BlockType, Matrix};
use vaquita_runtime::bytes::file::is_full;
use vaquita_runtime::checkpoint::gguf_weights::record_layout;
use vaquita_runtime::checkpoint::{ExpertSpec, Projection, Weights, WeightsError};
use vaquita_runtime::gguf::{GgufError, GgufWriter, Metadata};

use crate::container::{CHECKSUMS_KEY, ContainerError, Inventory, Item, Layout};
use crate::encoders::{self, Distortion, EncodeError, Feedback, Guide};
use crate::error::QuantizeError;
use crate::importance::Importance;
use crate::journal::{Entry, Journal};
use crate::parts::Part;
use crate::plan::Plan;
use crate::progress::{Progress, Stage};
use crate::report::Report;
use crate::sources::Identity;
use crate::stop::Stop;
use crate::verify::verify;

/// Number of weights that are encoded together before they are written; bounds memory.
const WEIGHTS_AT_ONCE: u64 = 32 << 20;

/// A file to be made.
pub struct Job<'a> {
    /// Weights of the source.
    pub weights: &'a dyn Weights,
    /// Identity of the source.
    pub identity: &'a Identity,
    /// `tokenizer.*` metadata for the file, and `general.*` metadata of its origin.
    pub tokenizer: &'a Metadata,
    /// Importance of columns, if known.
    pub importance: Option<&'a dyn Importance>,
    /// Types of all matrices.
    pub plan: &'a Plan,
    /// Output file. An existing one is replaced once the new one is complete.
    pub out: &'a Path,
}

/// Writes the file, resuming an earlier run of the same job that was killed or found the disk full.
/// An existing file under that name stays until the new one is complete.
pub fn quantize(job: &Job, progress: &mut dyn FnMut(Progress)) -> Result<Report, QuantizeError> {
    quantize_until(job, None, &Stop::default(), progress)
}

/// Writes one part of the file, to be [joined](crate::parts::join) with the others; resumable in
/// the same way.
pub fn quantize_part(
    job: &Job,
    part: Part,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, QuantizeError> {
    quantize_until(job, Some(part), &Stop::default(), progress)
}

/// Writes the file or a part of it. If asked to stop, it ends after the current step with
/// [`QuantizeError::Stopped`], and the next run resumes from there.
pub fn quantize_until(
    job: &Job,
    part: Option<Part>,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, QuantizeError> {
    let start = Instant::now();
    refuse_source(job.out, job.identity)?;
    let inventory = Inventory::new(job.weights)?;
    let layout = Layout::new(&inventory, job.identity, job.tokenizer, job.plan)?;
    let layout = match part {
        Some(part) => layout.part(part)?,
        None => layout,
    };
    let (mut journal, file, done) = open(job, &layout)?;
    let written =
        write(job, &layout, &mut journal, file, done, stop, progress).and_then(|written| {
            let checksums: Vec<u32> =
                written.entries.iter().map(|entry| entry.checksum()).collect();
            verify(job.out, journal.partial(), &checksums, part.is_none(), progress)?;
            Ok(written)
        });
    let Written { entries, resumed } = match written {
        Ok(written) => written,
        // The next run resumes from the data on disk.
        Err(
            error @ (QuantizeError::Full { .. }
            | QuantizeError::Write { .. }
            | QuantizeError::Stopped { .. }
            | QuantizeError::Calibrate(_)),
        ) if !journal.is_empty() => {
            return Err(error);
        }
        Err(error) => {
            journal.discard();
            return Err(error.starts_over());
        }
    };
    let in_io = |source| QuantizeError::Write { out: job.out.to_path_buf(), source };
    journal.keep().map_err(in_io)?;
    let distortions: Vec<Distortion> = entries.iter().map(|entry| entry.distortion()).collect();
    let plan = match part {
        Some(part) => format!("{}, {part}", job.plan.name()),
        None => job.plan.name().into(),
    };
    let decoders = job.weights.config().num_hidden_layers;
    let mut report = Report::new(plan, &layout, decoders, &distortions);
    report.resumed_parameters = resumed;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// The partial file, its journal, and the entries done.
fn open(job: &Job, layout: &Layout) -> Result<(Journal<Entry>, File, Vec<Entry>), QuantizeError> {
    let in_open = |source: io::Error| match source.kind() {
        io::ErrorKind::ResourceBusy => QuantizeError::Busy { out: job.out.to_path_buf() },
        _ => in_create(job.out, layout.file_bytes, source),
    };
    let fingerprint = layout.fingerprint()?;
    let total = layout.items.len();
    let opened = Journal::<Entry>::open(job.out, &fingerprint, total);
    let (mut journal, file, mut done) = opened.map_err(in_open)?;
    // A truncated file, or a journal with more items than the layout, cannot be resumed.
    let len = file.metadata().map_err(in_open)?.len();
    if layout.end_of(done.len()).is_none_or(|end| len < end) && !done.is_empty() {
        journal.restart(&file, &fingerprint, total).map_err(in_open)?;
        done.clear();
    }
    Ok((journal, file, done))
}

/// A file that is complete except for its name.
struct Written {
    entries: Vec<Entry>,
    resumed: u64,
}

/// Writes all remaining items, one step at a time, and then the checksums into the header.
fn write(
    job: &Job,
    layout: &Layout,
    journal: &mut Journal<Entry>,
    file: File,
    mut entries: Vec<Entry>,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<Written, QuantizeError> {
    let in_write = |error| in_write(job.out, layout.file_bytes, error);
    let in_io = |source| in_write(GgufError::Io { path: job.out.to_path_buf(), source });
    let out = BufWriter::with_capacity(1 << 20, file);
    let mut writer = GgufWriter::new(out, job.out, &layout.metadata, layout.tensors.clone())
        .map_err(in_write)?;
    writer.skip(entries.len()).map_err(in_write)?;
    let (finished, left) = layout.items.split_at(entries.len());
    let resumed = finished.iter().map(Item::parameters).sum();
    let total = layout.items.iter().map(Item::parameters).sum();
    let mut reporter = Progress { stage: Stage::Writing, done: resumed, total }.with(progress);
    for step in steps(left) {
        if stop.is_requested() {
            return Err(QuantizeError::Stopped { out: job.out.to_path_buf() });
        }
        if let Some(importance) = job.importance {
            let layer = step.first().and_then(Item::layer);
            importance.prepare(layer, reporter.callback()).map_err(QuantizeError::Calibrate)?;
        }
        let encoded: Vec<(Vec<u8>, Distortion)> =
            step.par_iter().map(|item| encode(job, item)).collect::<Result<_, _>>()?;
        let before = entries.len();
        for (item, (bytes, distortion)) in step.iter().zip(encoded) {
            writer.write_tensor(&item.name(), &bytes).map_err(in_write)?;
            entries.push(Entry::new(crc32fast::hash(&bytes), distortion));
            reporter.add(item.parameters());
        }
        writer.flushed().map_err(in_write)?.get_ref().sync_data().map_err(in_io)?;
        journal.step(&entries[before..]).map_err(in_io)?;
    }
    let checksums: Vec<u32> = entries.iter().map(|entry| entry.checksum()).collect();
    writer.patch_u32_array(CHECKSUMS_KEY, &checksums).map_err(in_write)?;
    let out = writer.finish().map_err(in_write)?;
    let file = out.into_inner().map_err(|error| in_io(error.into_error()))?;
    // An earlier run may have written more than its journal records.
    file.set_len(layout.file_bytes).map_err(in_io)?;
    file.sync_all().map_err(in_io)?;
    Ok(Written { entries, resumed })
}

/// Checks that the output does not replace the source, under any path.
pub(crate) fn refuse_source(out: &Path, identity: &Identity) -> Result<(), QuantizeError> {
    let Ok(found) = fs::canonicalize(out) else {
        return Ok(());
    };
    let is_out = |file: &PathBuf| fs::canonicalize(file).is_ok_and(|file| file == found);
    if identity.files.iter().any(is_out) {
        return Err(QuantizeError::OverSource { out: out.to_path_buf() });
    }
    if found.is_dir() {
        let source = io::ErrorKind::IsADirectory.into();
        return Err(QuantizeError::Create { out: out.to_path_buf(), source });
    }
    Ok(())
}

/// The error of creating a file that takes `needed` bytes.
pub(crate) fn in_create(out: &Path, needed: u64, source: io::Error) -> QuantizeError {
    let out = out.to_path_buf();
    match is_full(&source) {
        true => QuantizeError::NoRoom { out, needed },
        false => QuantizeError::Create { out, source },
    }
}

/// The error of writing it.
pub(crate) fn in_write(out: &Path, needed: u64, error: GgufError) -> QuantizeError {
    let out = out.to_path_buf();
    match error {
        GgufError::Io { source, .. } if is_full(&source) => QuantizeError::Full { out, needed },
        GgufError::Io { source, .. } => QuantizeError::Write { out, source },
        other => QuantizeError::Gguf(other),
    }
}

/// Runs of items within one layer that are encoded together and then made durable.
fn steps(items: &[Item]) -> impl Iterator<Item = &[Item]> {
    items.chunk_by(|a, b| a.layer() == b.layer()).flat_map(|run| {
        let mut weights = 0;
        run.chunk_by(move |a, _| {
            weights += a.parameters();
            let more = weights < WEIGHTS_AT_ONCE;
            weights = if more { weights } else { 0 };
            more
        })
    })
}

fn encode(job: &Job, item: &Item) -> Result<(Vec<u8>, Distortion), QuantizeError> {
    match item {
        Item::Tensor(spec, ty) => {
            let in_encode = |source| QuantizeError::Encode { name: spec.name.clone(), source };
            let missing =
                || WeightsError::Missing { path: PathBuf::new(), name: spec.name.clone() };
            let matrix = job.weights.tensor(spec)?.ok_or_else(missing)?;
            let importance = job.importance.and_then(|all| all.tensor(&spec.name, spec.cols));
            let hessian = job.importance.and_then(|all| all.tensor_hessian(&spec.name, spec.cols));
            let feedback = hessian.filter(|_| bears_feedback(*ty)).as_ref().map(Feedback::new);
            let guide = Guide { importance: importance.as_deref(), feedback: feedback.as_ref() };
            let encoded = encode_matrix(*ty, &matrix, guide).map_err(in_encode);
            matrix.release();
            encoded
        }
        Item::Expert(spec, types) => encode_expert(job, spec, *types),
    }
}

/// Encodes a matrix in a type; lossless if it has that type already, or the type holds the same
/// values.
fn encode_matrix(
    ty: BlockType,
    matrix: &Matrix,
    guide: Guide,
) -> Result<(Vec<u8>, Distortion), EncodeError> {
    match encoders::exact(ty, matrix) {
        Some(bytes) => Ok((bytes, encoders::unchanged(matrix)?)),
        None => encoders::encode(ty, matrix, guide),
    }
}

/// Whether the errors of a type are large enough for error feedback.
fn bears_feedback(ty: BlockType) -> bool {
    ty.is_coded()
}

/// Encodes the record of an expert: gate, up and down at their offsets.
fn encode_expert(
    job: &Job,
    spec: &ExpertSpec,
    types: [BlockType; 3],
) -> Result<(Vec<u8>, Distortion), QuantizeError> {
    let shapes = Projection::ALL.map(|projection| spec.shape(projection));
    let unfit = || ContainerError::Layout { found: format!("{} does not fit", spec.record_name()) };
    let (ranges, len) = record_layout(types, shapes).ok_or_else(unfit)?;
    let expert = job.weights.expert(spec)?;
    let matrices = [expert.gate, expert.up, expert.down];
    let mut record = vec![0; len];
    let mut feedback = None;
    let mut distortion = Distortion::default();
    for projection in Projection::ALL {
        let at = projection as usize;
        let in_encode =
            |source| QuantizeError::Encode { name: spec.projection_name(projection), source };
        let importance = job.importance.and_then(|all| all.expert(spec, projection));
        // Gate and up have the same inputs.
        if projection != Projection::Up {
            let any = types.into_iter().any(bears_feedback);
            let known = job.importance.filter(|_| any);
            let hessian = known.and_then(|all| all.expert_hessian(spec, projection));
            feedback = hessian.as_ref().map(Feedback::new);
        }
        let guide = Guide { importance: importance.as_deref(), feedback: feedback.as_ref() };
        let (bytes, lost) = encode_matrix(types[at], &matrices[at], guide).map_err(in_encode)?;
        matrices[at].release();
        record[ranges[at].clone()].copy_from_slice(&bytes);
        distortion += lost;
    }
    Ok((record, distortion))
}
