//! Coverage of the experts by the texts.

use serde::{Deserialize, Serialize};

use super::{ExactStatistics, Statistics};

/// Coverage of all layers with experts that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Coverage {
    /// Coverage by layer.
    pub layers: Vec<LayerCoverage>,
}

/// Coverage of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerCoverage {
    /// Index of the layer.
    pub layer: usize,
    /// Number of experts.
    pub experts: usize,
    /// Fewest tokens of any expert.
    pub least: u64,
    /// Median number of tokens of an expert.
    pub median: u64,
    /// Most tokens of any expert.
    pub most: u64,
    /// Experts without tokens.
    pub unseen: Vec<usize>,
}

impl Statistics {
    /// Coverage of the experts.
    pub fn coverage(&self) -> Coverage {
        let layers = self.experts.iter();
        let layers = layers.map(|(layer, all)| coverage(*layer, all.iter().map(|one| one.tokens)));
        Coverage { layers: layers.collect() }
    }
}

impl ExactStatistics {
    /// Coverage of the experts.
    pub fn coverage(&self) -> Coverage {
        let layers = self.experts.iter();
        let layers = layers.map(|(layer, all)| coverage(*layer, all.iter().map(|one| one.tokens)));
        Coverage { layers: layers.collect() }
    }
}

fn coverage(layer: usize, tokens: impl Iterator<Item = u64>) -> LayerCoverage {
    let mut tokens: Vec<u64> = tokens.collect();
    let unseen = (0..tokens.len()).filter(|at| tokens[*at] == 0).collect();
    tokens.sort_unstable();
    LayerCoverage {
        layer,
        experts: tokens.len(),
        least: tokens.first().copied().unwrap_or(0),
        median: tokens.get(tokens.len() / 2).copied().unwrap_or(0),
        most: tokens.last().copied().unwrap_or(0),
        unseen,
    }
}
