//! Where a file's experts lie, and what they take in memory.

use std::io;

use super::policies::{Key, Shape};
use crate::bytes::Pages;
use crate::checkpoint::gguf_records::Record;
use crate::checkpoint::{ExpertId, GgufWeights, LayerId, Weights, WeightsError};

/// A record and the bytes of its slot.
pub struct Placed {
    /// What to read.
    pub record: Record,
    /// What it takes in memory.
    pub slot_bytes: usize,
}

/// All experts of a file.
pub struct Placement {
    /// How many there are.
    pub shape: Shape,
    /// By [`Shape::index`]; none in layers without experts.
    records: Vec<Option<Placed>>,
    /// Layers that are run for every token.
    layers_run: usize,
}

impl Placement {
    /// Finds the experts of a file.
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
                records.push(Some(Placed { record, slot_bytes: slot_bytes.ok_or(too_large)? }));
            }
        }
        Ok(Self { shape, records, layers_run: config.num_hidden_layers })
    }

    /// Where an expert lies.
    pub fn get(&self, key: Key) -> Option<&Placed> {
        self.records.get(self.shape.index(key))?.as_ref()
    }

    /// Bytes that one token needs of the largest layer: less cannot be computed with.
    pub fn least_bytes(&self) -> usize {
        self.bytes_of_layers().max().unwrap_or(0)
    }

    /// Bytes that one token needs of all layers that are run.
    pub fn cycle_bytes(&self) -> usize {
        self.bytes_of_layers().take(self.layers_run).sum()
    }

    /// Bytes of all experts of the layers that are run.
    pub fn total_bytes(&self) -> usize {
        let run = self.layers_run * self.shape.experts;
        self.records.iter().take(run).flatten().map(|placed| placed.slot_bytes).sum()
    }

    /// Bytes of the largest expert.
    pub fn largest_bytes(&self) -> usize {
        self.records.iter().flatten().map(|placed| placed.slot_bytes).max().unwrap_or(0)
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
