//! Parts of a file that are made separately, for example by the tasks of a job array, and joined.
//!
//! A part is a GGUF file with a contiguous share of the tensors. Its metadata is that of the whole
//! file and three more keys: the number of the part, the number of parts, and the fingerprint of
//! the whole file's header, which is the same in all parts of one job and in no other part. A part
//! can be killed and resumed like a whole file, and contains all that joining needs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use vaquita_runtime::bytes::file::is_full;
use vaquita_runtime::gguf::{Gguf, GgufError, GgufWriter, Metadata, TensorPlan};

use crate::container::{self, CHECKSUMS_KEY, ContainerError, Item, Layout};
use crate::error::QuantizeError;
use crate::partial::PartialFile;
use crate::progress::{Progress, Stage};
use crate::verify::verify;

const NUMBER_KEY: &str = "vaquita.part.number";
const COUNT_KEY: &str = "vaquita.part.count";
const JOB_KEY: &str = "vaquita.part.job";
/// Maximum number of parts.
const MAX_PARTS: usize = 4096;

/// One of several shares of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    number: usize,
    count: usize,
}

impl Part {
    /// The whole job.
    pub const WHOLE: Self = Self { number: 1, count: 1 };

    /// Part `number`, from 1, of `count`.
    pub fn new(number: usize, count: usize) -> Option<Self> {
        let fits = (1..=count).contains(&number) && count <= MAX_PARTS;
        fits.then_some(Self { number, count })
    }

    /// Number of the part, from 1.
    pub fn number(self) -> usize {
        self.number
    }

    /// Number of parts.
    pub fn count(self) -> usize {
        self.count
    }

    /// The range of this part in `total` equal pieces.
    pub fn share(self, total: u64) -> std::ops::Range<u64> {
        let end = |parts: usize| (u128::from(total) * parts as u128 / self.count as u128) as u64;
        end(self.number - 1)..end(self.number)
    }

    /// Parses `2/8`.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, count) = text.split_once('/')?;
        Self::new(number.parse().ok()?, count.parse().ok()?)
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "part {} of {}", self.number, self.count)
    }
}

impl Layout {
    /// The layout of one part. Parts have about equal numbers of weights; some are empty if there
    /// are more parts than tensors.
    pub fn part(self, part: Part) -> Result<Self, ContainerError> {
        let job = self.fingerprint()?;
        let total: u64 = self.items.iter().map(Item::parameters).sum();
        let share = part.share(total);
        let mut before = 0;
        let mine = self.items.iter().zip(self.tensors).filter(|(item, _)| {
            // An item belongs to the part that contains its midpoint.
            let middle = before + item.parameters() / 2;
            before += item.parameters();
            share.contains(&middle) || (part.number == part.count && middle == total)
        });
        let (items, tensors): (Vec<Item>, Vec<TensorPlan>) =
            mine.map(|(item, tensor)| (item.clone(), tensor)).unzip();
        let mut metadata = self.metadata;
        metadata.insert(NUMBER_KEY, part.number as u32);
        metadata.insert(COUNT_KEY, part.count as u32);
        metadata.insert(JOB_KEY, job);
        metadata.insert(CHECKSUMS_KEY, vec![0u32; tensors.len()]);
        let file_bytes = container::file_bytes(&metadata, &tensors)?;
        Ok(Self { metadata, tensors, items, file_bytes })
    }
}

