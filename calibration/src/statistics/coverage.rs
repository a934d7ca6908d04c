//! Which experts the texts reached.

use serde::{Deserialize, Serialize};

use super::{ExactStatistics, Statistics};

/// Coverage of all layers with experts that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Coverage {
    /// By layer.
    pub layers: Vec<LayerCoverage>,
}

/// Coverage of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
        let layers = self.experts.iter();
        let layers = layers.map(|(layer, all)| coverage(*layer, all.iter().map(|one| one.tokens)));
        Coverage { layers: layers.collect() }
    }
}

impl ExactStatistics {
    /// Which experts saw how much.
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
