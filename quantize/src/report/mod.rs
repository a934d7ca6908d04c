//! What a finished file is: sizes, true bits, errors. [`page`] draws it.

mod page;

use std::collections::BTreeMap;

use serde::Serialize;
use vaquita_runtime::checkpoint::Role;

use crate::container::{Item, Layout};
use crate::encoders::Distortion;

pub use page::page;

/// How many of the worst tensors are named.
const WORST: usize = 10;

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
    /// The tensors with the largest errors, the worst first.
    pub worst: Vec<TensorReport>,
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

/// What quantizing a tensor, or an expert's record, lost, as in [`LayerReport`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorReport {
    /// Its name in the file.
    pub name: String,
    /// Its type; of an expert whose projections have several, all three.
    #[serde(rename = "type")]
    pub ty: String,
    /// Its error.
    pub error: f64,
}

impl Report {
    /// Of a file and what each of its items lost; nothing resumed, and no time taken.
    pub(crate) fn new(plan: String, layout: &Layout, distortions: &[Distortion]) -> Self {
        let (mut errors, mut worst) = (Errors::default(), Vec::new());
        let (mut trunk_types, mut expert_types) = (BTreeMap::new(), BTreeMap::new());
        let (mut parameters, mut expert_parameters, mut expert_bytes) = (0, 0, 0);
        let tensors = layout.tensors.iter();
        for ((item, tensor), lost) in layout.items.iter().zip(tensors).zip(distortions) {
            parameters += item.parameters();
            errors.add(item, *lost);
            let (name, ty) = (item.name(), item.type_name());
            worst.push(TensorReport { name, ty, error: lost.relative() });
            match item {
                Item::Tensor(spec, ty) => {
                    if !matches!(spec.role, Role::Vector | Role::Router) {
                        *trunk_types.entry(ty.name().into()).or_default() += 1;
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
        // A stable sort: of equal ones, the first in the file.
        worst.sort_by(|a, b| b.error.total_cmp(&a.error));
        worst.truncate(WORST);
        let bits = |bytes: u64, weights: u64| bytes as f64 * 8.0 / weights.max(1) as f64;
        Self {
            plan,
            file_bytes: layout.file_bytes,
            parameters,
            resumed_parameters: 0,
            bits_per_weight: bits(layout.file_bytes, parameters),
            expert_bits_per_weight: bits(expert_bytes, expert_parameters),
            expert_types,
            trunk_types,
            layers: errors.layers(),
            worst,
            seconds: 0.0,
        }
    }
}

/// Adds up errors by layer.
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

    fn layers(&self) -> Vec<LayerReport> {
        let layers = self.0.iter().map(|(layer, (experts, others))| LayerReport {
            layer: *layer,
            expert_error: experts.as_ref().map(Distortion::relative),
            other_error: others.relative(),
        });
        layers.collect()
    }
}
