//! Converts statistics to importance: the weight of errors in each column of a matrix, and the
//! moments for error feedback.
//!
//! An expert with few tokens is shrunk toward its layer: its means are taken over its own tokens
//! and [`PRIOR_TOKENS`] tokens of the layer's average. An expert without tokens is an average one
//! with half a token of work, so that no expert is quantized without statistics.

use std::collections::BTreeMap;

use vaquita_quantize::hessian::Hessian;
use vaquita_quantize::importance::Importance;
use vaquita_runtime::checkpoint::{ExpertSpec, Projection};

use super::{ExpertMoments, Moments, Statistics};

/// Weight of the layer's average, in tokens.
const PRIOR_TOKENS: f64 = 16.0;
/// Tokens added to an expert's count.
const LEAST_TOKENS: f64 = 0.5;
/// Lower bound on every column's importance, relative to the layer's mean over all columns:
/// regularizes against overfitting the calibration text.
const FLOOR: f64 = 0.01;

/// Statistics, with the sums over each layer's experts.
pub struct ImportanceEstimate {
    statistics: Statistics,
    layers: BTreeMap<usize, Layer>,
}

/// Sums over all experts of a layer.
struct Layer {
    tokens: f64,
    input: Moments,
    hidden: Moments,
}

impl ImportanceEstimate {
    /// Sums the experts of each layer.
    pub fn new(statistics: Statistics) -> Self {
        let layers = statistics.experts.iter().map(|(layer, experts)| {
            let mut sums =
                Layer { tokens: 0.0, input: Moments::default(), hidden: Moments::default() };
            for expert in experts {
                sums.tokens += expert.tokens as f64;
                sums.input.merge(&expert.input);
                sums.hidden.merge(&expert.hidden);
            }
            (*layer, sums)
        });
        let layers = layers.collect();
        Self { statistics, layers }
    }

    /// The layer of an expert, its tokens, and the moments of the inputs of one projection, for the
    /// expert and for the layer.
    fn parts(
        &self,
        spec: &ExpertSpec,
        projection: Projection,
    ) -> Option<(&Layer, &Moments, &Moments)> {
        let layer = self.layers.get(&spec.layer.0)?;
        let ExpertMoments { input, hidden, .. } =
            self.statistics.experts.get(&spec.layer.0)?.get(spec.expert.0)?;
        match projection {
            Projection::Gate | Projection::Up => Some((layer, input, &layer.input)),
            Projection::Down => Some((layer, hidden, &layer.hidden)),
        }
    }
}

impl Importance for ImportanceEstimate {
    fn tensor(&self, name: &str, cols: usize) -> Option<Vec<f32>> {
        let moments = self.statistics.matrices.get(name)?;
        let mean = moments.means().filter(|mean| mean.len() == cols)?;
        Some(with_floor(&mean, 1.0))
    }

    fn expert(&self, spec: &ExpertSpec, projection: Projection) -> Option<Vec<f32>> {
        let (layer, mine, all) = self.parts(spec, projection)?;
        let (_, cols) = spec.shape(projection);
        let layer_mean = all.means().filter(|mean| mean.len() == cols)?;
        // The mean square of the router's weights.
        let factor = all.weight / layer.tokens.max(1.0);

        let prior = PRIOR_TOKENS * factor;
        let weight = mine.weight + prior;
        let mean: Vec<f64> = (0..cols)
            .map(|col| {
                let own = mine.squares.get(col).copied().unwrap_or(0.0);
                (own + layer_mean[col] * prior) / weight
            })
            .collect();
        let experts = self.statistics.experts.get(&spec.layer.0).map_or(1, Vec::len);
        let average = all.weight / experts.max(1) as f64;
        let work = (mine.weight + LEAST_TOKENS * factor) / average.max(f64::MIN_POSITIVE);
        Some(with_floor(&mean, work))
    }

    fn tokens(&self, spec: &ExpertSpec) -> Option<u64> {
        Some(self.statistics.experts.get(&spec.layer.0)?.get(spec.expert.0)?.tokens)
    }

    fn reaches(&self, layer: Option<usize>) -> bool {
        let of = |name: &str| {
            name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok())
        };
        let experts = layer.is_some_and(|layer| self.layers.contains_key(&layer));
        experts || self.statistics.matrices.keys().any(|name| of(name) == layer)
    }

    fn tensor_hessian(&self, name: &str, cols: usize) -> Option<Hessian> {
        let products = self.statistics.matrices.get(name)?.products.as_ref();
        products.filter(|products| products.cols() == cols).cloned()
    }

    fn expert_hessian(&self, spec: &ExpertSpec, projection: Projection) -> Option<Hessian> {
        let (layer, mine, all) = self.parts(spec, projection)?;
        let (_, cols) = spec.shape(projection);
        let all = all.products.as_ref().filter(|all| all.cols() == cols && layer.tokens > 0.0)?;
        let mut products = mine.products.clone().unwrap_or_default();
        products.merge(all, (PRIOR_TOKENS / layer.tokens) as f32);
        Some(products)
    }
}

impl Moments {
    /// Mean square per column; `None` without tokens.
    fn means(&self) -> Option<Vec<f64>> {
        let seen = self.weight > 0.0 && self.squares.iter().any(|sum| *sum > 0.0);
        seen.then(|| self.squares.iter().map(|sum| sum / self.weight).collect())
    }
}

fn with_floor(mean: &[f64], factor: f64) -> Vec<f32> {
    let floor = mean.iter().sum::<f64>() / mean.len().max(1) as f64 * FLOOR;
    mean.iter().map(|one| ((one.max(floor) * factor) as f32).clamp(0.0, f32::MAX)).collect()
}
