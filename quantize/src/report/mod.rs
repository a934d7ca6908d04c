//! Report on a finished file: sizes, bits per weight, errors. [`page`] draws it, and a
//! [`Card`] presents it where the file is published.

mod card;
mod page;

use std::collections::BTreeMap;

use serde::Serialize;
use vaquita_runtime::checkpoint::Role;

use crate::container::{Item, Layout};
use crate::encoders::Distortion;

pub use card::{Card, license_of};
pub use page::page;

/// Number of tensors listed as the worst.
const WORST: usize = 10;

/// Report on a finished file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the plan.
    pub plan: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Number of weights.
    pub parameters: u64,
    /// Number of weights that an earlier run had written.
    pub resumed_parameters: u64,
    /// Bits of the whole file per weight.
    pub bits_per_weight: f64,
    /// The same without the layers that only draft tokens (MTP); `None` where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_weight_without_drafts: Option<f64>,
    /// Bits of the experts' records per weight of the experts.
    pub expert_bits_per_weight: f64,
    /// Number of experts' projections by block type.
    pub expert_types: BTreeMap<String, usize>,
    /// Number of dense matrices by block type.
    #[serde(rename = "trunk_types")]
    pub dense_types: BTreeMap<String, usize>,
    /// Errors by layer.
    pub layers: Vec<LayerReport>,
    /// The tensors with the largest errors, the worst first, but for those that only draft tokens.
    pub worst: Vec<TensorReport>,
    /// Duration in seconds.
    pub seconds: f64,
}

/// Quantization error of a layer: squared error relative to the squared weights, both weighted by
/// importance if there is a calibration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerReport {
    /// Layer; `None` for embedding and output head.
    pub layer: Option<usize>,
    /// Whether the layer only drafts tokens (MTP), so that its error changes no answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drafts: bool,
    /// Error of the routed experts; `None` if the layer has none.
    pub expert_error: Option<f64>,
    /// Error of all other tensors.
    pub other_error: f64,
}

/// Quantization error of a tensor or an expert's record, as in [`LayerReport`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorReport {
    /// Name in the file.
    pub name: String,
    /// Type; all three if the projections of an expert differ.
    #[serde(rename = "type")]
    pub ty: String,
    /// Error.
    pub error: f64,
}

impl LayerReport {
    /// Name of the layer: its number, or the name of a part that has no number.
    pub fn name(&self) -> String {
        match self.layer {
            Some(layer) if self.drafts => format!("{layer} (drafts)"),
            Some(layer) => layer.to_string(),
            None => "embedding, output".into(),
        }
    }
}

impl Report {
    /// Reports on a file and the distortion of each item; nothing resumed, and no duration. Layers
    /// from `decoders` on only draft tokens.
    pub(crate) fn new(
        plan: String,
        layout: &Layout,
        decoders: usize,
        distortions: &[Distortion],
    ) -> Self {
        let (mut errors, mut worst) = (Errors::default(), Vec::new());
        let (mut draft_parameters, mut draft_bytes) = (0, 0);
        let (mut dense_types, mut expert_types) = (BTreeMap::new(), BTreeMap::new());
        let (mut parameters, mut expert_parameters, mut expert_bytes) = (0, 0, 0);
        let tensors = layout.tensors.iter();
        for ((item, tensor), lost) in layout.items.iter().zip(tensors).zip(distortions) {
            parameters += item.parameters();
            errors.add(item, *lost);
            let (name, ty) = (item.name(), item.type_name());
            if item.layer().is_some_and(|layer| layer >= decoders) {
                draft_parameters += item.parameters();
                draft_bytes += tensor.ty.byte_len(&tensor.dims).unwrap_or(0);
            } else {
                worst.push(TensorReport { name, ty, error: lost.relative() });
            }
            match item {
                Item::Tensor(spec, ty) => {
                    if !matches!(spec.role, Role::Vector | Role::Router) {
                        *dense_types.entry(ty.name().into()).or_default() += 1;
                    }
                }
                Item::Expert(_, types) => {
                    expert_parameters += item.parameters();
                    expert_bytes += tensor.dims.iter().product::<u64>();
                    for ty in types {
                        *expert_types.entry(ty.name().into()).or_default() += 1;
                    }
                }
            }
        }
        // A stable sort: ties stay in file order.
        worst.sort_by(|a, b| b.error.total_cmp(&a.error));
        worst.truncate(WORST);
        let bits = |bytes: u64, weights: u64| bytes as f64 * 8.0 / weights.max(1) as f64;
        Self {
            plan,
            file_bytes: layout.file_bytes,
            parameters,
            resumed_parameters: 0,
            bits_per_weight: bits(layout.file_bytes, parameters),
            bits_per_weight_without_drafts: (draft_parameters > 0)
                .then(|| bits(layout.file_bytes - draft_bytes, parameters - draft_parameters)),
            expert_bits_per_weight: bits(expert_bytes, expert_parameters),
            expert_types,
            dense_types,
            layers: errors.layers(decoders),
            worst,
            seconds: 0.0,
        }
    }
}

/// Accumulates errors by layer.
#[derive(Default)]
struct Errors(BTreeMap<Option<usize>, (Option<Distortion>, Distortion)>);

impl Errors {
    fn add(&mut self, item: &Item, lost: Distortion) {
        let (experts, others) = self.0.entry(item.layer()).or_default();
        match item {
            Item::Tensor(..) => *others += lost,
            Item::Expert(..) => *experts.get_or_insert_default() += lost,
        }
    }

    fn layers(&self, decoders: usize) -> Vec<LayerReport> {
        let layers = self.0.iter().map(|(layer, (experts, others))| LayerReport {
            layer: *layer,
            drafts: layer.is_some_and(|layer| layer >= decoders),
            expert_error: experts.as_ref().map(Distortion::relative),
            other_error: others.relative(),
        });
        layers.collect()
    }
}
