//! Simpler ways to spend the experts' bits, to hold the plan to.

use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::ExpertSpec;

use super::knapsack::Choice;
use super::survey::{Item, TYPES, combination};
use crate::importance::Importance;

/// What decides the types of a layer's experts. The trunk's are chosen in the same way under each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocation {
    /// What each expert's projections lose.
    #[default]
    PerExpert,
    /// What a projection of all experts of a layer loses: they get one type, as in a stacked tensor.
    PerTensor,
    /// How many tokens an expert saw, and nothing else of it.
    Frequency,
}

impl Allocation {
    /// The choices of one layer's experts as items of the knapsack: one for each expert, or one for all.
    pub(super) fn items(
        self,
        layer: &[Item<ExpertSpec>],
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
                let tokens = |item: &Item<ExpertSpec>| {
                    importance.and_then(|all| all.tokens(&item.spec)).unwrap_or(0) as f64
                };
                let mean = layer.iter().map(tokens).sum::<f64>() / layer.len().max(1) as f64;
                let choices = |item: &Item<ExpertSpec>| {
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

    /// Which of a layer's items says what an expert gets.
    pub(super) fn item_of(self, expert: usize) -> usize {
        if self == Self::PerTensor { 0 } else { expert }
    }
}

/// The relative squared error that a type leaves of Gaussian weights.
fn usual_error(ty: BlockType) -> f64 {
    let errors = [0.096, 0.024, 0.0057, 0.00002];
    TYPES.iter().position(|one| *one == ty).map_or(0.0, |at| errors[at])
}
