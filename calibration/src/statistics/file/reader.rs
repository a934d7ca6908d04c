//! Reads a calibration file, one matrix or layer at a time.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use vaquita_quantize::hessian::Hessian;
use vaquita_quantize::importance::Importance;
use vaquita_runtime::bytes::{Bytes, file};
use vaquita_runtime::checkpoint::{ExpertSpec, Projection};

use super::{CalibrationError, FORMAT, MAX_BLOCK, Origin, PARTS, VERSION, layer_of};
use crate::statistics::{ExpertMoments, ImportanceEstimate, Moments, Statistics};

/// Number of bytes that are checked before their pages are released.
const PIECE: usize = 16 << 20;

/// A file in which every number has been checked. It is mapped; the layer of experts that was
/// requested last is held in memory.
pub struct CalibrationFile {
    bytes: Bytes,
    origin: Origin,
    block: Option<usize>,
    layers: BTreeSet<usize>,
    /// Layers with statistics of dense matrices; `None` for the output head.
    dense: BTreeSet<Option<usize>>,
    latest: Mutex<Option<(usize, Arc<ImportanceEstimate>)>>,
}

impl CalibrationFile {
    /// Opens and checks a file.
    pub fn open(path: &Path) -> Result<Self, CalibrationError> {
        let io = |source| CalibrationError::Io { path: path.into(), source };
        let bytes = Bytes::map(&file::open(path).map_err(io)?).map_err(io)?;
        let in_container = |source| CalibrationError::Container { path: path.into(), source };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(in_container)?;
        let file = SafeTensors::deserialize(&bytes).map_err(in_container)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let content = |found| CalibrationError::Content { path: path.into(), found };
        let (mut origin, block) = parse_metadata(&metadata).map_err(content)?;
        let (mut layers, mut dense) = (BTreeSet::new(), BTreeSet::new());
        for name in file.names() {
            if let Some(matrix) = name.strip_prefix("matrix.") {
                parse_matrix(&file, block, matrix).map_err(content)?;
                dense.insert(layer_of(matrix, "blk."));
            } else if !name.starts_with("products.") {
                let layer = layer_of(name, "layer.");
                layers.insert(layer.ok_or_else(|| content(format!("{name:?} is not known")))?);
            }
        }
        for layer in &layers {
            parse_layer(&file, block, *layer).map_err(content)?;
            bytes.release();
        }
        origin.statistics = format!("crc32:{:08x}", checksum(&bytes));
        Ok(Self { bytes, origin, block, layers, dense, latest: Mutex::default() })
    }

    /// Origin of the statistics.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Moments of one matrix.
    pub fn matrix(&self, name: &str) -> Option<Moments> {
        // The file was checked when it was opened.
        let file = SafeTensors::deserialize(&self.bytes).ok()?;
        parse_matrix(&file, self.block, name).ok()
    }

    /// Moments of a layer's experts.
    pub fn layer(&self, layer: usize) -> Option<Vec<ExpertMoments>> {
        let known = self.layers.contains(&layer);
        let file = known.then(|| SafeTensors::deserialize(&self.bytes).ok()).flatten()?;
        let experts = parse_layer(&file, self.block, layer).ok();
        self.bytes.release();
        experts
    }

    /// Importance estimate of a layer's experts. Concurrent requests for a layer wait for the first
    /// one.
    fn estimate(&self, layer: usize) -> Option<Arc<ImportanceEstimate>> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((found, estimate)) if *found == layer => Some(estimate.clone()),
            _ => {
                *latest = None;
                let experts = [(layer, self.layer(layer)?)].into();
                let estimate =
                    ImportanceEstimate::new(Statistics { experts, ..Statistics::default() });
                Some(latest.insert((layer, Arc::new(estimate))).1.clone())
            }
        }
    }

    fn matrix_estimate(&self, name: &str) -> Option<ImportanceEstimate> {
        let matrices = [(name.to_string(), self.matrix(name)?)].into();
        Some(ImportanceEstimate::new(Statistics { matrices, ..Statistics::default() }))
    }
}

impl Importance for CalibrationFile {
    fn tensor(&self, name: &str, cols: usize) -> Option<Vec<f32>> {
        self.matrix_estimate(name)?.tensor(name, cols)
    }

    fn expert(&self, spec: &ExpertSpec, projection: Projection) -> Option<Vec<f32>> {
        self.estimate(spec.layer.0)?.expert(spec, projection)
    }

    fn tokens(&self, spec: &ExpertSpec) -> Option<u64> {
        self.estimate(spec.layer.0)?.tokens(spec)
    }

    fn tensor_hessian(&self, name: &str, cols: usize) -> Option<Hessian> {
        self.matrix_estimate(name)?.tensor_hessian(name, cols)
    }

