//! Furthest expected reuse, the default: an estimate of the quantity that Belady's optimum knows.
//!
//! An expert can be used only when its layer is visited, once per token, and then with some
//! probability `p`. Its next use is expected after
//!
//! ```text
//! distance = (layers until its layer comes) / layers + 1 / p      [tokens]
//! ```
//!
//! `p` is the mean of two exponentially decayed frequencies: a slow one for the general popularity
//! of experts, and a fast one for the current topic. How much more likely a recently used expert is
//! differs between models, so it is learnt: experts are classified by age and frequency, and
//! [`Calibration`] scales `p` by the ratio of observed to expected uses in the class.
//!
//! An expert that has just arrived and is expected later than all others is the next one to be
//! evicted, so a single pass over many experts (a long prompt, or a budget below one token's cycle)
//! does not evict those that are used repeatedly.

use super::{ExpertKey, Policy, Shape};
use crate::checkpoint::{ExpertId, LayerId};

/// Decay rate of the slow frequency, once many tokens were seen.
const SLOW: f32 = 0.02;
/// Decay rate of the fast frequency.
const FAST: f32 = 0.15;
/// Weight of the uniform prior in the slow frequency, in tokens.
const PRIOR_TOKENS: f32 = 20.0;
/// Lower bounds of the age classes after the first, in tokens since the last use.
const AGES: [u32; 3] = [2, 3, 5];
/// Number of frequency classes. Their widths are 10/12 of a power of two, from 2^-10 up.
const FREQUENCIES: usize = 12;
/// Weight of the calibration's prior, in uses, so that a few chance uses have little effect.
const PRIOR_USES: f32 = 5.0;

/// Ranks experts by their expected next use.
pub struct Reuse {
    shape: Shape,
    slow: Vec<f32>,
    fast: Vec<f32>,
    /// Tokens of the layer since each expert was last used.
    age: Vec<u32>,
    /// Number of tokens seen by each layer.
    seen: Vec<u64>,
    calibration: Calibration,
}

/// Observed and expected uses of each class of experts.
#[derive(Default)]
struct Calibration {
    used: [[f32; FREQUENCIES]; AGES.len() + 1],
    expected: [[f32; FREQUENCIES]; AGES.len() + 1],
}

/// Class of an expert, by age and by frequency.
fn class(age: u32, p: f32) -> (usize, usize) {
    let frequency = (p.max(1e-9).log2() + 10.0) * (FREQUENCIES as f32 / 10.0);
    // The cast saturates: rarer experts are in the first class, more frequent ones in the last.
    (AGES.partition_point(|&from| from <= age), (frequency as usize).min(FREQUENCIES - 1))
}

impl Calibration {
    fn factor(&self, (age, frequency): (usize, usize)) -> f32 {
        (self.used[age][frequency] + PRIOR_USES) / (self.expected[age][frequency] + PRIOR_USES)
    }
}

impl Reuse {
    /// A policy for which all experts are equally likely.
    pub fn new(shape: Shape) -> Self {
        let uniform = shape.per_token as f32 / shape.experts.max(1) as f32;
        let frequencies = vec![uniform; shape.len()];
        Self {
            shape,
            slow: frequencies.clone(),
            fast: frequencies,
            age: vec![u32::MAX; shape.len()],
            seen: vec![0; shape.layers],
            calibration: Calibration::default(),
        }
    }

    fn frequency(&self, at: usize) -> f32 {
        (self.fast[at] + self.slow[at]) / 2.0
    }

    /// Records the experts of one token.
    fn step(&mut self, layer: LayerId, routed: &[ExpertId]) {
        let start = layer.0 * self.shape.experts;
        let of_layer = start..start + self.shape.experts;
        for at in of_layer.clone() {
            let p = self.frequency(at);
            let (age, frequency) = class(self.age[at], p);
            self.calibration.expected[age][frequency] += p;
            self.age[at] = self.age[at].saturating_add(1);
        }
        for expert in routed {
            let at = start + expert.0;
            // The age before this token, which the loop above has already counted.
            let (age, frequency) = class(self.age[at].saturating_sub(1), self.frequency(at));
            self.calibration.used[age][frequency] += 1.0;
        }
        self.seen[layer.0] += 1;
        let rate = SLOW.max(1.0 / (self.seen[layer.0] as f32 + PRIOR_TOKENS));
        for (frequencies, rate) in [(&mut self.slow, rate), (&mut self.fast, FAST)] {
            let frequencies = &mut frequencies[of_layer.clone()];
            frequencies.iter_mut().for_each(|p| *p *= 1.0 - rate);
            for expert in routed {
                frequencies[expert.0] += rate;
            }
        }
        for expert in routed {
            self.age[start + expert.0] = 1;
        }
    }
}

impl Policy for Reuse {
    fn visit(&mut self, layer: LayerId, routed: &[ExpertId]) {
        for token in routed.chunks(self.shape.per_token.max(1)) {
            self.step(layer, token);
        }
    }

    fn prior(&mut self, popularity: &[f32]) {
        for (frequencies, share) in self.slow.iter_mut().zip(&mut self.fast).zip(popularity) {
            let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
            (*frequencies.0, *frequencies.1) = (share, share);
        }
    }

    fn value(&self, now: LayerId, key: ExpertKey) -> f64 {
        let at = self.shape.index(key);
        let p = self.frequency(at);
        let p = p * self.calibration.factor(class(self.age[at], p));
        let layers = self.shape.layers;
        let until = (key.layer.0 + layers - now.0 - 1) % layers;
        -(until as f64 / layers as f64 + 1.0 / f64::from(p).max(1e-9))
    }
}