/// Error of joining parts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The file is not a part.
    #[error("{path} is not a part of a file")]
    NotAPart {
        /// The file.
        path: PathBuf,
    },
    /// The parts are of different files.
    #[error(
        "{path} is a part of another file than {first}: make all parts of one source, with the same options and the same calibration"
    )]
    Foreign {
        /// The part.
        path: PathBuf,
        /// Path of another part.
        first: PathBuf,
    },
    /// A part occurs twice.
    #[error("{path} and {other} are both part {number}; leave one out")]
    Doubled {
        /// The part.
        path: PathBuf,
        /// Path of the duplicate.
        other: PathBuf,
        /// Number of the part.
        number: usize,
    },
    /// Parts are missing.
    #[error("of {count} parts these are missing: {missing}; make them first")]
    Missing {
        /// Total number of parts.
        count: usize,
        /// Numbers of the missing parts.
        missing: String,
    },
    /// A part is damaged.
    #[error("{path} is damaged: {what}; make this part again")]
    Damaged {
        /// The part.
        path: PathBuf,
        /// The problem.
        what: String,
    },
    /// The output is one of the parts.
    #[error("{out} is one of the parts; choose another output file")]
    OverPart {
        /// The output.
        out: PathBuf,
    },
    /// The disk is full.
    #[error(
        "the disk of {out} is full; the file takes {needed} bytes beside its parts: free some, or choose another disk"
    )]
    Full {
        /// The output.
        out: PathBuf,
        /// Bytes of the whole file.
        needed: u64,
    },
    /// Writing failed.
    #[error("writing {out}: {source}")]
    Write {
        /// The output.
        out: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// A part cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The header cannot be written.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The finished file failed verification.
    #[error(transparent)]
    Verify(#[from] QuantizeError),
}

/// An open part.
struct Opened {
    path: PathBuf,
    gguf: Gguf,
    number: usize,
    count: usize,
    job: String,
    checksums: Vec<u32>,
}

impl Opened {
    fn open(path: &Path) -> Result<Self, JoinError> {
        let gguf = Gguf::open(path)?;
        let metadata = gguf.metadata();
        let (number, count) = (metadata.usize(NUMBER_KEY)?, metadata.usize(COUNT_KEY)?);
        let job = metadata.str(JOB_KEY)?.map(str::to_string);
        let path = path.to_path_buf();
        let (Some(number), Some(count), Some(job)) = (number, count, job) else {
            return Err(JoinError::NotAPart { path });
        };
        let checksums = metadata.u32s(CHECKSUMS_KEY)?.unwrap_or_default();
        if Part::new(number, count).is_none() || checksums.len() != gguf.tensors().len() {
            let what = format!("it says that it is part {number} of {count}");
            return Err(JoinError::Damaged { path, what });
        }
        Ok(Self { path, gguf, number, count, job, checksums })
    }
}

/// Joins the parts of a file, given in any order, and returns the file's size. Verifies the
/// checksums of each part on the way. The file appears once it is complete, and is byte-identical
/// to that of an undivided run.
pub fn join(
    paths: &[PathBuf],
    out: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, JoinError> {
    let canonical = |path: &Path| path.canonicalize().ok();
    if paths.iter().any(|path| canonical(path).is_some() && canonical(path) == canonical(out)) {
        return Err(JoinError::OverPart { out: out.into() });
    }
    let parts = ordered(paths)?;
    let (metadata, tensors) = whole(&parts)?;
    let needed = container::file_bytes(&metadata, &tensors)?;
    let in_io = |source: io::Error| match is_full(&source) {
        true => JoinError::Full { out: out.into(), needed },
        false => JoinError::Write { out: out.into(), source },
    };
    let in_write = |error| match error {
        GgufError::Io { source, .. } => in_io(source),
        other => JoinError::Gguf(other),
    };
    let (partial, file) = PartialFile::create(out).map_err(in_io)?;
    let buffered = BufWriter::with_capacity(1 << 20, file);
    let mut writer = GgufWriter::new(buffered, out, &metadata, tensors).map_err(in_write)?;
    let mut reporter = Progress { stage: Stage::Writing, done: 0, total: needed }.with(progress);
    let mut checksums = Vec::new();
    for part in &parts {
        for (tensor, checksum) in part.gguf.tensors().iter().zip(&part.checksums) {
            let bytes = part.gguf.bytes(tensor);
            if crc32fast::hash(&bytes) != *checksum {
                let what = format!("{} does not match its checksum", tensor.name);
                return Err(JoinError::Damaged { path: part.path.clone(), what });
            }
            writer.write_tensor(&tensor.name, &bytes).map_err(in_write)?;
            bytes.release();
            checksums.push(*checksum);
            reporter.add(container::padded(tensor.len));
        }
    }
    writer.patch_u32_array(CHECKSUMS_KEY, &checksums).map_err(in_write)?;
    let file: File = writer
        .finish()
        .map_err(in_write)?
        .into_inner()
        .map_err(|error| in_io(error.into_error()))?;
    file.sync_all().map_err(in_io)?;
    verify(out, partial.path(), &checksums, true, progress)?;
    partial.keep().map_err(in_io)?;
    Ok(needed)
}

/// Opens parts and sorts them; checks that all belong to one job and each occurs once.
fn ordered(paths: &[PathBuf]) -> Result<Vec<Opened>, JoinError> {
    let mut parts: BTreeMap<usize, Opened> = BTreeMap::new();
    let mut first: Option<(PathBuf, usize, String)> = None;
    for path in paths {
        let part = Opened::open(path)?;
        let (first, count, job) =
            first.get_or_insert_with(|| (path.clone(), part.count, part.job.clone()));
        if (&part.job, part.count) != (job, *count) {
            let (path, first) = (path.clone(), first.clone());
            return Err(JoinError::Foreign { path, first });
        }
        if let Some(other) = parts.get(&part.number) {
            let (path, other) = (path.clone(), other.path.clone());
            return Err(JoinError::Doubled { path, other, number: part.number });
        }
        parts.insert(part.number, part);
    }
    let count = first.map_or(0, |(_, count, _)| count);
    let missing: Vec<String> =
        (1..=count).filter(|number| !parts.contains_key(number)).map(|n| n.to_string()).collect();
    match missing.is_empty() {
        true => Ok(parts.into_values().collect()),
        false => Err(JoinError::Missing { count, missing: missing.join(", ") }),
    }
}

/// The header of the whole file, checked against the fingerprint in the parts.
fn whole(parts: &[Opened]) -> Result<(Metadata, Vec<TensorPlan>), JoinError> {
    let tensors: Vec<TensorPlan> = parts
        .iter()
        .flat_map(|part| part.gguf.tensors())
        .map(|tensor| TensorPlan {
            name: tensor.name.clone(),
            dims: tensor.dims.clone(),
            ty: tensor.ty,
        })
        .collect();
    let of_part = |part: &Opened| {
        let mut metadata = part.gguf.metadata().clone();
        for key in [NUMBER_KEY, COUNT_KEY, JOB_KEY] {
            metadata.remove(key);
        }
        metadata.insert(CHECKSUMS_KEY, vec![0u32; tensors.len()]);
        metadata
    };
    let mut metadata = Metadata::new();
    for part in parts {
        metadata = of_part(part);
        if container::fingerprint(&metadata, &tensors)? != part.job {
            let what = "its header is not that of the job that it names".into();
            return Err(JoinError::Damaged { path: part.path.clone(), what });
        }
    }
    Ok((metadata, tensors))
}
