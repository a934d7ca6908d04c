//! Weights from a GGUF file, in vaquita's expert-major layout or in llama.cpp's layout with stacked
//! experts.
//!
//! Matrices are views of the mapped file. In the expert-major layout, tensors of coded types and
//! expert records are opaque bytes to GGUF; `vaquita.*` metadata describes them (docs/format.md).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::accounting::{GgufNames, account};
use super::families::{ConfigError, config_from_gguf};
use super::source::{ByteSource, Files};
use super::stored_layout::StoredLayout;
use super::{
    Config, Expert, ExpertId, ExpertSpec, HfTensor, LayerId, Projection, TensorSpec, Weights,
    WeightsError, kv_b,
};
use crate::blocks::{BlockType, Matrix};
use crate::bytes::Bytes;
use crate::gguf::{Gguf, GgufError, HEADER_CHECKSUM_KEY, TensorInfo};

/// Version of the expert-major layout that the quantizer writes. Version 1, which is read as well,
/// had no checksum of the header.
pub const LAYOUT_VERSION: u32 = 2;
/// Alignment of projections within an expert's record, in bytes.
pub const PROJECTION_ALIGNMENT: usize = 64;

/// When to verify checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Never.
    Never,
    /// When a record is first read; the header on opening.
    #[default]
    First,
    /// Whenever a record is used by a visit, mapped ones included. Other tensors are verified when
    /// the model is loaded.
    Always,
}

/// Error of opening a file as a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file is not valid GGUF.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The configuration is not supported.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: ConfigError,
    },
    /// The header does not match its checksum.
    #[error(
        "{path}: the header is damaged: its checksum is {found:08x}, the file says {expected:08x}; copy or quantize the file again"
    )]
    Header {
        /// The file.
        path: PathBuf,
        /// Checksum of the header read.
        found: u32,
        /// Checksum in the file.
        expected: u32,
    },
    /// The tensors do not match the configuration.
    #[error(transparent)]
    Tensors(#[from] WeightsError),
    /// The `vaquita.*` metadata is invalid.
    #[error("{path}: {key} {problem}")]
    Layout {
        /// The file.
        path: PathBuf,
        /// The metadata key.
        key: String,
        /// The problem.
        problem: String,
    },
}

/// Compares a header with its checksum, which files of version 2 have.
///
/// # Errors
/// If they differ, or the checksum is missing.
pub fn check_header(gguf: &Gguf) -> Result<(), OpenError> {
    let path = || gguf.path().to_path_buf();
    match gguf.header_checksum() {
        Some([expected, found]) if expected != found => {
            Err(OpenError::Header { path: path(), expected, found })
        }
        None if gguf.metadata().u32("vaquita.version")?.is_some_and(|version| version > 1) => {
            let problem = "is missing: the file is damaged; copy or quantize it again".into();
            Err(OpenError::Layout { path: path(), key: HEADER_CHECKSUM_KEY.into(), problem })
        }
        _ => Ok(()),
    }
}

/// An open model file.
pub struct GgufWeights {
    pub(super) gguf: Gguf,
    config: Config,
    layout: Option<StoredLayout>,
    verify: Verify,
    /// Per tensor, whether its checksum has been verified.
    verified: Vec<AtomicBool>,
    by_name: HashMap<String, usize>,
    /// Source of tensors once the file is no longer mapped.
    pub(super) source: Option<Arc<dyn ByteSource>>,
}

impl GgufWeights {
    /// Opens a file and checks its metadata.
    pub fn open(path: &Path, verify: Verify) -> Result<Self, OpenError> {
        Self::new(Gguf::open(path)?, verify)
    }

