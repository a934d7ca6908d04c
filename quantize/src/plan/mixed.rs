//! The mixed plan: assigns types so that the total error is least for a given size of the whole
//! file.

use std::collections::HashMap;

use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::WeightsError;

use super::knapsack::Choice;
use super::survey::{Survey, TYPES, combination, fitted};
use super::{Allocation, Material, Plan, fit, knapsack};
use crate::container::ContainerError;
use crate::encoders::EncodeError;
use crate::progress::Progress;

/// Size target of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Bits of the whole file per weight of the model.
    BitsPerWeight(f64),
    /// Bytes of the whole file.
    Bytes(u64),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BitsPerWeight(bits) => write!(f, "{bits} bits per weight"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

/// Error of making a plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No assignment of types makes the file small enough.
    #[error(
        "{target} cannot be reached: this model takes from {least_bytes} bytes ({least_bits:.3} bits per weight) to {most_bytes} bytes ({most_bits:.3})"
    )]
    Unreachable {
        /// The target.
        target: Target,
        /// Size of the smallest file.
        least_bytes: u64,
        /// Bits per weight of the smallest file.
        least_bits: f64,
        /// Size of the largest file.
        most_bytes: u64,
        /// Bits per weight of the largest file.
        most_bits: f64,
    },
    /// A weight cannot be encoded.
    #[error("tensor {name}: {source}")]
    Encode {
        /// The tensor.
        name: String,
        /// The encoding error.
        source: EncodeError,
    },
    /// Reading failed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The size of the file cannot be computed.
    #[error(transparent)]
    Container(#[from] ContainerError),
}

/// Plans the largest file within the target. A target beyond the largest file yields the largest.
pub fn mixed(
    material: &Material,
    target: Target,
    progress: &mut dyn FnMut(Progress),
) -> Result<Plan, PlanError> {
    Survey::new(material, progress)?.plan(material, target, Allocation::PerExpert)
}

impl Survey {
    /// The plan with the least error within a target.
    pub fn plan(
        &self,
        material: &Material,
        target: Target,
        allocation: Allocation,
    ) -> Result<Plan, PlanError> {
        let kind = match allocation {
            Allocation::PerExpert => "mixed",
            Allocation::PerTensor => "mixed per tensor",
            Allocation::Frequency => "mixed by frequency",
        };
        let name = match target {
            Target::BitsPerWeight(bits) => format!("{kind}, at most {bits} bits per weight"),
            Target::Bytes(bytes) => format!("{kind}, at most {bytes} bytes"),
        };
        let budget = match target {
            Target::Bytes(bytes) => bytes,
            Target::BitsPerWeight(bits) => (bits * self.parameters as f64 / 8.0) as u64,
        };
        let unreachable = || {
            let bits = |bytes: u64| bytes as f64 * 8.0 / self.parameters as f64;
            let [least_bytes, most_bytes] = self.bytes;
            let (least_bits, most_bits) = (bits(least_bytes), bits(most_bytes));
            PlanError::Unreachable { target, least_bytes, least_bits, most_bytes, most_bits }
        };
        let dense = self.dense.iter().map(|item| item.choices.clone());
        let experts: Vec<Vec<Vec<Choice>>> = (self.experts.iter())
            .map(|layer| allocation.items(layer, material.importance))
            .collect();
        let items: Vec<_> = dense.chain(experts.iter().flatten().cloned()).collect();
        let chosen = budget
            .checked_sub(self.fixed_bytes())
            .and_then(|budget| knapsack::solve(&items, budget))
            .ok_or_else(unreachable)?;

        let (of_dense, of_experts) = chosen.split_at(self.dense.len());
        let tensors: HashMap<String, BlockType> = (self.dense.iter().zip(of_dense))
            .map(|(item, at)| (item.spec.name.clone(), fit(TYPES[*at], item.spec.cols)))
            .collect();
        let mut rest = of_experts;
        let mut types = Vec::with_capacity(self.experts.len());
        for (layer, items) in self.experts.iter().zip(&experts) {
            let (chosen, after) = rest.split_at(items.len());
            let layer = layer.iter().enumerate().map(|(expert, item)| {
                fitted(&item.spec, combination(chosen[allocation.item_of(expert)]))
            });
            types.push(layer.collect());
            rest = after;
        }
        Ok(Plan {
            name,
            tensors,
            first_layer: self.config.moe.first_k_dense_replace,
            experts: types,
        })
    }
}