    fn expert_hessian(&self, spec: &ExpertSpec, projection: Projection) -> Option<Hessian> {
        self.estimate(spec.layer.0)?.expert_hessian(spec, projection)
    }

    fn reaches(&self, layer: Option<usize>) -> bool {
        self.dense.contains(&layer) || layer.is_some_and(|layer| self.layers.contains(&layer))
    }
}

fn checksum(bytes: &Bytes) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for at in (0..bytes.len()).step_by(PIECE) {
        let piece = bytes.slice(at..bytes.len().min(at + PIECE));
        if let Some(piece) = piece {
            hasher.update(&piece);
            piece.release();
        }
    }
    hasher.finalize()
}

fn parse_metadata(metadata: &HashMap<String, String>) -> Result<(Origin, Option<usize>), String> {
    let text = |key: &str| metadata.get(key).cloned().unwrap_or_default();
    if text("format") != FORMAT {
        return Err(format!("its format is {:?}, not {FORMAT:?}", text("format")));
    }
    if text("version") != VERSION {
        return Err(format!("version {:?}; this program reads {VERSION}", text("version")));
    }
    let documents = text("documents").parse().map_err(|_| "documents is no number".to_string())?;
    let block = match metadata.get("block") {
        None => None,
        Some(block) => match block.parse() {
            Ok(block @ 1..=MAX_BLOCK) => Some(block),
            _ => return Err(format!("block is {block:?}; allowed: 1 to {MAX_BLOCK}")),
        },
    };
    let origin =
        Origin { source: text("source"), text: text("text"), documents, ..Origin::default() };
    Ok((origin, block))
}

/// Packed products of `cols` inputs.
fn products(
    name: &str,
    block: Option<usize>,
    cols: usize,
    sums: Vec<f32>,
) -> Result<Hessian, String> {
    let products = block.and_then(|block| Hessian::from_packed(cols, block, sums));
    products.ok_or_else(|| format!("{name} does not fit {cols} inputs in blocks of {block:?}"))
}

fn parse_matrix(file: &SafeTensors, block: Option<usize>, name: &str) -> Result<Moments, String> {
    let (means, _) = f32s(file, &format!("matrix.{name}"))?;
    let stored = format!("products.{name}");
    let products = match file.tensor(&stored) {
        Ok(_) => Some(products(&stored, block, means.len(), numbers(file, &stored)?.0)?),
        Err(_) => None,
    };
    Ok(Moments::from_means(1.0, &means, products))
}

fn parse_layer(
    file: &SafeTensors,
    block: Option<usize>,
    layer: usize,
) -> Result<Vec<ExpertMoments>, String> {
    let name = |part: &str| format!("layer.{layer}.{part}");
    let tokens = eights(file, &name("tokens"), Dtype::U64)?;
    let mass = eights(file, &name("mass"), Dtype::F64)?;
    let weight = eights(file, &name("weight"), Dtype::F64)?;
    let mut experts: Vec<ExpertMoments> = Vec::with_capacity(tokens.len());
    for (at, tokens) in tokens.iter().enumerate() {
        let number = |all: &[[u8; 8]], what: &str| {
            let found = all.get(at).map(|bytes| f64::from_le_bytes(*bytes));
            let found = found.filter(|one| one.is_finite() && *one >= 0.0);
            found.ok_or_else(|| format!("{} must be {} finite numbers from 0", name(what), at + 1))
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
        let count_of_experts = experts.len();
        if count != count_of_experts || width == 0 {
            let name = name(part);
            return Err(format!(
                "{name} has shape {shape:?}; there are {count_of_experts} experts"
            ));
        }
        let stored = name(&format!("{part}_products"));
        let entries = match file.tensor(&stored) {
            Ok(tensor) => match tensor.shape() {
                [count, entries] if *count == count_of_experts && *entries > 0 => Some(*entries),
                shape => {
                    return Err(format!(
                        "{stored} has shape {shape:?}; there are {count_of_experts} experts"
                    ));
                }
            },
            Err(_) => None,
        };
        for (at, (expert, means)) in experts.iter_mut().zip(means.chunks_exact(width)).enumerate() {
            let moments = if part == "input" { &mut expert.input } else { &mut expert.hidden };
            let weight = moments.weight;
            let mut sums = None;
            if let Some(entries) = entries {
                let tensor = tensor(file, &stored, Dtype::F32)?;
                let bytes = &tensor.data()[at * entries * 4..][..entries * 4];
                let means = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                let scaled = means.map(|mean| mean * weight as f32).collect();
                sums = Some(products(&stored, block, width, scaled)?);
            }
            *moments = Moments::from_means(weight, means, sums);
        }
    }
    Ok(experts)
}

/// A tensor of non-negative finite numbers, and its shape.
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
