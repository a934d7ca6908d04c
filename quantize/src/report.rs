//! What a finished file is: sizes, true bits, errors.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::encoders::Distortion;

/// A finished file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The plan's name.
    pub plan: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Weights in it.
    pub parameters: u64,
    /// Of these, weights that an earlier run had written.
    pub resumed_parameters: u64,
    /// Bits of the whole file per weight.
    pub bits_per_weight: f64,
    /// Bits of the experts' records per weight of the experts.
    pub expert_bits_per_weight: f64,
    /// Projections of experts by block type.
    pub expert_types: BTreeMap<String, usize>,
    /// Matrices of the trunk by block type.
    pub trunk_types: BTreeMap<String, usize>,
    /// Errors by layer.
    pub layers: Vec<LayerReport>,
    /// Time taken.
    pub seconds: f64,
}

/// What quantizing a layer lost: squared error relative to the squared weights, both weighed by importance where
/// there is a calibration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerReport {
    /// The layer; `None` for embedding and output.
    pub layer: Option<usize>,
    /// Of its routed experts; `None` where it has none.
    pub expert_error: Option<f64>,
    /// Of everything else.
    pub other_error: f64,
}

/// Adds up errors as tensors are written.
#[derive(Default)]
pub(crate) struct Errors(BTreeMap<Option<usize>, (Option<Distortion>, Distortion)>);

impl Errors {
    /// A tensor that is not an expert. Its layer is in its name: `blk.7.attn_q.weight`.
    pub fn add_tensor(&mut self, name: &str, distortion: Distortion) {
        let layer = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
        self.0.entry(layer).or_default().1 += distortion;
    }

    /// A routed expert.
    pub fn add_expert(&mut self, layer: usize, distortion: Distortion) {
        *self.0.entry(Some(layer)).or_default().0.get_or_insert_default() += distortion;
    }

    pub fn layers(&self) -> Vec<LayerReport> {
        let layers = self.0.iter().map(|(layer, (experts, others))| LayerReport {
            layer: *layer,
            expert_error: experts.as_ref().map(Distortion::relative),
            other_error: others.relative(),
        });
        layers.collect()
    }
}
