//! From statistics to importances: how much an error in a column of a matrix matters.
//!
//! An expert that saw little is judged by its layer as well: its mean square is taken over its own tokens and as
//! many of the layer's average as [`PRIOR_TOKENS`]. An expert that saw nothing is an average one that gets half a
//! token's work, so that no expert is quantized on nothing.

use vaquita_quantize::importance::Importance;
use vaquita_runtime::model::{ExpertSpec, Projection};

use super::{ExpertMoments, Moments, Statistics};

/// Tokens of the layer's average that are added to what an expert saw.
const PRIOR_TOKENS: f64 = 16.0;
/// Tokens that an expert counts for beyond what it saw.
const LEAST_TOKENS: f64 = 0.5;
/// Part of a layer's mean over all columns that every column has at least: texts to come differ.
const FLOOR: f64 = 0.01;

impl Importance for Statistics {
    fn tensor(&self, name: &str, cols: usize) -> Option<Vec<f32>> {
        let moments = self.matrices.get(name)?;
        let mean = moments.means().filter(|mean| mean.len() == cols)?;
        Some(with_floor(&mean, 1.0))
    }

    fn expert(&self, spec: &ExpertSpec, projection: Projection) -> Option<Vec<f32>> {
        let experts = self.experts.get(&spec.layer.0)?;
        let expert = experts.get(spec.expert.0)?;
        let (_, cols) = spec.shape(projection);
        let part = |expert: &ExpertMoments| -> Moments {
            match projection {
                Projection::Gate | Projection::Up => expert.input.clone(),
                Projection::Down => expert.hidden.clone(),
            }
        };
        let mut layer = Moments::default();
        experts.iter().for_each(|expert| layer.merge(&part(expert)));
        let tokens: u64 = experts.iter().map(|expert| expert.tokens).sum();
        let layer_mean = layer.means().filter(|mean| mean.len() == cols)?;
        // The mean square of the router's weights.
        let factor = layer.weight / (tokens as f64).max(1.0);

        let mine = part(expert);
        let prior = PRIOR_TOKENS * factor;
        let weight = mine.weight + prior;
        let mean: Vec<f64> = (0..cols)
            .map(|col| {
                let own = mine.squares.get(col).copied().unwrap_or(0.0);
                (own + layer_mean[col] * prior) / weight
            })
            .collect();
        let average = layer.weight / experts.len().max(1) as f64;
        let work = (mine.weight + LEAST_TOKENS * factor) / average.max(f64::MIN_POSITIVE);
        Some(with_floor(&mean, work))
    }
}

impl Moments {
    /// Mean square per column; `None` where nothing was seen.
    fn means(&self) -> Option<Vec<f64>> {
        let seen = self.weight > 0.0 && self.squares.iter().any(|sum| *sum > 0.0);
        seen.then(|| self.squares.iter().map(|sum| sum / self.weight).collect())
    }
}

fn with_floor(mean: &[f64], factor: f64) -> Vec<f32> {
    let floor = mean.iter().sum::<f64>() / mean.len().max(1) as f64 * FLOOR;
    mean.iter().map(|one| ((one.max(floor) * factor) as f32).clamp(0.0, f32::MAX)).collect()
}
