//! Reads experts and tensors of a GGUF file that is not mapped.
//!
//! A [`Record`] lists the whole pages of the file that contain an expert and their places in
//! memory: one extent in the expert-major layout, one per projection where a layer's experts are
//! stacked.

use std::sync::Arc;

use super::gguf_weights::{GgufWeights, record_layout};
use super::source::ByteSource;
use super::{Expert, ExpertSpec, Projection, WeightsError};
use crate::bytes::{Bytes, Pages};
use crate::gguf::TensorInfo;

/// Contiguous bytes of a file that are read together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Index of the file in a split model.
    pub part: usize,
    /// Offset in the file, at the start of a page.
    pub offset: u64,
    /// Length to read in whole pages, which may extend beyond the end of the file.
    pub len: usize,
    /// Number of bytes that must be read.
    pub needed: usize,
    /// Offset in memory, at the start of a page.
    pub at: usize,
    /// Offset of the requested bytes within the bytes read.
    pub skip: usize,
}

impl Extent {
    /// The pages that contain the `len` bytes at `offset`, to be placed at `at`; `None` on
    /// overflow.
    fn around(part: usize, offset: u64, len: usize, at: usize) -> Option<Self> {
        let page = Pages::SIZE as u64;
        let skip = (offset % page) as usize;
        let needed = skip.checked_add(len)?;
        let len = needed.checked_next_multiple_of(Pages::SIZE)?;
        Some(Self { part, offset: offset - skip as u64, len, needed, at, skip })
    }

    fn end(&self) -> usize {
        self.at + self.len
    }

    /// The requested bytes in `pages`, once the extent has been read.
    fn wanted(&self, pages: &Bytes) -> Option<Bytes> {
        pages.slice(self.at + self.skip..self.at + self.needed)
    }

    /// Reads the extent into its place in `pages`.
    pub fn read(&self, source: &dyn ByteSource, pages: &mut [u8]) -> std::io::Result<()> {
        let into = pages.get_mut(self.at..self.end()).ok_or(std::io::ErrorKind::InvalidInput)?;
        source.read(self.part, self.offset, into, self.needed)
    }
}

/// File extents of an expert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The extents to read.
    extents: Vec<Extent>,
    /// Index of the tensor that is this record, if it has its own checksum.
    tensor: Option<usize>,
}

impl Record {
    /// Bytes of memory for the record, in whole pages.
    pub fn bytes(&self) -> usize {
        self.extents.last().map_or(0, Extent::end)
    }

    /// The record in pieces of at most `len` bytes, for [`Extent::read`].
    pub fn pieces(&self, len: usize) -> impl Iterator<Item = Extent> + '_ {
        let len = len.next_multiple_of(Pages::SIZE).max(Pages::SIZE);
        self.extents.iter().flat_map(move |extent| {
            (0..extent.len).step_by(len).map(move |from| Extent {
                part: extent.part,
                offset: extent.offset + from as u64,
                len: len.min(extent.len - from),
                needed: len.min(extent.needed.saturating_sub(from)),
                at: extent.at + from,
                skip: 0,
            })
        })
    }

    /// Reads the record into `pages`, which holds at least [`Record::bytes`].
    pub fn read(&self, source: &dyn ByteSource, pages: &mut [u8]) -> std::io::Result<()> {
        self.extents.iter().try_for_each(|extent| extent.read(source, pages))
    }
}

impl GgufWeights {
    /// The file extents of an expert.
    pub fn record(&self, spec: &ExpertSpec) -> Result<Record, WeightsError> {
        let name = spec.record_name();
        let too_large = || self.shape_error(&name, vec![usize::MAX], [0, 0]);
        if self.is_expert_major() {
            let tensor = self.tensor_number(&name).ok_or_else(|| self.missing(&name))?;
            let info = &self.gguf.tensors()[tensor];
            let types = self.expert_types(spec).ok_or_else(|| self.missing(&name))?;
            let shapes = Projection::ALL.map(|projection| spec.shape(projection));
            let (_, len) = record_layout(types, shapes).ok_or_else(too_large)?;
            if info.len != len as u64 {
                return Err(self.shape_error(&name, vec![info.len as usize], [1, len]));
            }
            let extent = Extent::around(info.part, info.offset, len, 0).ok_or_else(too_large)?;
            return Ok(Record { extents: vec![extent], tensor: Some(tensor) });
        }
        let mut extents: Vec<Extent> = Vec::with_capacity(3);
        for projection in Projection::ALL {
            let info = self.stack(spec, projection)?.info;
            let range = self.stacked_range(spec, projection)?;
            let at = extents.last().map_or(0, Extent::end);
            let offset = info.offset + range.start as u64;
            let extent = Extent::around(info.part, offset, range.len(), at);
            extents.push(extent.ok_or_else(too_large)?);
        }
        Ok(Record { extents, tensor: None })
    }

    /// The expert in the memory that its record was read into. Verifies its checksum if required.
    pub fn expert_in(
        &self,
        spec: &ExpertSpec,
        record: &Record,
        pages: &Bytes,
    ) -> Result<Expert, WeightsError> {
        let wanted = |i: usize| {
            let bytes = record.extents.get(i).and_then(|extent| extent.wanted(pages));
            bytes.ok_or_else(|| self.missing(&spec.record_name()))
        };
        if let Some(tensor) = record.tensor {
            let bytes = wanted(0)?;
            self.verify(tensor, &bytes)?;
            return self.split_record(spec, &bytes);
        }
        let matrix =
            |projection| self.stacked_matrix(spec, projection, wanted(projection as usize)?);
        Ok(Expert {
            gate: matrix(Projection::Gate)?,
            up: matrix(Projection::Up)?,
            down: matrix(Projection::Down)?,
        })
    }

    /// Unmaps the file. From here on, tensors are read through `source` into anonymous memory, and
    /// experts are views of memory that [`GgufWeights::record`] was read into.
    pub fn detach(&mut self, source: Arc<dyn ByteSource>) {
        self.gguf.unmap();
        self.source = Some(source);
    }

    /// Reads an expert through the source.
    pub(super) fn read_expert(
        &self,
        source: &dyn ByteSource,
        spec: &ExpertSpec,
    ) -> Result<Expert, WeightsError> {
        let in_io = |source| WeightsError::Io { path: self.path(), source };
        let record = self.record(spec)?;
        let mut pages = Pages::new(record.bytes()).map_err(in_io)?;
        record.read(source, &mut pages).map_err(in_io)?;
        self.expert_in(spec, &record, &Bytes::from(Arc::new(pages)))
    }

    /// Reads the bytes of a tensor through the source.
    pub(super) fn read_tensor(
        &self,
        source: &dyn ByteSource,
        info: &TensorInfo,
    ) -> Result<Bytes, WeightsError> {
        let in_io = |source| WeightsError::Io { path: self.path(), source };
        let memory = || in_io(std::io::ErrorKind::OutOfMemory.into());
        let len = usize::try_from(info.len).map_err(|_| memory())?;
        let extent = Extent::around(info.part, info.offset, len, 0).ok_or_else(memory)?;
        let mut pages = Pages::new(extent.len).map_err(in_io)?;
        extent.read(source, &mut pages).map_err(in_io)?;
        extent.wanted(&Bytes::from(Arc::new(pages))).ok_or_else(|| self.missing(&info.name))
    }
}