    /// Reads the configuration of an open file.
    pub fn new(gguf: Gguf, verify: Verify) -> Result<Self, OpenError> {
        let path = gguf.path().to_path_buf();
        if let Some(part) = gguf.metadata().u64("vaquita.part.number")? {
            let problem = format!("says that this is only part {part} of a file: `join` the parts");
            return Err(OpenError::Layout { path, key: "vaquita.part.number".into(), problem });
        }
        if verify != Verify::Never {
            check_header(&gguf)?;
        }
        let mut names = gguf.tensors().iter().map(|info| info.name.as_str());
        let corrects = names.any(|name| name.ends_with("exp_probs_b.bias"));
        let mut config = config_from_gguf(gguf.metadata(), corrects)
            .map_err(|source| OpenError::Config { path: path.clone(), source })?;
        // Published files leave out the output head if it is tied to the embedding.
        if gguf.metadata().get("vaquita.tie_word_embeddings").is_none() {
            config.tie_word_embeddings = gguf.tensor("output.weight").is_none();
        }
        let layout = match gguf.metadata().u32("vaquita.version")? {
            None => None,
            Some(1..=LAYOUT_VERSION) => Some(StoredLayout::read(&path, &config, &gguf)?),
            Some(other) => {
                let problem = format!("is {other}; this version reads 1 to {LAYOUT_VERSION}");
                return Err(OpenError::Layout { path, key: "vaquita.version".into(), problem });
            }
        };
        let known = GgufNames::new(&config, layout.is_some());
        let stored = gguf.tensors().iter().map(|info| info.name.as_str());
        account(&path, stored, |name| known.contain(name))?;
        let names = gguf.tensors().iter().enumerate().map(|(i, info)| (info.name.clone(), i));
        let by_name = names.collect();
        let verified = gguf.tensors().iter().map(|_| AtomicBool::new(false)).collect();
        let mut weights = Self { gguf, config, layout, verify, verified, by_name, source: None };
        if !weights.gguf.is_mapped() {
            let files = Files::open(&weights.gguf, false);
            let files = files.map_err(|(path, source)| GgufError::Io { path, source })?;
            weights.source = Some(files);
        }
        Ok(weights)
    }

    /// When checksums are verified.
    pub fn verifies(&self) -> Verify {
        self.verify
    }

    /// The checksum of a tensor by its index, if the file has checksums.
    pub fn checksum(&self, tensor: usize) -> Option<u32> {
        self.layout.as_ref()?.checksums.get(tensor).copied()
    }

    /// The file.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// Routes tokens to `active` experts from now on, instead of the trained number. If `active` is
    /// zero or larger than the trained number, returns the latter as the error.
    pub fn set_active_experts(&mut self, active: usize) -> Result<(), usize> {
        let trained = self.config.moe.num_experts_per_tok;
        if active == 0 || active > trained {
            return Err(trained);
        }
        self.config.moe.num_experts_per_tok = active;
        Ok(())
    }

    /// Whether each expert is stored as one record.
    pub fn is_expert_major(&self) -> bool {
        self.layout.is_some()
    }

    /// The block types of an expert's gate, up and down; `None` if the type of a stack is not
    /// supported.
    pub fn expert_types(&self, spec: &ExpertSpec) -> Option<[BlockType; 3]> {
        if let Some(layout) = &self.layout {
            return layout.experts.get(&(spec.layer, spec.expert)).copied();
        }
        let ty = |p| self.stack(spec, p).ok()?.info.ty.block_type();
        Some([ty(Projection::Gate)?, ty(Projection::Up)?, ty(Projection::Down)?])
    }

