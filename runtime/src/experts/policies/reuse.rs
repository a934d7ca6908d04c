//! Furthest expected reuse: the default. What Belady's optimum knows, this estimates.
//!
//! An expert can be used only when its layer comes round, once per token, and then with some probability
//! `p`. Its next use is expected after
//!
//! ```text
//! distance = (layers until its layer comes) / layers + 1 / p      [tokens]
//! ```
//!
//! `p` is the mean of two decayed frequencies: a slow one that knows which experts are popular, and a fast
//! one that knows what the text is about just now. How much more likely an expert is that was used a token
//! or two ago differs between models, so it is learnt: experts are classed by age and frequency, and
//! [`Calibration`] scales `p` by what was used of each class so far over what `p` had said.
//!
//! A newcomer that is expected later than everything else is itself the next to go, so one pass over many
//! experts (a long prompt, or a budget below one token's cycle) does not sweep out the ones that are used
//! again and again.

use super::{Key, Policy, Shape};
use crate::checkpoint::{ExpertId, LayerId};

/// Weight of the latest token in the slow frequency, once many were seen.
const SLOW: f32 = 0.02;
/// Weight of the latest token in the fast frequency.
const FAST: f32 = 0.15;
/// Tokens that the uniform start counts for in the slow frequency.
const PRIOR_TOKENS: f32 = 20.0;
/// Ages, in tokens since the last use, at which the next class begins.
const AGES: [u32; 3] = [2, 3, 5];
/// Classes of frequency: powers of two times 5/6 from 2^-10 on.
const FREQUENCIES: usize = 12;
/// Uses for which the calibration's start counts, so that a few chance uses do not sway it.
const PRIOR_USES: f32 = 5.0;

/// Values experts by when they are expected to be used next.
pub struct Reuse {
    shape: Shape,
    slow: Vec<f32>,
    fast: Vec<f32>,
    /// Tokens of its layer since an expert was used.
    age: Vec<u32>,
    /// Tokens seen by each layer.
    seen: Vec<u64>,
    calibration: Calibration,
}

/// What was used of each class of experts, and what the frequencies had led to expect.
#[derive(Default)]
struct Calibration {
    used: [[f32; FREQUENCIES]; AGES.len() + 1],
    expected: [[f32; FREQUENCIES]; AGES.len() + 1],
}

/// An expert's class, by age and by frequency.
fn class(age: u32, p: f32) -> (usize, usize) {
    let frequency = (p.max(1e-9).log2() + 10.0) * (FREQUENCIES as f32 / 10.0);
    // The cast saturates: everything rarer is in the first class, everything more frequent in the last.
    (AGES.partition_point(|&from| from <= age), (frequency as usize).min(FREQUENCIES - 1))
}

impl Calibration {
    fn factor(&self, (age, frequency): (usize, usize)) -> f32 {
        (self.used[age][frequency] + PRIOR_USES) / (self.expected[age][frequency] + PRIOR_USES)
    }
}

impl Reuse {
    /// Every expert equally likely.
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

    /// One token's experts.
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
            // The age before this token, which has been counted in already.
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

    fn prior(&mut self, shares: &[f32]) {
        for (frequencies, share) in self.slow.iter_mut().zip(&mut self.fast).zip(shares) {
            let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
            (*frequencies.0, *frequencies.1) = (share, share);
        }
    }

    fn value(&self, now: LayerId, key: Key) -> f64 {
        let at = self.shape.index(key);
        let p = self.frequency(at);
        let p = p * self.calibration.factor(class(self.age[at], p));
        let layers = self.shape.layers;
        let until = (key.layer.0 + layers - now.0 - 1) % layers;
        -(until as f64 / layers as f64 + 1.0 / f64::from(p).max(1e-9))
    }
}
