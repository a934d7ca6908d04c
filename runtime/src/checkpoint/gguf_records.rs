//! Experts and tensors of a GGUF file that is read instead of mapped.
//!
//! A [`Record`] says which whole pages of the file hold an expert and where they go in its memory: one range
//! in the expert-major layout, one per projection where a layer's experts are stacked.

use std::sync::Arc;

use super::gguf_weights::{GgufWeights, record_layout};
use super::source::Source;
use super::{Expert, ExpertSpec, Projection, WeightsError};
use crate::bytes::{Bytes, Pages};
use crate::gguf::TensorInfo;

/// Bytes of a file that are read together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which file of the model.
    pub part: usize,
    /// Where in it, at the start of a page.
    pub offset: u64,
    /// Bytes to read, whole pages; the file may end before.
    pub len: usize,
    /// Bytes that must be there.
    pub needed: usize,
    /// Where they go, at the start of a page.
    pub at: usize,
    /// Where within them the wanted bytes begin.
    pub skip: usize,
}

impl Extent {
    /// The pages around `len` bytes from `offset` on, to be put at `at`; `None` where that overflows.
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

    /// The wanted bytes, once they were read into `pages`.
    fn wanted(&self, pages: &Bytes) -> Option<Bytes> {
        pages.slice(self.at + self.skip..self.at + self.needed)
    }

    /// Reads it into `pages`, where it belongs there.
    pub fn read(&self, source: &dyn Source, pages: &mut [u8]) -> std::io::Result<()> {
        let into = pages.get_mut(self.at..self.end()).ok_or(std::io::ErrorKind::InvalidInput)?;
        source.read(self.part, self.offset, into, self.needed)
    }
}

/// Where an expert lies in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What to read.
    extents: Vec<Extent>,
    /// Number of the tensor that is this record, where it has a checksum of its own.
    tensor: Option<usize>,
}

impl Record {
    /// Bytes of memory it takes, whole pages.
    pub fn bytes(&self) -> usize {
        self.extents.last().map_or(0, Extent::end)
    }

    /// Its parts of at most `len` bytes, to be read one by one by [`Extent::read`].
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

    /// Reads it into `pages`, which holds at least [`Record::bytes`].
    pub fn read(&self, source: &dyn Source, pages: &mut [u8]) -> std::io::Result<()> {
        self.extents.iter().try_for_each(|extent| extent.read(source, pages))
    }
}

impl GgufWeights {
    /// Where an expert lies.
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
            let stack = spec.stack_name(projection);
            let info = self.gguf.tensor(&stack).ok_or_else(|| self.missing(&stack))?;
            let range = self.stacked_range(spec, projection)?;
            let at = extents.last().map_or(0, Extent::end);
            let offset = info.offset + range.start as u64;
            let extent = Extent::around(info.part, offset, range.len(), at);
            extents.push(extent.ok_or_else(too_large)?);
        }
        Ok(Record { extents, tensor: None })
    }

    /// The expert in the memory that its record was read into. Its checksum is verified where that is due.
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

    /// Lets go of the mapped file: from here on, tensors are read through `source` into memory of their own,
    /// and experts are views of nothing but what [`GgufWeights::record`] was read into.
    pub fn detach(&mut self, source: Arc<dyn Source>) {
        self.gguf.unmap();
        self.source = Some(source);
    }

    /// An expert, read.
    pub(super) fn read_expert(
        &self,
        source: &dyn Source,
        spec: &ExpertSpec,
    ) -> Result<Expert, WeightsError> {
        let in_io = |source| WeightsError::Io { path: self.path(), source };
        let record = self.record(spec)?;
        let mut pages = Pages::new(record.bytes()).map_err(in_io)?;
        record.read(source, &mut pages).map_err(in_io)?;
        self.expert_in(spec, &record, &Bytes::from(Arc::new(pages)))
    }

    /// A tensor's bytes, read.
    pub(super) fn read_tensor(
        &self,
        source: &dyn Source,
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
