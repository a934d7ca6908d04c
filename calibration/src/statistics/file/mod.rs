//! Statistics as a safetensors file, which any tool can inspect. docs/format.md describes it.
//!
//! The contents of a file, its [`Shape`], are known before anything is computed, so that
//! [`CalibrationWriter`] writes it layer by layer. [`CalibrationFile`] checks a file and reads it
//! one layer at a time.

mod reader;
mod writer;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use vaquita_quantize::container::Inventory;
use vaquita_quantize::hessian::Hessian;
use vaquita_runtime::bytes::file::is_full;
use vaquita_runtime::checkpoint::{Projection, Role};

use super::{ExpertMoments, Moments, OutOfRange};

pub use reader::CalibrationFile;
pub use writer::CalibrationWriter;

const FORMAT: &str = "vaquita-calibration";
const VERSION: &str = "1";
/// Maximum block width of products, in inputs.
pub(super) const MAX_BLOCK: usize = 4096;

/// Origin of statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Fingerprint of the model's files.
    pub source: String,
    /// CRC-32 of the texts.
    pub text: String,
    /// Number of texts.
    pub documents: usize,
    /// CRC-32 of the file that they were read from; empty before.
    pub statistics: String,
}

impl Origin {
    /// The origin of statistics over these texts of a model with that fingerprint.
    pub fn new(source: &str, texts: &[String]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        for text in texts {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        let text = format!("crc32:{:08x}", hasher.finalize());
        Self { source: source.into(), text, documents: texts.len(), statistics: String::new() }
    }
}

/// Error of writing or reading a calibration file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// The file is not complete safetensors.
    #[error("{path} is not a whole calibration file ({source}); calibrate again")]
    Container {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: safetensors::SafeTensorError,
    },
    /// The file is not a part of a calibration.
    #[error("{path} is not a part of a calibration")]
    NotAPart {
        /// The file.
        path: PathBuf,
    },
    /// A part is damaged.
    #[error("{path} is damaged: {found}; make this part again")]
    DamagedPart {
        /// The part.
        path: PathBuf,
        /// The problem.
        found: String,
    },
    /// The parts are of different calibrations.
    #[error(
        "{path} is a part of another calibration than {first}: make all parts of one model and one text, with the same options"
    )]
    ForeignPart {
        /// The part.
        path: PathBuf,
        /// Path of another part.
        first: PathBuf,
    },
    /// A part occurs twice.
    #[error("{path} and {other} are both part {number}; leave one out")]
    DoubledPart {
        /// The part.
        path: PathBuf,
        /// Path of the duplicate.
        other: PathBuf,
        /// Number of the part.
        number: usize,
    },
    /// Parts are missing.
    #[error("of {count} parts these are missing: {missing}; make them first")]
    MissingParts {
        /// Total number of parts.
        count: usize,
        /// Numbers of the missing parts.
        missing: String,
    },
    /// The output is one of the parts.
    #[error("{out} is one of the parts; choose another output file")]
    OverPart {
        /// The output.
        out: PathBuf,
    },
    /// Another process writes the file.
    #[error("another process is making {path}; wait for it, or choose another output file")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error(
        "the disk of {path} is full: free some and run the same command again, which goes on at the layer it was in"
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The work was asked to stop.
    #[error(
        "{path} is not finished: stopped after a layer, as asked; the same command goes on from here"
    )]
    Stopped {
        /// The file.
        path: PathBuf,
    },
    /// Sums are out of range.
    #[error("{name}: {source}; the model or the texts are damaged")]
    OutOfRange {
        /// Name of the matrix or expert.
        name: String,
        /// The error.
        source: OutOfRange,
    },
    /// The contents are not those of a calibration file.
    #[error("{path}: {found}; calibrate again")]
    Content {
        /// The file.
        path: PathBuf,
        /// The problem.
        found: String,
    },
}

impl CalibrationError {
    /// The error of an I/O operation on a file.
    pub(super) fn in_file(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            ErrorKind::ResourceBusy => Self::Busy { path },
            _ if is_full(&source) => Self::Full { path },
            _ => Self::Io { path, source },
        }
    }
}

/// Contents of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Name and number of inputs of each dense matrix.
    pub matrices: Vec<(String, usize)>,
    /// Layers with routed experts.
    pub layers: Vec<LayerShape>,
    /// Block width of products, in inputs; no products if `None`.
    pub block: Option<usize>,
}

