//! Which experts the texts reached.

use serde::Serialize;

use super::Statistics;

/// Coverage of all layers with experts that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Coverage {
    /// By layer.
    pub layers: Vec<LayerCoverage>,
}

/// Coverage of one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerCoverage {
    /// The layer.
    pub layer: usize,
    /// Its experts.
    pub experts: usize,
    /// Fewest tokens that an expert got.
    pub least: u64,
    /// The median.
    pub median: u64,
    /// Most tokens that an expert got.
    pub most: u64,
    /// Experts that got none.
    pub unseen: Vec<usize>,
}

impl Statistics {
    /// Which experts saw how much.
    pub fn coverage(&self) -> Coverage {
        let layers = self.experts.iter().map(|(layer, experts)| {
            let mut tokens: Vec<u64> = experts.iter().map(|expert| expert.tokens).collect();
            let unseen = (0..tokens.len()).filter(|at| tokens[*at] == 0).collect();
            tokens.sort_unstable();
            LayerCoverage {
                layer: *layer,
                experts: tokens.len(),
                least: tokens.first().copied().unwrap_or(0),
                median: tokens.get(tokens.len() / 2).copied().unwrap_or(0),
                most: tokens.last().copied().unwrap_or(0),
                unseen,
            }
        });
        Coverage { layers: layers.collect() }
    }
}
