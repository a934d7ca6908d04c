//! Statistics as a file: safetensors, so that any tool can look into it.
//!
//! ```text
//! matrix.NAME            F32 [inputs]            mean square of each input of the matrix NAME
//! layer.N.tokens         U64 [experts]           tokens routed to each expert
//! layer.N.mass           F64 [experts]           sum of the router's weights
//! layer.N.weight         F64 [experts]           sum of their squares
//! layer.N.input          F32 [experts, inputs]   mean square of the inputs of gate and up, weighed by those squares
//! layer.N.hidden         F32 [experts, inputs]   the same of down
//! products.NAME          F32 [entries]           means of the products of the inputs of NAME with each other: the
//!                                                upper triangles of blocks along the diagonal, row by row
//! layer.N.input_products, layer.N.hidden_products    F32 [experts, entries]    the same of experts
//! ```
//!
//! The products are optional.
//!
//! The metadata has `format` (`vaquita-calibration`), `version` (1), `source` (the fingerprint of the model),
//! `text` (CRC-32 of the texts), `documents`, and `block`, the inputs
//! of a block of products.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use vaquita_quantize::hessian::Hessian;
use vaquita_quantize::partial::PartialFile;

use super::{ExpertMoments, Moments, Statistics};

const FORMAT: &str = "vaquita-calibration";
const VERSION: &str = "1";
/// Inputs of a block of products, at the most.
const MAX_BLOCK: usize = 4096;

/// What statistics were made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Fingerprint of the model's files.
    pub source: String,
    /// CRC-32 of the texts.
    pub text: String,
    /// How many texts.
    pub documents: usize,
    /// CRC-32 of the file that they were read from; empty before.
    pub statistics: String,
}

impl Origin {
    /// Of a model with that fingerprint, over these texts.
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

/// Why a calibration file cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a whole safetensors file.
    #[error("{path} is not a whole calibration file ({source}); make it again with `calibrate`")]
    Container {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// Not what a calibration file has.
    #[error("{path}: {found}; make it again with `calibrate`")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        found: String,
    },
}

impl Statistics {
    /// Writes a file that appears under its name when it is whole.
    pub fn write(&self, origin: &Origin, path: &Path) -> Result<(), CalibrationError> {
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        let mut block = None;
        for (name, moments) in &self.matrices {
            let bytes = moments.mean_bytes();
            let width = moments.squares.len();
            tensors.push((format!("matrix.{name}"), Dtype::F32, vec![width], bytes));
            if let Some(products) = &moments.products {
                let bytes = moments.product_bytes();
                let shape = vec![products.packed().len()];
                tensors.push((format!("products.{name}"), Dtype::F32, shape, bytes));
                block = Some(products.block());
            }
        }
        for (layer, experts) in &self.experts {
            let mut add = |name: &str, dtype, shape, bytes| {
                tensors.push((format!("layer.{layer}.{name}"), dtype, shape, bytes));
            };
            let n = experts.len();
            let all = experts.iter();
            let tokens = all.clone().flat_map(|expert| expert.tokens.to_le_bytes()).collect();
            add("tokens", Dtype::U64, vec![n], tokens);
            let mass = all.clone().flat_map(|expert| expert.mass.to_le_bytes()).collect();
            add("mass", Dtype::F64, vec![n], mass);
            let weight = all.clone().flat_map(|expert| expert.input.weight.to_le_bytes()).collect();
            add("weight", Dtype::F64, vec![n], weight);
            for (name, part) in PARTS {
                let width = all.clone().map(|one| part(one).squares.len()).max().unwrap_or(0);
                let mut bytes = Vec::with_capacity(n * width * 4);
                for (at, expert) in experts.iter().enumerate() {
                    // An expert that saw nothing has no squares.
                    bytes.extend(part(expert).mean_bytes());
                    bytes.resize((at + 1) * width * 4, 0);
                }
                add(name, Dtype::F32, vec![n, width], bytes);
                let products = || all.clone().filter_map(|one| part(one).products.as_ref());
                let Some(first) = products().next() else { continue };
                block = Some(first.block());
                let len = first.packed().len();
                let mut bytes = Vec::with_capacity(n * len * 4);
                for (at, expert) in experts.iter().enumerate() {
                    bytes.extend(part(expert).product_bytes());
                    bytes.resize((at + 1) * len * 4, 0);
                }
                add(&format!("{name}_products"), Dtype::F32, vec![n, len], bytes);
            }
        }
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?))
            })
            .collect::<Result<Vec<_>, _>>();
        let in_container = |source| CalibrationError::Container { path: path.into(), source };
        let mut metadata = HashMap::from([
            ("format".to_string(), FORMAT.to_string()),
            ("version".into(), VERSION.into()),
            ("source".into(), origin.source.clone()),
            ("text".into(), origin.text.clone()),
            ("documents".into(), origin.documents.to_string()),
        ]);
        if let Some(block) = block {
            metadata.insert("block".into(), block.to_string());
        }
        let bytes = safetensors::serialize(views.map_err(in_container)?, Some(metadata))
            .map_err(in_container)?;
        let io = |source| CalibrationError::Io { path: path.into(), source };
        let (partial, mut file) = PartialFile::create(path).map_err(io)?;
        file.write_all(&bytes).map_err(io)?;
        file.sync_all().map_err(io)?;
        partial.keep().map_err(io)
    }

    /// Reads a file; every number in it is checked.
    pub fn read(path: &Path) -> Result<(Self, Origin), CalibrationError> {
        let io = |source| CalibrationError::Io { path: path.into(), source };
        let bytes = std::fs::read(path).map_err(io)?;
        let in_container = |source| CalibrationError::Container { path: path.into(), source };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(in_container)?;
        let file = SafeTensors::deserialize(&bytes).map_err(in_container)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let (statistics, mut origin) = parse(&file, &metadata)
            .map_err(|found| CalibrationError::Content { path: path.into(), found })?;
        origin.statistics = format!("crc32:{:08x}", crc32fast::hash(&bytes));
        Ok((statistics, origin))
    }
}

