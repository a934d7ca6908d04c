//! File extents and slot sizes of all experts.

use std::io;

use super::policies::{ExpertKey, Shape};
use crate::bytes::Pages;
use crate::checkpoint::gguf_records::Record;
use crate::checkpoint::{ExpertId, GgufWeights, LayerId, Weights, WeightsError};

/// Location of an expert in the file, and the size of its slot in memory.
pub struct ExpertExtent {
    /// The byte ranges to read.
    pub record: Record,
    /// Bytes of the slot.
    pub slot_bytes: usize,
}

/// Extents of all experts of a file.
pub struct ExpertIndex {
    /// Number of layers and experts.
    pub shape: Shape,
    /// Extents by [`Shape::index`]; `None` in layers without experts.
    records: Vec<Option<ExpertExtent>>,
    /// Number of layers that run for every token (without draft layers).
    layers_run: usize,
}

impl ExpertIndex {
    /// Indexes the experts of a file.
    pub fn find(weights: &GgufWeights) -> Result<Self, WeightsError> {
        let config = weights.config();
        let shape = Shape {
            layers: config.num_layers_stored(),
            experts: config.moe.n_routed_experts,
            per_token: config.moe.num_experts_per_tok,
        };
        let mut records = Vec::with_capacity(shape.len());
        for layer in 0..shape.layers {
            for expert in 0..shape.experts {
                if !config.is_moe(layer) {
                    records.push(None);
                    continue;
                }
                let spec = config.family.expert(config, LayerId(layer), ExpertId(expert));
                let record = weights.record(&spec)?;
                let slot_bytes = Pages::rounded(record.bytes());
                let source = io::ErrorKind::OutOfMemory.into();
                let too_large = WeightsError::Io { path: weights.gguf().path().into(), source };
                records
                    .push(Some(ExpertExtent { record, slot_bytes: slot_bytes.ok_or(too_large)? }));
            }
        }
        Ok(Self { shape, records, layers_run: config.num_hidden_layers })
    }

    /// The extent of an expert.
    pub fn get(&self, key: ExpertKey) -> Option<&ExpertExtent> {
        self.records.get(self.shape.index(key))?.as_ref()
    }

    /// Bytes of one token's experts in the largest layer: the least that a store can work with.
    pub fn least_bytes(&self) -> usize {
        self.bytes_of_layers().max().unwrap_or(0)
    }

    /// Bytes of one token's experts in all layers that run.
    pub fn cycle_bytes(&self) -> usize {
        self.bytes_of_layers().take(self.layers_run).sum()
    }

    /// Bytes of all experts in the layers that run.
    pub fn total_bytes(&self) -> usize {
        let run = self.layers_run * self.shape.experts;
        self.records.iter().take(run).flatten().map(|extent| extent.slot_bytes).sum()
    }

    /// Bytes of one token's experts in the first draft layer, and of all experts there.
    pub fn draft_bytes(&self) -> [usize; 2] {
        let experts = self.records.chunks(self.shape.experts.max(1)).nth(self.layers_run);
        let all = experts.unwrap_or_default().iter().flatten().map(|extent| extent.slot_bytes);
        [self.bytes_of_layers().nth(self.layers_run).unwrap_or(0), all.sum()]
    }

    /// Bytes of the largest expert.
    pub fn largest_bytes(&self) -> usize {
        self.records.iter().flatten().map(|extent| extent.slot_bytes).max().unwrap_or(0)
    }

    /// For each layer, the bytes of the largest experts that a token can be routed to.
    fn bytes_of_layers(&self) -> impl Iterator<Item = usize> + '_ {
        self.records.chunks(self.shape.experts.max(1)).map(|layer| {
            let mut sizes: Vec<usize> = layer.iter().flatten().map(|p| p.slot_bytes).collect();
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            sizes.iter().take(self.shape.per_token).sum()
        })
    }
}
