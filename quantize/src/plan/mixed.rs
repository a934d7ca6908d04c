//! The mixed plan: assigns types so that the total error is least for a given size of the whole
//! file.

use std::collections::HashMap;

use vaquita_runtime::blocks::BlockType;

use super::error::{PlanError, Target};
use super::knapsack::Choice;
use super::survey::{Survey, TYPES, combination, fitted};
use super::{Allocation, Material, Plan, fit, knapsack};
use crate::progress::Progress;

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