/// The name of an input, and where it is.
type Part = (&'static str, fn(&ExpertMoments) -> &Moments);

/// The two inputs of an expert.
const PARTS: [Part; 2] = [("input", |expert| &expert.input), ("hidden", |expert| &expert.hidden)];

impl Moments {
    fn mean_bytes(&self) -> Vec<u8> {
        let weight = if self.weight > 0.0 { self.weight } else { 1.0 };
        self.squares.iter().flat_map(|sum| ((sum / weight) as f32).to_le_bytes()).collect()
    }

    fn product_bytes(&self) -> Vec<u8> {
        let weight = if self.weight > 0.0 { self.weight } else { 1.0 };
        let sums = self.products.iter().flat_map(|products| products.packed());
        sums.flat_map(|sum| ((f64::from(*sum) / weight) as f32).to_le_bytes()).collect()
    }
}

fn parse(
    file: &SafeTensors,
    metadata: &HashMap<String, String>,
) -> Result<(Statistics, Origin), String> {
    let text = |key: &str| metadata.get(key).cloned().unwrap_or_default();
    if text("format") != FORMAT {
        return Err(format!("its format is {:?}, not {FORMAT:?}", text("format")));
    }
    if text("version") != VERSION {
        return Err(format!("version {:?}; this program reads {VERSION}", text("version")));
    }
    let documents = text("documents").parse().map_err(|_| "documents is no number".to_string())?;
    let origin =
        Origin { source: text("source"), text: text("text"), documents, ..Origin::default() };

    let block = match metadata.get("block") {
        None => None,
        Some(block) => match block.parse() {
            Ok(block @ 1..=MAX_BLOCK) => Some(block),
            _ => return Err(format!("block is {block:?}; allowed: 1 to {MAX_BLOCK}")),
        },
    };
    let products = |name: &str, cols: usize, sums: Vec<f32>| -> Result<Hessian, String> {
        let products = block.and_then(|block| Hessian::from_packed(cols, block, sums));
        products.ok_or_else(|| format!("{name} does not fit {cols} inputs in blocks of {block:?}"))
    };
    let mut statistics = Statistics::default();
    let mut layers: BTreeMap<usize, ()> = BTreeMap::new();
    for name in file.names() {
        if let Some(matrix) = name.strip_prefix("matrix.") {
            let (means, _) = f32s(file, name)?;
            let squares: Vec<f64> = means.into_iter().map(f64::from).collect();
            let stored = format!("products.{matrix}");
            let products = match file.tensor(&stored) {
                Ok(_) => Some(products(&stored, squares.len(), numbers(file, &stored)?.0)?),
                Err(_) => None,
            };
            statistics.matrices.insert(matrix.into(), Moments { weight: 1.0, squares, products });
        } else if name.starts_with("products.") {
            // Read with its matrix.
        } else {
            let layer = name.strip_prefix("layer.").and_then(|rest| rest.split('.').next());
            let layer = layer.and_then(|layer| layer.parse().ok());
            layers.insert(layer.ok_or_else(|| format!("{name:?} is not known"))?, ());
        }
    }
    for layer in layers.into_keys() {
        let name = |part: &str| format!("layer.{layer}.{part}");
        let tokens = eights(file, &name("tokens"), Dtype::U64)?;
        let mass = eights(file, &name("mass"), Dtype::F64)?;
        let weight = eights(file, &name("weight"), Dtype::F64)?;
        let mut experts: Vec<ExpertMoments> = Vec::with_capacity(tokens.len());
        for (at, tokens) in tokens.iter().enumerate() {
            let number = |all: &[[u8; 8]], what: &str| {
                let found = all.get(at).map(|bytes| f64::from_le_bytes(*bytes));
                let found = found.filter(|one| one.is_finite() && *one >= 0.0);
                found.ok_or_else(|| {
                    format!("{} must be {} finite numbers from 0", name(what), at + 1)
                })
            };
            let (mass, weight) = (number(&mass, "mass")?, number(&weight, "weight")?);
            let part = || Moments { weight, ..Moments::default() };
            let tokens = u64::from_le_bytes(*tokens);
            experts.push(ExpertMoments { tokens, mass, input: part(), hidden: part() });
        }
        for (part, _) in PARTS {
            let (means, shape) = f32s(file, &name(part))?;
            let [count, width] = shape[..] else {
                return Err(format!("{} has shape {shape:?}, not [experts, inputs]", name(part)));
            };
            if count != experts.len() || width == 0 {
                let experts = experts.len();
                return Err(format!(
                    "{} has shape {shape:?}; there are {experts} experts",
                    name(part)
                ));
            }
            for (expert, means) in experts.iter_mut().zip(means.chunks_exact(width)) {
                let moments = if part == "input" { &mut expert.input } else { &mut expert.hidden };
                moments.squares =
                    means.iter().map(|mean| f64::from(*mean) * moments.weight).collect();
            }
            let stored = name(&format!("{part}_products"));
            if file.tensor(&stored).is_err() {
                continue;
            }
            let (means, shape) = numbers(file, &stored)?;
            if shape.len() != 2 || shape[0] != experts.len() || shape[1] == 0 {
                let experts = experts.len();
                return Err(format!("{stored} has shape {shape:?}; there are {experts} experts"));
            }
            for (expert, means) in experts.iter_mut().zip(means.chunks_exact(shape[1])) {
                let moments = if part == "input" { &mut expert.input } else { &mut expert.hidden };
                let sums = means.iter().map(|mean| mean * moments.weight as f32).collect();
                moments.products = Some(products(&stored, width, sums)?);
            }
        }
        statistics.experts.insert(layer, experts);
    }
    Ok((statistics, origin))
}

/// A tensor of finite numbers from 0, and its shape.
fn f32s(file: &SafeTensors, name: &str) -> Result<(Vec<f32>, Vec<usize>), String> {
    let (values, shape) = numbers(file, name)?;
    match values.iter().find(|value| !(value.is_finite() && **value >= 0.0)) {
        Some(bad) => Err(format!("{name} has {bad}; allowed: finite numbers from 0")),
        None => Ok((values, shape)),
    }
}

fn numbers(file: &SafeTensors, name: &str) -> Result<(Vec<f32>, Vec<usize>), String> {
    let tensor = tensor(file, name, Dtype::F32)?;
    let bytes = tensor.data().as_chunks::<4>().0.iter();
    Ok((bytes.map(|bytes| f32::from_le_bytes(*bytes)).collect(), tensor.shape().to_vec()))
}

fn eights(file: &SafeTensors, name: &str, dtype: Dtype) -> Result<Vec<[u8; 8]>, String> {
    Ok(tensor(file, name, dtype)?.data().as_chunks::<8>().0.to_vec())
}

fn tensor<'a>(file: &SafeTensors<'a>, name: &str, dtype: Dtype) -> Result<TensorView<'a>, String> {
    let tensor = file.tensor(name).map_err(|_| format!("{name} is missing"))?;
    match tensor.dtype() == dtype {
        true => Ok(tensor),
        false => Err(format!("{name} has type {:?}, not {dtype:?}", tensor.dtype())),
    }
}