    /// The block type of a tensor that is not a routed expert.
    pub fn tensor_type(&self, name: &str) -> Option<BlockType> {
        let coded = self.layout.as_ref().and_then(|layout| layout.tensors.get(name));
        match coded {
            Some((ty, _, _)) => Some(*ty),
            None => self.gguf.tensor(name)?.ty.block_type(),
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.gguf.path().to_path_buf()
    }

    pub(super) fn missing(&self, name: &str) -> WeightsError {
        WeightsError::Missing { path: self.path(), name: name.into() }
    }

    /// The bytes of a tensor, with its checksum verified if required.
    fn read(&self, name: &str) -> Result<Option<(&TensorInfo, Bytes)>, WeightsError> {
        let Some(&index) = self.by_name.get(name) else { return Ok(None) };
        let info = &self.gguf.tensors()[index];
        let bytes = match &self.source {
            None => self.gguf.bytes(info),
            Some(source) => self.read_tensor(&**source, info)?,
        };
        self.verify(index, &bytes)?;
        Ok(Some((info, bytes)))
    }

    /// Verifies the checksum of a tensor's bytes, if required.
    pub(super) fn verify(&self, index: usize, bytes: &[u8]) -> Result<(), WeightsError> {
        let expected = self.layout.as_ref().and_then(|layout| layout.checksums.get(index));
        let due = match self.verify {
            Verify::Never => false,
            Verify::First => !self.verified[index].load(Ordering::Relaxed),
            Verify::Always => true,
        };
        if let (Some(&expected), true) = (expected, due) {
            let found = crc32fast::hash(bytes);
            if found != expected {
                let name = self.gguf.tensors()[index].name.clone();
                return Err(WeightsError::Checksum { path: self.path(), name, found, expected });
            }
            self.verified[index].store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Index of a tensor in the file.
    pub(super) fn tensor_number(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    fn matrix(
        &self,
        name: &str,
        ty: BlockType,
        [rows, cols]: [usize; 2],
        bytes: Bytes,
    ) -> Result<Matrix, WeightsError> {
        Matrix::new(ty, rows, cols, bytes).map_err(|source| WeightsError::Matrix {
            path: self.path(),
            name: name.into(),
            source,
        })
    }

    fn type_error(&self, info: &TensorInfo) -> WeightsError {
        WeightsError::Type {
            path: self.path(),
            name: info.name.clone(),
            found: info.ty.name().to_string(),
            allowed: BlockType::ALL.map(BlockType::name).join(", "),
        }
    }

    /// A plain tensor. Its dimensions, without trailing ones, must be the expected ones under any
    /// grouping of the rows (llama.cpp stacks heads in a third dimension).
    fn plain(
        &self,
        spec: &TensorSpec,
        info: &TensorInfo,
        bytes: Bytes,
    ) -> Result<Matrix, WeightsError> {
        let ty = info.ty.block_type().ok_or_else(|| self.type_error(info))?;
        let dims: Vec<usize> = info.dims.iter().map(|&d| d as usize).collect();
        let (cols, rows) = (dims[0], dims[1..].iter().product::<usize>());
        if (rows, cols) != (spec.rows, spec.cols) {
            return Err(self.shape_error(&spec.name, vec![rows, cols], [spec.rows, spec.cols]));
        }
        self.matrix(&spec.name, ty, [rows, cols], bytes)
    }

    /// A tensor, plain or coded, from its bytes.
    fn tensor_in(
        &self,
        spec: &TensorSpec,
        info: &TensorInfo,
        bytes: Bytes,
    ) -> Result<Matrix, WeightsError> {
        let coded = self.layout.as_ref().and_then(|layout| layout.tensors.get(&spec.name));
        let Some(&(ty, rows, cols)) = coded else { return self.plain(spec, info, bytes) };
        if (rows, cols) != (spec.rows, spec.cols) {
            return Err(self.shape_error(&spec.name, vec![rows, cols], [spec.rows, spec.cols]));
        }
        self.matrix(&spec.name, ty, [rows, cols], bytes)
    }

    /// Checks a tensor without its checksum.
    fn check_tensor(&self, spec: &TensorSpec) -> Result<(), WeightsError> {
        if self.source.is_some() {
            return self.tensor(spec).map(drop);
        }
        if let Some(info) = self.gguf.tensor(&spec.name) {
            return self.tensor_in(spec, info, self.gguf.bytes(info)).map(drop);
        }
        let whole = kv_b::whole(spec).map(|(whole, _)| whole);
        match whole.and_then(|whole| Some((self.gguf.tensor(&whole.name)?, whole))) {
            Some((info, whole)) => self.plain(&whole, info, self.gguf.bytes(info)).map(drop),
            None if spec.optional => Ok(()),
            None => Err(self.missing(&spec.name)),
        }
    }

    /// Checks an expert without its checksum.
    fn check_expert(&self, spec: &ExpertSpec) -> Result<(), WeightsError> {
        if self.source.is_some() {
            return self.record(spec).map(drop);
        }
        let stored = |name: &str| {
            let info = self.gguf.tensor(name).ok_or_else(|| self.missing(name))?;
            Ok::<_, WeightsError>(self.gguf.bytes(info))
        };
        if self.is_expert_major() {
            return self.split_record(spec, &stored(&spec.record_name())?).map(drop);
        }
        for projection in Projection::ALL {
            let name = &self.stack(spec, projection)?.info.name;
            let (stack, range) = (stored(name)?, self.stacked_range(spec, projection)?);
            let bytes = stack.slice(range).ok_or_else(|| self.missing(name))?;
            self.stacked_matrix(spec, projection, bytes)?;
        }
        Ok(())
    }

    /// Half of a `kv_b_proj` that the file stores whole.
    fn half_of_kv_b(&self, spec: &TensorSpec) -> Result<Option<Matrix>, WeightsError> {
        let Some((whole, kv_b)) = kv_b::whole(spec) else { return Ok(None) };
        let Some((info, bytes)) = self.read(&whole.name)? else { return Ok(None) };
        let matrix = self.plain(&whole, info, bytes)?;
        let half = kv_b::half(spec, &matrix, kv_b);
        let in_matrix =
            |source| WeightsError::Matrix { path: self.path(), name: whole.name.clone(), source };
        half.map(Some).map_err(in_matrix)
    }

    /// Bytes of a tensor in anonymous memory, according to the header.
    pub fn tensor_bytes(&self, spec: &TensorSpec) -> Option<u64> {
        if let Some(info) = self.gguf.tensor(&spec.name) {
            return Some(info.len);
        }
        let (whole, _) = kv_b::whole(spec)?;
        let info = self.gguf.tensor(&whole.name)?;
        match spec.hf {
            HfTensor::KvBKey(..) => Some(4 * spec.rows as u64 * spec.cols as u64),
            _ => Some(info.len),
        }
    }

    pub(super) fn shape_error(
        &self,
        name: &str,
        found: Vec<usize>,
        expected: [usize; 2],
    ) -> WeightsError {
        let expected = expected.to_vec();
        WeightsError::Shape { path: self.path(), name: name.into(), found, expected }
    }

    /// An expert from its record.
    fn expert_from_record(&self, spec: &ExpertSpec) -> Result<Expert, WeightsError> {
        let name = spec.record_name();
        let (_, record) = self.read(&name)?.ok_or_else(|| self.missing(&name))?;
        self.split_record(spec, &record)
    }

    /// The projections in an expert's record.
    pub(super) fn split_record(
        &self,
        spec: &ExpertSpec,
        record: &Bytes,
    ) -> Result<Expert, WeightsError> {
        let name = spec.record_name();
        let types = self.expert_types(spec).ok_or_else(|| self.missing(&name))?;
        let shapes = Projection::ALL.map(|projection| spec.shape(projection));
        let (ranges, len) = record_layout(types, shapes)
            .ok_or_else(|| self.shape_error(&name, vec![record.len()], [0, 0]))?;
        if record.len() != len {
            return Err(self.shape_error(&name, vec![record.len()], [1, len]));
        }
        let projection = |p: Projection| {
            let i = p as usize;
            let bytes = record.slice(ranges[i].clone()).ok_or_else(|| self.missing(&name))?;
            self.matrix(&name, types[i], [shapes[i].0, shapes[i].1], bytes)
        };
        Ok(Expert {
            gate: projection(Projection::Gate)?,
            up: projection(Projection::Up)?,
            down: projection(Projection::Down)?,
        })
    }

    /// One projection of an expert from its layer's stack.
    fn stacked_projection(
        &self,
        spec: &ExpertSpec,
        projection: Projection,
    ) -> Result<Matrix, WeightsError> {
        let name = &self.stack(spec, projection)?.info.name;
        let (_, stack) = self.read(name)?.ok_or_else(|| self.missing(name))?;
        let range = self.stacked_range(spec, projection)?;
        let bytes = stack.slice(range).ok_or_else(|| self.missing(name))?;
        self.stacked_matrix(spec, projection, bytes)
    }

    /// The stack with a projection of a layer's experts.
    pub(super) fn stack(
        &self,
        spec: &ExpertSpec,
        projection: Projection,
    ) -> Result<ExpertStack<'_>, WeightsError> {
        let name = spec.stack_name(projection);
        if let Some(info) = self.gguf.tensor(&name) {
            return Ok(ExpertStack { info, parts: 1, part: 0 });
        }
        match self.gguf.tensor(&spec.joined_stack_name()) {
            Some(info) if projection != Projection::Down => {
                Ok(ExpertStack { info, parts: 2, part: projection as usize })
            }
            _ => Err(self.missing(&name)),
        }
    }

    /// Byte range of an expert's projection in its layer's stack.
    pub(super) fn stacked_range(
        &self,
        spec: &ExpertSpec,
        projection: Projection,
    ) -> Result<std::ops::Range<usize>, WeightsError> {
        let ExpertStack { info, parts, part } = self.stack(spec, projection)?;
        let (rows, cols) = spec.shape(projection);
        let experts = self.config.moe.n_routed_experts;
        if info.dims != [cols as u64, (parts * rows) as u64, experts as u64] {
            let found = info.dims.iter().rev().map(|&d| d as usize).collect();
            return Err(self.shape_error(&info.name, found, [parts * rows, cols]));
        }
        let len = info.len as usize / experts / parts;
        let at = spec.expert.0 * parts + part;
        Ok(at * len..(at + 1) * len)
    }

    /// An expert's projection, from its bytes in the layer's stack.
    pub(super) fn stacked_matrix(
        &self,
        spec: &ExpertSpec,
        projection: Projection,
        bytes: Bytes,
    ) -> Result<Matrix, WeightsError> {
        let info = self.stack(spec, projection)?.info;
        let ty = info.ty.block_type().ok_or_else(|| self.type_error(info))?;
        let (rows, cols) = spec.shape(projection);
        self.matrix(&info.name, ty, [rows, cols], bytes)
    }
}

/// A tensor that stacks a projection of all experts of a layer.
pub(super) struct ExpertStack<'a> {
    pub info: &'a TensorInfo,
    /// Projections of each expert in it, and which of them this one is.
    parts: usize,
    part: usize,
}

/// Byte ranges of gate, up and down in an expert's record, and its length; `None` if a type cannot
/// hold its shape.
pub fn record_layout(
    types: [BlockType; 3],
    shapes: [(usize, usize); 3],
) -> Option<([std::ops::Range<usize>; 3], usize)> {
    let mut ranges = [0..0, 0..0, 0..0];
    let mut end = 0usize;
    for ((range, ty), (rows, cols)) in ranges.iter_mut().zip(types).zip(shapes) {
        let start = end.checked_next_multiple_of(PROJECTION_ALIGNMENT)?;
        end = start.checked_add(ty.byte_len(rows, cols)?)?;
        *range = start..end;
    }
    Some((ranges, end))
}

impl Weights for GgufWeights {
    fn config(&self) -> &Config {
        &self.config
    }

    fn tensor(&self, spec: &TensorSpec) -> Result<Option<Matrix>, WeightsError> {
        let Some((info, bytes)) = self.read(&spec.name)? else {
            return match self.half_of_kv_b(spec)? {
                None if !spec.optional => Err(self.missing(&spec.name)),
                half => Ok(half),
            };
        };
        self.tensor_in(spec, info, bytes).map(Some)
    }

    fn expert(&self, spec: &ExpertSpec) -> Result<Expert, WeightsError> {
        if let Some(source) = &self.source {
            return self.read_expert(&**source, spec);
        }
        match &self.layout {
            Some(_) => self.expert_from_record(spec),
            None => Ok(Expert {
                gate: self.stacked_projection(spec, Projection::Gate)?,
                up: self.stacked_projection(spec, Projection::Up)?,
                down: self.stacked_projection(spec, Projection::Down)?,
            }),
        }
    }

    fn check(&self) -> Result<(), WeightsError> {
        let config = &self.config;
        let runs = |layer: usize| layer < config.num_hidden_layers;
        for spec in config.family.tensors(config) {
            if spec.layer().is_none_or(runs) {
                self.check_tensor(&spec)?;
            }
        }
        for layer in (0..config.num_hidden_layers).filter(|layer| config.is_moe(*layer)) {
            // The experts of a stack are alike.
            let experts = if self.is_expert_major() { config.moe.n_routed_experts } else { 1 };
            for expert in 0..experts {
                self.check_expert(&config.family.expert(config, LayerId(layer), ExpertId(expert)))?;
            }
        }
        Ok(())
    }
}