/// A layer's routed experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    /// Index of the layer.
    pub layer: usize,
    /// Number of experts.
    pub experts: usize,
    /// Number of inputs of gate and up.
    pub input: usize,
    /// Number of inputs of down.
    pub hidden: usize,
}

impl Shape {
    /// The shape for a model's layers that run for every token.
    pub fn of(inventory: &Inventory, block: Option<usize>) -> Self {
        let config = inventory.config;
        let run = |layer: usize| layer < config.num_hidden_layers;
        let seen = |role: Role| {
            matches!(role, Role::Output | Role::Attention | Role::DenseFfn | Role::SharedExpert)
        };
        let matrices = inventory.tensors.iter();
        let matrices = matrices.filter(|spec| seen(spec.role) && spec.layer().is_none_or(run));
        let layers = vaquita_quantize::plan::expert_layers(config).filter(|layer| run(layer.0));
        let layers = layers.filter_map(|layer| {
            let spec = vaquita_quantize::plan::expert_specs(config, layer).next()?;
            let [input, hidden] = [Projection::Gate, Projection::Down].map(|p| spec.shape(p).1);
            Some(LayerShape { layer: layer.0, experts: config.moe.n_routed_experts, input, hidden })
        });
        let matrices = matrices.map(|spec| (spec.name.clone(), spec.cols)).collect();
        Self { matrices, layers: layers.collect(), block }
    }

    /// The widest block of products, a power of two from 32 to 256, with which the products of
    /// every layer fit `bytes`; `None` if there is none.
    pub fn block_within(&self, bytes: u64) -> Option<usize> {
        [256, 128, 64, 32].into_iter().find(|block| {
            let entry = size_of::<i128>() as u64;
            let entries = |cols: usize| Hessian::packed_len(cols, *block) as u64 * entry;
            let mut layers = std::collections::BTreeMap::<Option<usize>, u64>::new();
            for (name, cols) in &self.matrices {
                *layers.entry(layer_of(name, "blk.")).or_default() += entries(*cols);
            }
            for one in &self.layers {
                let expert = entries(one.input) + entries(one.hidden);
                *layers.entry(Some(one.layer)).or_default() += expert * one.experts as u64;
            }
            layers.values().all(|needed| *needed <= bytes)
        })
    }
}

/// The number between a prefix and the next dot.
pub(super) fn layer_of(name: &str, prefix: &str) -> Option<usize> {
    name.strip_prefix(prefix)?.split('.').next()?.parse().ok()
}

/// Name of an input, and its moments.
type Part = (&'static str, fn(&ExpertMoments) -> &Moments);

/// The two inputs of an expert.
const PARTS: [Part; 2] = [("input", |expert| &expert.input), ("hidden", |expert| &expert.hidden)];

impl Moments {
    /// Mean squares, as stored.
    fn mean_squares(&self) -> impl Iterator<Item = f32> + '_ {
        let weight = if self.weight > 0.0 { self.weight } else { 1.0 };
        self.squares.iter().map(move |sum| (sum / weight) as f32)
    }

    /// Mean products, as stored.
    fn mean_products(&self) -> impl Iterator<Item = f32> + '_ {
        let weight = if self.weight > 0.0 { self.weight } else { 1.0 };
        let sums = self.products.iter().flat_map(|products| products.packed());
        sums.map(move |sum| (f64::from(*sum) / weight) as f32)
    }

    /// Moments from the stored means.
    fn from_means(weight: f64, squares: &[f32], products: Option<Hessian>) -> Self {
        let squares = squares.iter().map(|mean| f64::from(*mean) * weight).collect();
        Self { weight, squares, products }
    }

    /// The moments after a round trip through a file.
    fn rounded(&self, weight: f64) -> Self {
        let means: Vec<f32> = self.mean_squares().collect();
        let products = self.products.as_ref().and_then(|products| {
            let sums = self.mean_products().map(|mean| mean * weight as f32).collect();
            Hessian::from_packed(products.cols(), products.block(), sums)
        });
        Self::from_means(weight, &means, products)
    }
}

impl super::Statistics {
    /// The statistics after a round trip through a file, so that quantization gives the same result
    /// with either.
    pub fn rounded(mut self) -> Self {
        for moments in self.matrices.values_mut() {
            *moments = moments.rounded(1.0);
        }
        for expert in self.experts.values_mut().flatten() {
            let weight = expert.input.weight;
            expert.input = expert.input.rounded(weight);
            expert.hidden = expert.hidden.rounded(weight);
        }
        self
    }
}
