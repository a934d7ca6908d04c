//! Simpler allocations of the experts' bits, as baselines for the plan.

use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::ExpertSpec;

use super::knapsack::Choice;
use super::survey::{SurveyItem, TYPES, combination};
use crate::importance::Importance;

/// Criterion for the types of a layer's experts. Dense weights are treated the same way under each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocation {
    /// Error of each expert's projections.
    #[default]
    PerExpert,
    /// Error of a projection over all experts of a layer, which get one type, as in a stacked
    /// tensor.
    PerTensor,
    /// Number of tokens routed to an expert, and nothing else.
    Frequency,
}

impl Allocation {
    /// Knapsack items of one layer's experts: one per expert, or one for all.
    pub(super) fn items(
        self,
        layer: &[SurveyItem<ExpertSpec>],
        importance: Option<&dyn Importance>,
    ) -> Vec<Vec<Choice>> {
        match self {
            Self::PerExpert => layer.iter().map(|item| item.choices.clone()).collect(),
            Self::PerTensor => layer.first().map_or(Vec::new(), |first| {
                let sum = |at: usize| {
                    let all = layer.iter().map(|item| item.choices[at]);
                    all.fold(Choice { bytes: 0, cost: 0.0 }, |sum, one| Choice {
                        bytes: sum.bytes + one.bytes,
                        cost: sum.cost + one.cost,
                    })
                };
                vec![(0..first.choices.len()).map(sum).collect()]
            }),
            Self::Frequency => {
                let tokens = |item: &SurveyItem<ExpertSpec>| {
                    importance.and_then(|all| all.tokens(&item.spec)).unwrap_or(0) as f64
                };
                let mean = layer.iter().map(tokens).sum::<f64>() / layer.len().max(1) as f64;
                let choices = |item: &SurveyItem<ExpertSpec>| {
                    let share = if mean > 0.0 { tokens(item) / mean } else { 0.1 };
                    let choice = |(at, choice): (usize, &Choice)| {
                        let cost = share * combination(at).map(usual_error).iter().sum::<f64>();
                        Choice { cost, ..*choice }
                    };
                    item.choices.iter().enumerate().map(choice).collect()
                };
                layer.iter().map(choices).collect()
            }
        }
    }

    /// Index of the item that determines an expert's types.
    pub(super) fn item_of(self, expert: usize) -> usize {
        if self == Self::PerTensor { 0 } else { expert }
    }
}

/// Relative squared error of a type on Gaussian weights.
fn usual_error(ty: BlockType) -> f64 {
    let errors = [0.096, 0.024, 0.0057, 0.00002];
    TYPES.iter().position(|one| *one == ty).map_or(0.0, |at| errors[at])
}
